"""Accuracy against compute as one standalone SVG: title, legend and a panel for each traces file.

Knows: the page, its legend, and how a panel looks inside its frame: grid, bands, lines, whiskers, marks of one traces
file. Does not know where rows come from, or scripts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from outthink.core.errors import BadInput
from outthink.evaluation.report.axis import METRICS, SHAPES, Axis, colour_class, shape, short, style_alone
from outthink.evaluation.report.table import Panel, Point, Row, Series, panels, strategies
from outthink.strategies.defaults import BASELINE, GREEDY, ORACLE

_HEADROOM = 0.22  # of the contenders' range: how much of an oracle above them is worth its space


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a panel lies, and what its axes mean (pixels)."""

    left: float
    top: float
    width: float
    height: float
    metric: str
    x: Axis
    y: Axis

    @classmethod
    def fit(
        cls, panel: Panel, box: tuple[float, float, float, float], metric: str, costs: Sequence[float], *, log: bool
    ) -> _Frame:
        """Axes that show `costs` and all contenders with their intervals; an oracle far above leaves at the top."""
        left, top, width, height = box
        shown = [p for series in panel.series for p in series.points if p.get(metric) is not None]
        ours = [p for p in shown if p.row["strategy"] != ORACLE] or shown
        low = min((p.low for p in ours), default=0.0)
        high = max((p.high for p in ours), default=1.0)
        span = max(high - low, 0.05)
        ceiling = max((p.high for p in shown), default=1.0)
        high = min(1.0, high + 0.05 * span if ceiling <= high else min(ceiling + 0.05 * span, high + _HEADROOM * span))
        y = Axis(max(0.0, low - 0.06 * span), high, top + height, top)
        x = Axis.around(costs, left, left + width, log=log)
        return cls(left, top, width, height, metric, x, y)

    def place(self, point: Point) -> tuple[float, float] | None:
        """Coordinates of a point, None where its cost is unknown."""
        cost = point.get(self.metric)
        return None if cost is None else (self.x.at(cost), self.y.at(point.accuracy))


def text(x: float, y: float, content: str, classes: str = "", anchor: str = "start") -> str:
    """An SVG text element."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}" text-anchor="{anchor}">{escape(content)}</text>'


def mark(x: float, y: float, name: str, size: float = 4.2) -> str:
    """A marker shape."""
    return f'<path class="mark" transform="translate({x:.1f} {y:.1f}) scale({size})" d="{SHAPES[name]}"/>'


def describe(point: Point, metric: str) -> str:
    """One line for tooltips and screen readers."""
    row, unit = point.row, METRICS[metric].unit
    cost = point.get(metric)
    spent = "unknown" if cost is None else f"{short(cost)} {unit}"
    interval = f" [{100 * point.low:.1f}, {100 * point.high:.1f}]" if row.get("accuracy_low") is not None else ""
    return f"{row['strategy']}, n = {point.n}: {100 * point.accuracy:.1f} %{interval}, {spent}"


def _grid(frame: _Frame) -> Iterator[str]:
    right, bottom = frame.left + frame.width, frame.top + frame.height
    for value in frame.y.ticks(9):
        y = frame.y.at(value)
        yield f'<path class="grid" d="M{frame.left:.1f} {y:.1f}H{right:.1f}"/>'
        yield text(frame.left - 8, y + 4, f"{100 * value:g} %", "muted", "end")
    for value in frame.x.ticks(max(3, int(frame.width / 62))):
        x = frame.x.at(value)
        yield f'<path class="grid" d="M{x:.1f} {frame.top:.1f}V{bottom:.1f}"/>'
        yield text(x, bottom + 18, short(value), "muted", "middle")
    yield f'<path class="axis" d="M{frame.left:.1f} {bottom:.1f}H{right:.1f}"/>'
    yield text(frame.left + frame.width / 2, bottom + 38, METRICS[frame.metric].title, "muted", "middle")


def _rungs(frame: _Frame, baseline: Series | None) -> Iterator[str]:
    """The baseline's sizes along the upper edge: a second scale, in samples."""
    last, room = None, 0
    for point in baseline.points if baseline else ():
        spot = frame.place(point)
        if spot is None or (last is not None and spot[0] - last < room):
            continue
        yield f'<path class="axis" d="M{spot[0]:.1f} {frame.top - 4:.1f}v4"/>'
        content = f"n = {point.n}" if last is None else str(point.n)
        yield text(spot[0], frame.top - 9, content, "muted small", "middle")
        last, room = spot[0], 30 if last is None else 18  # the first label is wider


def _path(spots: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)


def _series(frame: _Frame, series: Series, clip: str, *, interactive: bool) -> Iterator[str]:
    known = [(point, spot) for point in series.points if (spot := frame.place(point)) is not None]
    if not known:
        return
    name = escape(series.strategy, quote=True)
    oracle = series.strategy == ORACLE
    yield f'<g class="series {colour_class(series.colour)}{" oracle" if oracle else ""}" data-strategy="{name}">'
    inner = f'<g clip-path="url(#{clip})">'
    if series.strategy == BASELINE and len(known) > 1:
        upper = [(x, frame.y.at(point.high)) for point, (x, _) in known]
        lower = [(x, frame.y.at(point.low)) for point, (x, _) in reversed(known)]
        inner += f'<path class="band" d="{_path(upper + lower)}Z"/>'
    if len(known) > 1:
        inner += f'<path class="line" d="{_path([spot for _, spot in known])}"/>'
    yield f"{inner}</g>"
    for point, (x, y) in known:
        if y < frame.top - 1:  # an oracle that has left the panel: `_exit` names it
            continue
        label = escape(describe(point, frame.metric), quote=True)
        # A focusable mark needs a name of its own; a still picture has a native tooltip instead.
        if interactive:
            yield f'<g class="point" data-row="{point.place}" tabindex="0" role="img" aria-label="{label}">'
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="11" fill="transparent"/>'
        else:
            yield f'<g class="point"><title>{label}</title>'
        if not oracle and (series.strategy != BASELINE or len(known) == 1):
            low, high = frame.y.at(point.low), max(frame.top, frame.y.at(point.high))
            yield f'<path class="whisker" d="M{x:.1f} {low:.1f}V{high:.1f}"/>'
        star = series.strategy == GREEDY
        size = 5.0 if star else 2.2 if oracle else 4.0
        yield mark(x, y, shape(series.colour, star=star), size) + "</g>"
    yield "</g>"


