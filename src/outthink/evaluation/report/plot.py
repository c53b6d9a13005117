"""Accuracy against compute as one standalone SVG: title, legend and a panel for each traces file.

Knows: the page and its legend. Does not know how a panel is drawn, where rows come from, or scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from outthink.core.errors import BadInput
from outthink.evaluation.report.axis import METRICS
from outthink.evaluation.report.palette import colour_class, shape, style
from outthink.evaluation.report.panel import Frame, draw_panel, mark, text
from outthink.evaluation.report.series import BASELINE, GREEDY, ORACLE, Panel, Row, panels, strategies

_WIDTH, _MARGIN = 960.0, 28.0
_GUTTER = 40.0  # left of a panel, for the accuracies
_NARROW = frozenset("fijlrt-.,:=1I|()[]/ ")
_NOTE = "Band and bars: 95 % bootstrap interval over problems. Upper scale: samples of self-consistency."


def _width(content: str) -> float:
    """About the width of a text at 12 px; generous, since the reader's font is unknown."""
    return sum(4.4 if character in _NARROW else 7.6 for character in content)


def _legend(rows: Sequence[Row], top: float) -> tuple[str, float]:
    """Entries in as many lines as they need, and the height of all of them."""
    contenders = [name for name in strategies(rows) if name not in (BASELINE, GREEDY, ORACLE)]
    lines = {series.strategy for panel in panels(rows) for series in panel.series if len(series.points) > 1}
    x, y, parts = _MARGIN, top, []
    for name in strategies(rows):
        width = 30 + _width(name) + 15
        if x > _MARGIN and x + width > _WIDTH - _MARGIN:
            x, y = _MARGIN, y + 22
        colour = contenders.index(name) if name in contenders else None
        oracle, star = name == ORACLE, name == GREEDY
        line = "" if name not in lines else f'<path class="line" d="M{x:.1f} {y:.1f}h24"/>'
        shown = mark(x + 12, y, shape(colour, star=star), 5 if star else 2.2 if oracle else 4)
        classes = f"key {colour_class(colour)}{' oracle' if oracle else ''}"
        label = text(x + 30, y + 4, name)
        parts.append(f'<g class="{classes}" data-key="{escape(name, quote=True)}">{line}{shown}{label}</g>')
        x += width
    return "".join(parts), y - top + 22


def _summary(found: list[Panel]) -> str:
    """What the chart shows, in words, for those who cannot see it."""
    lines = []
    for panel in found:
        for series in panel.series:
            last = series.points[-1]
            lines.append(f"{panel.traces}: {series.strategy} reaches {100 * last.accuracy:.1f} % at n = {last.n}.")
    return " ".join(lines)


def draw(
    rows: Sequence[Row],
    *,
    x: str = "tokens",
    log: bool = True,
    title: str = "Accuracy against compute",
    subtitle: str = "",
    interactive: bool = False,
    prefix: str = "outthink",
) -> str:
    """Draw the rows of `compare`.

    Args:
        rows: dicts with the keys of docs/contracts.md; all traces files get a panel, two in a line.
        x: the cost on the horizontal axis: tokens, flops or seconds (means per problem).
        log: a logarithmic cost axis; a linear one begins at zero.
        interactive: marks can be focused and name their row (for the HTML report, which also
            brings style and title itself).
        prefix: begins every identifier inside, unique within a page.

    Returns:
        An <svg> element that needs nothing outside itself. BadInput for an unknown axis or no rows.
    """
    if x not in METRICS:
        raise BadInput("x", x, "is no axis", f"use one of {', '.join(METRICS)}")
    found = panels(rows)
    if not found:
        raise BadInput("rows", "[]", "is empty", "give the rows of `outthink compare --json`")
    y = 24.0
    head = ""
    if not interactive:
        head = text(_MARGIN, 42, title, "title") + (text(_MARGIN, 63, subtitle, "muted") if subtitle else "")
        y = 92.0 if subtitle else 72.0
    legend, height = _legend(rows, y)
    body, y = _panels(rows, found, y + height + 44, x=x, log=log, interactive=interactive, prefix=prefix)
    total = y + 16
    # Inside the report the margins are the page's.
    view = f"{_MARGIN - 10:g} 0 {_WIDTH - 2 * _MARGIN + 20:g}" if interactive else f"0 0 {_WIDTH:g}"
    card = f'<rect class="card" x=".5" y=".5" width="{_WIDTH - 1:g}" height="{total - 1:g}" rx="10"/>'
    return "".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="outthink" viewBox="{view} {total:g}" ',
            "" if interactive else f'width="{_WIDTH:g}" height="{total:g}" ',
            f'role="{"group" if interactive else "img"}" aria-labelledby="{prefix}-title {prefix}-desc">',
            f'<title id="{prefix}-title">{escape(title)}: accuracy in percent against {METRICS[x].title}</title>',
            f'<desc id="{prefix}-desc">{escape(_summary(found))}</desc>',
            "" if interactive else f"<style>{style()}</style>{card}",
            head,
            legend,
            body,
            text(_MARGIN, y - 4, _NOTE, "muted small"),
            "</svg>",
        )
    )


def _panels(
    rows: Sequence[Row], found: list[Panel], top: float, *, x: str, log: bool, interactive: bool, prefix: str
) -> tuple[str, float]:
    """All panels, two in a line, and the height at which they end."""
    columns = min(2, len(found))
    width = (_WIDTH - 2 * _MARGIN - (columns - 1) * 30) / columns
    tall = 330.0 if columns == 2 else 400.0
    # One cost axis for all panels: models are compared at equal cost, each with accuracies of its own.
    costs = [cost for row in rows if (cost := row.get(x)) is not None and cost > 0] or [1.0, 10.0]
    body = ""
    for index, panel in enumerate(found):
        left = _MARGIN + (index % columns) * (width + 30) + _GUTTER
        box = (left, top + (index // columns) * (tall + 112), width - _GUTTER, tall)
        frame = Frame.fit(panel, box, x, costs, log=log)
        body += draw_panel(panel, frame, f"{prefix}-clip-{index}", interactive=interactive)
    return body, top - (-len(found) // columns) * (tall + 112) - 46
