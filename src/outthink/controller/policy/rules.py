"""Rules that decide how many samples a request gets, and their JSON.

Knows: the fixed size, and when a vote is sure enough. Does not know how their parameters were chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from outthink.controller.cascade import Cascade, StageRule
from outthink.controller.gain import LinearGain
from outthink.controller.policy.guard import AdaptiveConsistency
from outthink.controller.policy.lead import Lead
from outthink.core.errors import BadInput
from outthink.strategies.allocate import Rule


@dataclass(frozen=True, slots=True)
class Fixed:
    """Self-consistency at a fixed size."""

    kind: ClassVar[str] = "fixed"

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": self.kind}

    def start(self, n: int, features: Sequence[float] | None) -> Rule:
        """The rule for one request."""
        return AdaptiveConsistency(n, [], sure=2.0)


@dataclass(frozen=True, slots=True)
class Adaptive:
    """Adaptive-consistency with a threshold of its own."""

    threshold: float
    kind: ClassVar[str] = "adaptive"

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": self.kind, "threshold": self.threshold}

    def start(self, n: int, features: Sequence[float] | None) -> Rule:
        """The rule for one request."""
        return AdaptiveConsistency(n, [], sure=self.threshold)


def rule_from_json(values: Mapping[str, Any]) -> StageRule:
    """The rule that plain values describe; BadInput for anything else."""
    kind = values.get("kind")
    if kind == "fixed":
        return Fixed()
    if kind == "adaptive" and isinstance(values.get("threshold"), float):
        return Adaptive(values["threshold"])
    if kind == Lead.kind:
        return Lead.of(values)
    if kind == LinearGain.kind:
        return LinearGain.of(values)
    if kind == "cascade":
        return Cascade.of(values, rule_from_json)
    raise BadInput("policy", kind, "is no kind of rule", "calibrate again")
