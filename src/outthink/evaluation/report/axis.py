"""Axes, colours and marks: which quantities a chart can show, where a value lies, which ticks bear a label.

Knows: linear and logarithmic scales, short numbers, and a style that survives colour blindness and both colour schemes.
A contender is a number here, and beyond the palette shapes keep contenders apart. Does not know rows, or what is drawn.
"""

from __future__ import annotations

import math
import re
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
        if abs(value) >= 0.9995 * size:  # 999.6 would be written as 1e+03
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
# Unit shapes, centred, of about equal area; `circle` is the baseline's.
SHAPES = {
    "circle": "M0-1A1 1 0 1 1 0 1A1 1 0 1 1 0-1Z",
    "square": "M-.9-.9H.9V.9H-.9Z",
    "up": "M0-1.2L1.1.8H-1.1Z",
    "diamond": "M0-1.3L1.3 0 0 1.3-1.3 0Z",
    "down": "M0 1.2L1.1-.8H-1.1Z",
    "hexagon": "M-1.1 0L-.55-.95H.55L1.1 0 .55.95H-.55Z",
    "plus": "M-.4-1.2H.4V-.4H1.2V.4H.4V1.2H-.4V.4H-1.2V-.4H-.4Z",
    "left": "M-1.2 0L.8-1.1V1.1Z",
    "right": "M1.2 0L-.8-1.1V1.1Z",
    "star": "M0-1.5L.4-.5 1.43-.46.62.18.88 1.2 0 .6-.88 1.2-.62.18-1.43-.46-.4-.5Z",
}
_CONTENDERS = ("square", "up", "diamond", "down", "hexagon", "plus", "left", "right")
_VARIABLE = re.compile(r"var\(--(\w+)\)")
_FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


def shape(colour: int | None, *, star: bool = False) -> str:
    """Name of the marker of a contender, of the baseline (None), or of a reference point."""
    if star:
        return "star"
    # Shifted once a lap, so that contender 9 differs from contender 1 in shape where it shares its colour.
    return "circle" if colour is None else _CONTENDERS[(colour + colour // len(COLOURS)) % len(_CONTENDERS)]


def colour_class(colour: int | None) -> str:
    """CSS class of a contender; the references are drawn in ink."""
    return "ink" if colour is None else f"c{colour % len(COLOURS)}"


_SHADES = {
    "bg": ("#ffffff", "#14171c"),
    "ink": ("#1f2328", "#e8eaed"),
    "muted": ("#626b76", "#a0a7b1"),
    "grid": ("#e9ecef", "#2a2f37"),
    "edge": ("#dde1e6", "#2a2f37"),
    "band": (".10", ".16"),
    **{f"c{index}": pair for index, pair in enumerate(COLOURS)},
}
"""What the rules of a chart name, on a light ground and on a dark one."""
_RULES = {
    "": f"font-family:{_FONT};font-size:12px",
    " text": "fill:var(--ink);font-variant-numeric:tabular-nums",
    " .muted": "fill:var(--muted)",
    " .small": "font-size:11px",
    " .title": "font-size:19px;font-weight:650;letter-spacing:-.01em",
    " .head": "font-size:13.5px;font-weight:600",
    " .card": "fill:var(--bg);stroke:var(--edge)",
    " .grid": "stroke:var(--grid);fill:none",
    " .axis": "stroke:var(--muted);fill:none",
    " .ground": "fill:var(--bg)",
    " .ink": "color:var(--ink)",
    **{f" .c{index}": f"color:var(--c{index})" for index in range(len(COLOURS))},
    " .line": "fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round;stroke-linecap:round",
    " .oracle .line": "stroke-width:1.5;stroke-dasharray:2 5;opacity:.75",
    " .band": "fill:currentColor;opacity:var(--band)",
    " .whisker": "stroke:currentColor;stroke-width:1.25;opacity:.32;fill:none",
    " .mark": "fill:currentColor;stroke:var(--bg);stroke-width:.3",
}


def style(scope: str = ".outthink") -> str:
    """Style sheet of a chart in a page, every rule under `scope`, following the reader's colour scheme.

    The colours are variables, which the page uses too.
    """
    light, dark = ("".join(f"--{name}:{pair[place]};" for name, pair in _SHADES.items()) for place in (0, 1))
    sheet = "".join(f"{scope}{selector}{{{body}}}" for selector, body in _RULES.items())
    return f"{scope}{{{light}}}{sheet}@media(prefers-color-scheme:dark){{{scope}{{{dark}}}}}"


def style_alone(scope: str = ".outthink") -> str:
    """The same for a chart that is a file of its own: colours are written out, since many viewers know no variables."""

    def written(selector: str, body: str, *, dark: bool) -> str:
        return f"{scope}{selector}{{{_VARIABLE.sub(lambda found: _SHADES[found[1]][dark], body)}}}"

    sheet = "".join(written(selector, body, dark=False) for selector, body in _RULES.items())
    # The shades in a rule decide; what it says besides holds for both.
    parts = {name: ";".join(part for part in body.split(";") if "var(" in part) for name, body in _RULES.items()}
    night = "".join(written(selector, body, dark=True) for selector, body in parts.items() if body)
    return f"{sheet}@media(prefers-color-scheme:dark){{{night}}}"
