"""Rules that decide how many samples a request gets, and their JSON.

Knows: the fixed size, and when a vote is sure enough. Does not know how their parameters were chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from outthink.controller.cascade import Cascade, StageRule
from outthink.controller.gain import LinearGain, Scale, Stopping, VoteShape, pair_of, scale_of_json
from outthink.controller.policy.regime import PROBES, Regime
from outthink.core.errors import BadInput
from outthink.core.receipt import Stopped, Verdict
from outthink.core.sample import Sample
from outthink.strategies import Votes
from outthink.strategies.voting import Rule, Step

# Leaves a calibrated rule as soon as its first samples are unlike those it was calibrated on.
#
# Knows: the calibrated range of lengths, and that adaptive-consistency goes on with the samples so far.
# Does not know how the calibrated rule decides.

SURE = 0.95
"""How sure adaptive-consistency must be of its leader (arXiv 2305.11860)."""


class AdaptiveConsistency:
    """The strategy of this name as a rule, so that it can take over samples that are already there."""

    def __init__(self, n: int, samples: list[Sample], sure: float = SURE) -> None:
        self._n, self._votes, self._drawn, self._sure = n, Votes(), 0, sure
        self._stopped: Stopped = "finished"
        for sample in samples:
            self.add(sample, None)

    def next(self) -> Step | None:
        """The samples that are left."""
        left = self._n - self._drawn
        return Step(None, left) if left > 0 and self._stopped == "finished" else None

    def add(self, sample: Sample, model: str | None) -> bool:
        """Count a vote; True once the leader is sure."""
        self._drawn += 1
        self._votes.add(sample)
        if self._votes.leader_probability() >= self._sure:
            self._stopped = "consensus"
        return self._stopped != "finished"

    def verdict(self) -> Verdict:
        """The majority's answer."""
        return self._votes.winner(self._stopped)


class Guarded:
    """A rule that watches its first samples.

    Args:
        rule: what decides as long as they look as calibrated.
        n: samples at most.
        tell: receives the reason, once, where they do not.
        ahead: calls in flight at least, None to leave it to the rule.
    """

    def __init__(
        self, rule: Rule, n: int, regime: Regime, tell: Callable[[str], None], ahead: int | None = None
    ) -> None:
        self._rule, self._n, self._regime, self._tell, self._ahead = rule, n, regime, tell, ahead
        self._seen: list[Sample] = []
        self._watching = n > PROBES

    def next(self) -> Step | None:
        """What the rule in charge wants."""
        step = self._rule.next()
        if step is None or self._ahead is None:
            return step
        return step._replace(ahead=max(self._ahead, step.ahead or 1))

    def add(self, sample: Sample, model: str | None) -> bool:
        """Count a sample; True to leave the step, also where another rule takes over."""
        if not self._watching:
            return self._rule.add(sample, model)
        self._seen.append(sample)
        if model is not None:  # another model's lengths are not these
            self._watching = False
        elif len(self._seen) == PROBES:
            self._watching = False
            lengths = [one.tokens for one in self._seen if one.tokens is not None]
            if (reason := self._regime.odd(lengths)) is not None:
                self._rule = AdaptiveConsistency(self._n, self._seen)
                self._tell(reason)
                return True
        return self._rule.add(sample, model)

    def verdict(self) -> Verdict:
        """The answer of the rule in charge."""
        return self._rule.verdict()


# Adaptive-consistency on weighted votes: stops once the leader leads by so many standard deviations.
#
# Knows: a threshold and the vote weights. Does not know how they were chosen
# (evaluation/calibration/fit.py, which computes the same lead over arrays; a test holds the two together).


@dataclass(frozen=True, slots=True)
class Lead:
    """Draw until the leader leads by `limit`: (a - b) / sqrt(a + b + 1) of the two largest weights, which is
    what adaptive-consistency's probability depends on where votes are equal.

    Args:
        horizon: samples at which the calibration's votes ended.
        sway: how much the standardised log-probability and confidence sway a vote's weight, exp(s1 z1 + s2 z2).
    """

    scale: Scale
    horizon: int
    sway: tuple[float, float]
    limit: float
    kind: ClassVar[str] = "weighted-adaptive"
    carries: ClassVar[bool] = True

    def enough(self, shape: VoteShape) -> bool:
        """Whether the leader is far enough ahead."""
        return shape.drawn >= self.horizon or shape.lead >= self.limit

    def json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        values["scale"] = {name: list(v) if isinstance(v, tuple) else v for name, v in values["scale"].items()}
        return {"kind": self.kind, **values, "sway": list(self.sway)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Lead:
        """From plain values; BadInput for what is malformed."""
        try:
            scale = scale_of_json(values["scale"])
            return cls(scale, int(values["horizon"]), pair_of(values["sway"]), float(values["limit"]))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput("policy", cls.kind, f"is malformed ({error!r})", "calibrate again") from None

    def start(self, n: int, features: Sequence[float] | None) -> Stopping:
        """The rule for one request of at most n samples; features of the question are not used."""
        return Stopping(self, n)


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
