"""Accuracy against tokens as text: braille lines with a letter for every strategy.

Knows: how to draw a panel in a grid of characters, in colour if asked. Does not know consoles; the
caller prints the string.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from outthink.evaluation.report.axis import Axis, short
from outthink.evaluation.report.table import Panel, Row, Series, panels
from outthink.strategies.defaults import BASELINE, GREEDY, ORACLE

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # braille bits by row and column
_SIGNS = "■▲◆▼◉✚◀▶"
_REFERENCES = {BASELINE: "●", GREEDY: "★", ORACLE: "·"}
# The 256-colour neighbours of the palette that stay legible on black and on white.
_ANSI = (33, 202, 36, 170, 172, 161, 38, 106)
_GUTTER = 7


class _Canvas:
    """A grid of characters, each of 2 x 4 dots."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._bits = [[0] * width for _ in range(height)]
        self._ink: list[list[int | None]] = [[None] * width for _ in range(height)]
        self._signs: dict[tuple[int, int], str] = {}

    def line(self, start: tuple[float, float], end: tuple[float, float], ink: int | None, every: int = 1) -> None:
        """Dots from one point to another (in dots), every so many; what lies outside is left out."""
        steps = max(1, round(max(abs(end[0] - start[0]), abs(end[1] - start[1]))))
        for step in range(0, steps + 1, every):
            x = round(start[0] + (end[0] - start[0]) * step / steps)
            y = round(start[1] + (end[1] - start[1]) * step / steps)
            column, row = x // 2, y // 4
            if 0 <= column < self.width and 0 <= row < self.height:
                self._bits[row][column] |= _DOTS[y % 4][x % 2]
                self._ink[row][column] = ink

    def sign(self, spot: tuple[float, float], sign: str, ink: int | None) -> None:
        """A character on top of the dots."""
        column, row = round(spot[0]) // 2, round(spot[1]) // 4
        if 0 <= column < self.width and 0 <= row < self.height:
            self._signs[row, column], self._ink[row][column] = sign, ink

    def lines(self, *, color: bool) -> list[str]:
        """The rows of the grid, from the top."""
        rows = []
        for row in range(self.height):
            text = ""
            for column in range(self.width):
                bits = self._bits[row][column]
                sign = self._signs.get((row, column), chr(0x2800 + bits) if bits else " ")
                text += _tint(sign, self._ink[row][column], color)
            rows.append(text)
        return rows


def _tint(text: str, ink: int | None, color: bool) -> str:
    return f"\x1b[38;5;{ink}m{text}\x1b[0m" if color and ink is not None and text.strip() else text


def _sign(series: Series) -> tuple[str, int | None]:
    """Character and colour of a strategy."""
    if series.colour is None:
        return _REFERENCES[series.strategy], None
    return _SIGNS[series.colour % len(_SIGNS)], _ANSI[series.colour % len(_ANSI)]


def _plot(panel: Panel, width: int, height: int, color: bool) -> list[str]:
    known = [point for series in panel.series for point in series.points if point.get("tokens")]
    if not known:
        return [" " * (_GUTTER + 1) + "generated tokens per problem: unknown"]
    ours = [point.accuracy for point in known if point.row["strategy"] != ORACLE] or [0.0, 1.0]
    span = max(max(ours) - min(ours), 0.04)
    columns = width - _GUTTER - 2
    x = Axis.around([p.get("tokens") or 1.0 for p in known], 0, 2 * columns - 1, log=True)
    y = Axis(max(0.0, min(ours) - 0.08 * span), min(1.0, max(ours) + 0.15 * span), 4 * height - 1, 0)
    canvas = _Canvas(columns, height)
    # The baseline's marks come last: where a strategy falls on them it has gained nothing.
    for series in sorted(panel.series, key=lambda item: (item.strategy == BASELINE, item.strategy != ORACLE)):
        sign, ink = _sign(series)
        spots = [(x.at(p.get("tokens") or 1.0), y.at(p.accuracy)) for p in series.points if p.get("tokens")]
        oracle = series.strategy == ORACLE
        for start, end in pairwise(spots):
            canvas.line(start, end, ink, every=4 if oracle else 1)
        for spot in () if oracle else spots:
            canvas.sign(spot, sign, ink)
    labels = {round(y.at(value)) // 4: f"{100 * value:.0f} %" for value in y.ticks(height // 3)}
    rows = [
        f"{labels.get(row, ''):>{_GUTTER - 1}} {'┤' if row in labels else '│'}{line}"
        for row, line in enumerate(canvas.lines(color=color))
    ]
    ruler, names = ["─"] * columns, [" "] * (columns + 4)
    for value in x.ticks(columns // 9):
        column, label = round(x.at(value)) // 2, short(value)
        ruler[column] = "┴"
        first = max(0, column - len(label) // 2)
        names[first : first + len(label)] = label
    blank = " " * _GUTTER
    return [
        *rows,
        f"{blank}└{''.join(ruler)}",
        f"{blank} {''.join(names).rstrip()}",
        f"{blank} generated tokens per problem",
    ]


def _legend(panel: Panel, width: int, color: bool) -> list[str]:
    lines, used = [" " * (_GUTTER + 1)], _GUTTER + 1
    for series in panel.series:
        sign, ink = _sign(series)
        name = "⠒ oracle (any sample right)" if series.strategy == ORACLE else f"{sign} {series.strategy}"
        if used + len(name) > width and used > _GUTTER + 1:
            lines.append(" " * (_GUTTER + 1))
            used = _GUTTER + 1
        lines[-1] += _tint(name[0], ink, color) + name[1:] + "   "
        used += len(name) + 3
    return [line.rstrip() for line in lines]


def terminal_plot(rows: Sequence[Row], *, width: int = 76, height: int = 18, color: bool = False) -> str:
    """Draw every traces file of the rows below one another.

    Args:
        rows: rows of `compare` (docs/contracts.md).
        width: characters of a line.
        height: lines of the plotting area of one panel.
        color: tint strategies with ANSI codes.
    """
    blocks = []
    for panel in panels(rows):
        title = " " * (_GUTTER + 1) + panel.traces.replace("--", " · ")
        blocks.append("\n".join([title, *_plot(panel, width, height, color), *_legend(panel, width, color)]))
    return "\n\n".join(blocks) + "\n"
