"""Axes: which quantities a chart can show, where a value lies, and which ticks are worth a label.

Knows: linear and logarithmic scales and short numbers. Does not know rows, colours or SVG.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Metric:
    """A cost that rows have: its key, the title of its axis and the unit behind a number."""

    key: str
    title: str
    unit: str


METRICS = {
    "tokens": Metric("tokens", "generated tokens per problem", "tokens"),
    "flops": Metric("flops", "floating-point operations per problem", "FLOPs"),
    "seconds": Metric("seconds", "seconds per problem", "s"),
}


def short(value: float) -> str:
    """A number in few characters: 1536 -> 1.5k, 3.1e12 -> 3.1T, 0.25 -> 0.25."""
    for size, prefix in _PREFIXES:
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from data `low`..`high` to coordinates `start`..`end` (either may be the larger)."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float, *, log: bool, margin: float = 0.04) -> Axis:
        """An axis over all values with some air; a linear one of costs begins at zero."""
        low, high = min(values), max(values)
        if log:
            width = max(math.log(high / low), 0.2)
            return cls(low * math.exp(-margin * width), high * math.exp(margin * width), start, end, True)
        return cls(0.0, high * (1 + margin) or 1.0, start, end)

    def at(self, value: float) -> float:
        """The coordinate of a value."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 6) -> list[float]:
        """About `count` round values inside the axis."""
        return self._logarithmic(count) if self.log else self._linear(count)

    def _linear(self, count: int) -> list[float]:
        rough = (self.high - self.low) / max(1, count)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * size for size in (1, 2, 5, 10) if power * size >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]

    def _logarithmic(self, count: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        ladders: list[tuple[tuple[int, ...], int]]
        ladders = [(digits, 1) for digits in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5), (1, 2, 5), (1, 3))]
        ladders += [((1,), decades) for decades in (1, 2, 3, 6)]
        for digits, decades in ladders:
            powers = range(first - first % decades, last + 1, decades)
            values = [float(f"{digit}e{power}") for power in powers for digit in digits]
            inside = [value for value in values if self.low <= value <= self.high]
            # The richest ladder whose labels keep their distance, at least 2/3 of an even spacing.
            if len(inside) > 1 and self._gap(inside) * 1.5 * count >= 1:
                return inside
        return self._linear(count)  # the axis is so short that it is all but linear

    def _gap(self, values: Sequence[float]) -> float:
        """The least distance of two ticks, as a share of the axis."""
        spots = [self.at(value) for value in values]
        return min(abs(b - a) for a, b in pairwise(spots)) / abs(self.end - self.start)
