"""Axes, colours and marks: which quantities a chart can show, where a value lies, which ticks bear a label.

Knows: linear and logarithmic scales, short numbers, and a style that survives colour blindness and both colour schemes.
A contender is a number here, and beyond the palette shapes keep contenders apart. Does not know rows, or what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Metric:
    """A cost that rows have: the title of its axis and the unit behind a number."""

    title: str
    unit: str


METRICS = {
    "tokens": Metric("generated tokens per problem", "tokens"),
    "flops": Metric("floating-point operations per problem", "FLOPs"),
    "seconds": Metric("seconds per problem", "s"),
    "gpus_exact": Metric("GPUs at the planned rate and utilisation", "GPUs"),
    "usd_per_answer": Metric("dollars per answer", "$"),
    "watts": Metric("watts at the planned rate, modelled", "W"),
}


def short(value: float) -> str:
    """A number in few characters: 1536 -> 1.54k, 3.1e12 -> 3.1T, 2e-05 -> 0.00002."""
    for size, prefix in _PREFIXES:
        if abs(value) >= 0.9995 * size:  # 999.6 would be written as 1e+03
            return f"{value / size:.3g}{prefix}"
    if 1e-9 < abs(value) < 1e-4:  # what an answer costs in dollars is no place for an exponent
        return f"{value:.{2 - math.floor(math.log10(abs(value)))}f}".rstrip("0")
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
            width = max(math.log(high / low), 0.2)  # one value alone has no width
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


# (light, dark), after Okabe and Ito and Paul Tol; at least 3:1 against the background of each scheme.
COLOURS = (
    ("#0072b2", "#5ab4f0"),
    ("#d55e00", "#ff914d"),
    ("#008f68", "#34cfa0"),
    ("#aa4499", "#e593d0"),
    ("#a87900", "#f2c94c"),
    ("#882255", "#e0708f"),
    ("#2f93c8", "#a5dcff"),
    ("#6b7a12", "#c3d05a"),
)
# A square, triangles, a diamond, ... as matplotlib calls them; a circle is the baseline's, a star a reference point's.
_MARKERS = "s^DvhP<>"
_SHADES = {
    "bg": ("#ffffff", "#14171c"),
    "ink": ("#1f2328", "#e8eaed"),
    "muted": ("#626b76", "#a0a7b1"),
    "grid": ("#e9ecef", "#2a2f37"),
    "edge": ("#dde1e6", "#2b3038"),
    **{f"c{index}": pair for index, pair in enumerate(COLOURS)},
}
"""What a page's rules name, on a light ground and on a dark one."""
GROUND, INK, MUTED, GRID, EDGE = (_SHADES[name][0] for name in ("bg", "ink", "muted", "grid", "edge"))
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


def marker(contender: int | None, *, star: bool = False) -> str:
    """Marker of a contender, of the baseline (None), or of a reference point."""
    if star:
        return "*"
    # Shifted once a lap, so that contender 9 differs from contender 1 in shape where it shares its colour.
    return "o" if contender is None else _MARKERS[(contender + contender // len(COLOURS)) % len(_MARKERS)]


def colour(contender: int | None) -> str:
    """Colour of a contender; the references are drawn in ink."""
    return INK if contender is None else COLOURS[contender % len(COLOURS)][0]


def night(scope: str = ".outthink") -> str:
    """Style sheet that gives figures their dark shades where the reader wants them."""
    shades = [(kind, *pair) for pair in _SHADES.values() for kind in ("fill", "stroke")]
    rules = (f'{scope} [style*="{kind}: {day}"]{{{kind}:{dark}!important}}' for kind, day, dark in shades)
    return f"@media(prefers-color-scheme:dark){{{''.join(rules)}}}"


def style(scope: str = ".outthink") -> str:
    """The same for a page, whose own rules use the shades as variables."""
    light, dark = ("".join(f"--{name}:{pair[place]};" for name, pair in _SHADES.items()) for place in (0, 1))
    return f"{scope}{{font-family:{FONT};{light}}}@media(prefers-color-scheme:dark){{{scope}{{{dark}}}}}{night(scope)}"