def _exit(frame: _Frame, oracle: Series | None) -> str:
    """Where the oracle leaves the panel, say how far it goes."""
    known = [(p, spot) for p in (oracle.points if oracle else ()) if (spot := frame.place(p)) is not None]
    if not known or known[-1][1][1] >= frame.top - 1:
        return ""
    after = next(index for index, (_, spot) in enumerate(known) if spot[1] < frame.top)
    (x1, y1), (x0, y0) = known[after][1], known[max(0, after - 1)][1]
    x = x1 if y1 == y0 else x0 + (x1 - x0) * (frame.top - y0) / (y1 - y0)
    content = f"oracle: {100 * known[-1][0].accuracy:.0f} % at n = {known[-1][0].n}"
    width = 6.2 * len(content)
    fits = x + 8 + width < frame.left + frame.width
    place, anchor = (x + 8, "start") if fits else (x - 10, "end")
    label = text(place, frame.top + 15, content, "muted small", anchor)
    # A ground and no outline of the letters, which viewers that know no `paint-order` paint over them.
    left = place if fits else place - width
    ground = f'<rect class="ground" x="{left - 2:.1f}" y="{frame.top + 5:.1f}" width="{width:.1f}" height="13"/>'
    return f'<g class="series" data-strategy="{ORACLE}">{ground}{label}</g>'


def _draw_panel(panel: Panel, frame: _Frame, clip: str, *, interactive: bool) -> str:
    """The panel as an SVG group; `clip` is an identifier that no other panel of the page has."""
    box = f'x="{frame.left:.1f}" y="{frame.top:.1f}" width="{frame.width:.1f}" height="{frame.height:.1f}"'
    parts = [f'<g class="panel"><clipPath id="{clip}"><rect {box}/></clipPath>']
    parts.append(text(frame.left - 40, frame.top - 32, panel.traces.replace("--", " · "), "head"))
    if not any(point.get(frame.metric) for series in panel.series for point in series.points):
        content = f"{METRICS[frame.metric].title}: unknown"
        middle = text(frame.left + frame.width / 2, frame.top + frame.height / 2, content, "muted", "middle")
        return "".join(parts) + middle + "</g>"
    parts += _grid(frame)
    parts += _rungs(frame, panel.find(BASELINE))
    # References first, so that contenders lie on top of them, and lone marks where no line can hide them.
    for series in sorted(panel.series, key=lambda item: (item.colour is not None, len(item.points) == 1)):
        parts += _series(frame, series, clip, interactive=interactive)
    parts.append(_exit(frame, panel.find(ORACLE)))
    return "".join(parts) + "</g>"


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


def _summary(by_file: list[Panel]) -> str:
    """What the chart shows, in words, for those who cannot see it."""
    lines = []
    for panel in by_file:
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
    by_file = panels(rows)
    if not by_file:
        raise BadInput("rows", "[]", "is empty", "give the rows of `outthink compare --json`")
    y = 24.0
    head = ""
    if not interactive:
        head = text(_MARGIN, 42, title, "title") + (text(_MARGIN, 63, subtitle, "muted") if subtitle else "")
        y = 92.0 if subtitle else 72.0
    legend, height = _legend(rows, y)
    body, y = _panels(rows, by_file, y + height + 44, x=x, log=log, interactive=interactive, prefix=prefix)
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
            f'<desc id="{prefix}-desc">{escape(_summary(by_file))}</desc>',
            "" if interactive else f"<style>{style_alone()}</style>{card}",
            head,
            legend,
            body,
            text(_MARGIN, y - 4, _NOTE, "muted small"),
            "</svg>",
        )
    )


def _panels(
    rows: Sequence[Row], by_file: list[Panel], top: float, *, x: str, log: bool, interactive: bool, prefix: str
) -> tuple[str, float]:
    """All panels, two in a line, and the height at which they end."""
    columns = min(2, len(by_file))
    width = (_WIDTH - 2 * _MARGIN - (columns - 1) * 30) / columns
    tall = 330.0 if columns == 2 else 400.0
    # One cost axis for all panels: models are compared at equal cost, each with accuracies of its own.
    costs = [cost for row in rows if (cost := row.get(x)) is not None and cost > 0] or [1.0, 10.0]
    body = ""
    for index, panel in enumerate(by_file):
        left = _MARGIN + (index % columns) * (width + 30) + _GUTTER
        box = (left, top + (index // columns) * (tall + 112), width - _GUTTER, tall)
        frame = _Frame.fit(panel, box, x, costs, log=log)
        body += _draw_panel(panel, frame, f"{prefix}-clip-{index}", interactive=interactive)
    return body, top - (-len(by_file) // columns) * (tall + 112) - 46
