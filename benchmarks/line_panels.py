"""Small panels of lines and marks side by side as one standalone SVG: reliability plots, routing curves.

Knows: numeric axes, a legend, a dashed line of reference. Does not know what is plotted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outthink.core.errors import BadInput
from outthink.evaluation.report.axis import GROUND, INK, MUTED, colour, marker
from outthink.evaluation.report.figure import MARGIN, Canvas, settings

_GUTTER, _GAP = 52.0, 26.0
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
    said = " ".join(
        f"{square.title}: {line.name} ends at {_tick(line.points[-1][1], square.percent[1])}."
        for square in squares
        for line in square.lines
        if line.points and not line.reference
    )
    with settings(prefix):
        canvas = Canvas(2 * MARGIN + columns * (_GUTTER + _SIDE) + (columns - 1) * _GAP)
        legend = 88.0 if subtitle else 66.0
        top = legend + canvas.legend([(name, _look(place)) for place, name in enumerate(names)]) + 12
        canvas.resize(top + -(-len(squares) // columns) * (_SIDE + _BELOW), legend)
        canvas.heading(title, subtitle)
        for place, square in enumerate(squares):
            left = MARGIN + _GUTTER + (place % columns) * (_GUTTER + _SIDE + _GAP)
            _panel(canvas, square, names, left, top + (place // columns) * (_SIDE + _BELOW) + 46)
        return canvas.svg(prefix, title, said, {})


def _look(place: int) -> dict[str, Any]:
    look = {"color": colour(place), "marker": marker(place), "markersize": 6.5, "linewidth": 2.0}
    return look | {"markeredgecolor": GROUND, "markeredgewidth": 0.7}


def _panel(canvas: Canvas, square: Square, names: Sequence[str], left: float, top: float) -> None:
    axes = canvas.axes(left, top, _SIDE, _SIDE)
    canvas.text(left - _GUTTER + 8, top - 30, square.title, fontsize=13.5, fontweight="bold")
    canvas.text(left - _GUTTER + 8, top - 13, square.y, color=MUTED)
    axes.set(xlim=square.across, ylim=square.up)
    across, up = ([low + (high - low) * step / 5 for step in range(6)] for low, high in (square.across, square.up))
    axes.set_xticks(across, labels=[_tick(value, square.percent[0]) for value in across])
    axes.set_yticks(up, labels=[_tick(value, square.percent[1]) for value in up])
    axes.set_xlabel(square.x, labelpad=8)
    for line in square.lines:
        # A value beyond the axis lies on its end.
        x, y = (
            [min(max(value, low), high) for value in values]
            for values, (low, high) in zip(zip(*line.points, strict=True), (square.across, square.up), strict=True)
        )
        dashed = {"color": INK, "linewidth": 1.5, "linestyle": (0, (2, 3))}
        look = dashed if line.reference else _look(names.index(line.name))
        axes.plot(x, y, **look, clip_on=False, zorder=2 if line.reference else 3)


def _tick(value: float, percent: bool) -> str:
    return f"{100 * value:.3g} %" if percent else f"{value:.3g}"
