"""Small panels of lines and marks side by side as one standalone SVG: reliability plots, routing curves.

Knows: numeric axes, a legend, a dashed line of reference. Does not know what is plotted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from outthink.core.errors import BadInput
from outthink.evaluation.report.axis import colour_class, shape, style_alone
from outthink.evaluation.report.plot import mark, text

_MARGIN, _GUTTER, _GAP = 28.0, 52.0, 26.0
_SIDE, _BELOW = 300.0, 118.0
_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class Line:
    """Points in the order in which they are joined; `reference` ones are dashed and bear no marks."""

    name: str
    points: Sequence[tuple[float, float]]
    reference: bool = False


@dataclass(frozen=True, slots=True)
class Square:
    """One panel.

    Args:
        title: above it.
        x, y: what the axes show.
        across, up: range of each axis; as fractions, shown in per cent, where `percent` says so.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    across: tuple[float, float] = (0.0, 1.0)
    up: tuple[float, float] = (0.0, 1.0)
    percent: tuple[bool, bool] = (True, True)


def draw_lines(squares: Sequence[Square], *, title: str, subtitle: str = "", prefix: str = "lines") -> str:
    """An <svg> element that needs nothing outside itself; panels stand three in a line.

    Lines of one name have one colour in all panels. BadInput without panels or for an empty axis.
    """
    if not squares:
        raise BadInput("squares", "[]", "is empty", "give at least one panel")
    for square in squares:
        if square.across[0] >= square.across[1] or square.up[0] >= square.up[1]:
            raise BadInput("squares", square.title, "has an axis without length", "give a low and a higher end")
    names = list(dict.fromkeys(line.name for square in squares for line in square.lines if not line.reference))
    columns = min(_COLUMNS, len(squares))
    width = 2 * _MARGIN + columns * (_GUTTER + _SIDE) + (columns - 1) * _GAP
    top = 100.0 if subtitle else 80.0
    rows = -(-len(squares) // columns)
    height = top + rows * (_SIDE + _BELOW)
    body = "".join(
        "".join(_panel(square, names, _left(place % columns), top + (place // columns) * (_SIDE + _BELOW) + 46))
        for place, square in enumerate(squares)
    )
    said = " ".join(
        f"{square.title}: {line.name} ends at {_tick(line.points[-1][1], square.percent[1])}."
        for square in squares
        for line in square.lines
        if line.points and not line.reference
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="outthink" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" aria-labelledby="{prefix}-title {prefix}-desc">'
        f'<title id="{prefix}-title">{escape(title)}</title><desc id="{prefix}-desc">{escape(said)}</desc>'
        f'<style>{style_alone()}</style><rect class="card" x=".5" y=".5" width="{width - 1:g}" height="{height - 1:g}" '
        f'rx="10"/>{text(_MARGIN, 42, title, "title")}{text(_MARGIN, 63, subtitle, "muted")}'
        f"{_legend(names, top - 12)}{body}</svg>"
    )


def _left(column: int) -> float:
    return _MARGIN + _GUTTER + column * (_GUTTER + _SIDE + _GAP)


def _legend(names: Sequence[str], y: float) -> str:
    found, x = "", _MARGIN
    for place, name in enumerate(names):
        found += f'<g class="{colour_class(place)}">{mark(x + 6, y, shape(place))}{text(x + 18, y + 4, name)}</g>'
        x += 40 + 7 * len(name)
    return found


def _panel(square: Square, names: Sequence[str], left: float, top: float) -> Iterator[str]:
    def at(point: tuple[float, float]) -> tuple[float, float]:
        (x, y), (x0, x1), (y0, y1) = point, square.across, square.up
        inside = min(max(x, x0), x1), min(max(y, y0), y1)
        return left + _SIDE * (inside[0] - x0) / (x1 - x0), top + _SIDE * (1 - (inside[1] - y0) / (y1 - y0))

    yield text(left - _GUTTER + 8, top - 30, square.title, "head")
    for step in range(6):
        x = square.across[0] + (square.across[1] - square.across[0]) * step / 5
        y = square.up[0] + (square.up[1] - square.up[0]) * step / 5
        across, up = at((x, y))
        yield f'<path class="grid" d="M{across:.1f} {top:.1f}v{_SIDE:g}M{left:.1f} {up:.1f}h{_SIDE:g}"/>'
        yield text(across, top + _SIDE + 18, _tick(x, square.percent[0]), "muted", "middle")
        yield text(left - 8, up + 4, _tick(y, square.percent[1]), "muted", "end")
    yield text(left + _SIDE / 2, top + _SIDE + 38, square.x, "muted", "middle")
    yield text(left - _GUTTER + 8, top - 13, square.y, "muted")
    for line in square.lines:
        spots = [at(point) for point in line.points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
        if line.reference:
            yield f'<g class="ink oracle"><path class="line" d="{path}"/></g>'
            continue
        place = names.index(line.name)
        marks = "".join(mark(x, y, shape(place), 3.2) for x, y in spots)
        yield f'<g class="{colour_class(place)}"><path class="line" d="{path}"/>{marks}</g>'


def _tick(value: float, percent: bool) -> str:
    return f"{100 * value:.3g} %" if percent else f"{value:.3g}"
