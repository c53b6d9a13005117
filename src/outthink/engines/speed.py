"""The time model of simulated engines.

Knows: decode and prefill rates and how concurrent streams share them. Does not know any engine.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

from outthink.core.errors import BadInput

_RATE = "give tokens a second"
_REMEDIES = {"stream": _RATE, "total": _RATE, "prefill": _RATE, "concurrency": "give a number of calls"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Rates in tokens a second: a stream decodes at min(stream, total / active streams).

    Prefill is charged to its own stream at `prefill`; calls beyond `concurrency` queue.
    """

    stream: float = 50.0
    total: float = 2000.0
    prefill: float = 5000.0
    concurrency: int = 8

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value <= 0:
                raise BadInput(f"speed {field.name}", value, "is not a positive number", _REMEDIES[field.name])

    @classmethod
    def parse(cls, text: str) -> Speed:
        """Read `stream=50,total=2000` or a JSON file with the same keys."""
        if "=" not in text:
            try:
                values = json.loads(Path(text).read_text())
            except (OSError, ValueError) as error:
                raise BadInput("speed", text, f"cannot be read ({error})", "give k=v,... or a JSON file") from None
        else:
            pairs = [part.partition("=") for part in text.split(",") if part.strip()]
            values = {name.strip(): value for name, _, value in pairs}
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) - names:
            raise BadInput("speed", text, "has an unknown key", f"use {', '.join(sorted(names))}")
        try:
            numbers = {name: float(value) for name, value in values.items()}
            if "concurrency" in numbers:
                numbers["concurrency"] = int(numbers["concurrency"])
        except (TypeError, ValueError, OverflowError):
            raise BadInput("speed", text, "is not numeric", "give tokens a second") from None
        return replace(cls(), **numbers)  # type: ignore[arg-type]

    def rate(self, active: int) -> float:
        """Tokens a second for each of `active` streams."""
        return min(self.stream, self.total / active) if active else self.stream
