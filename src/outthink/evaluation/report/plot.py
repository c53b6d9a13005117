"""Accuracy against compute as one figure: title, legend and a panel for each traces file.

Knows: the page, its legend, and how a panel looks inside its frame: bands, lines, whiskers, marks of one traces file.
Does not know where rows come from, or scripts; how a figure is written is `figure`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from outthink.core.errors import BadInput
from outthink.evaluation.report.axis import GROUND, METRICS, MUTED, Axis, colour, marker, short
from outthink.evaluation.report.figure import MARGIN, Canvas, settings
from outthink.evaluation.report.table import Panel, Point, Row, Series, panels, strategies
from outthink.strategies.defaults import BASELINE, GREEDY, ORACLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _GUTTER = 960.0, 40.0  # of the page, and left of a panel, for the accuracies
_HEADROOM = 0.22  # of the contenders' range: how much of an oracle above them is worth its space
_NOTE, _SAMPLES = "Band and bars: 95 % bootstrap interval over problems.", " Upper scale: samples of self-consistency."


def describe(point: Point, metric: str) -> str:
    """One line for tooltips and screen readers."""
    row, unit = point.row, METRICS[metric].unit
    cost = point.get(metric)
    spent = "unknown" if cost is None else f"{short(cost)} {unit}"
    interval = f" [{100 * point.low:.1f}, {100 * point.high:.1f}]" if row.get("accuracy_low") is not None else ""
    return f"{row['strategy']}, n = {point.n}: {100 * point.accuracy:.1f} %{interval}, {spent}"


def _look(strategy: str, contender: int | None) -> dict[str, Any]:
    """How a strategy's line and its marks are drawn."""
    look: dict[str, Any] = {"color": colour(contender), "linewidth": 2.0, "solid_capstyle": "round"}
    look |= {"marker": marker(contender, star=strategy == GREEDY), "markeredgecolor": GROUND, "markeredgewidth": 0.8}
    look["markersize"] = {GREEDY: 12.0, ORACLE: 5.0}.get(strategy, 8.0)
    if strategy == ORACLE:
        look |= {"linewidth": 1.5, "linestyle": (0, (0.1, 3.5)), "dash_capstyle": "round"}
    return look


class _Frame:
    """A panel's axes: those of matplotlib, and where a value lies in pixels."""

    def __init__(self, axes: Axes, width: float, panel: Panel, metric: str, costs: Sequence[float], log: bool) -> None:
        shown = [p for series in panel.series for p in series.points if p.get(metric) is not None]
        ours = [p for p in shown if p.row["strategy"] != ORACLE] or shown
        low, high = min(p.low for p in ours), max(p.high for p in ours)
        span, ceiling = max(high - low, 0.05), max(p.high for p in shown)
        # An oracle far above the contenders leaves at the top.
        high = min(1.0, high + 0.05 * span if ceiling <= high else min(ceiling + 0.05 * span, high + _HEADROOM * span))
        self.axes, self.metric, self.top = axes, metric, high
        y, self.x = Axis(max(0.0, low - 0.06 * span), high, 0, 1), Axis.around(costs, 0, width, log=log)
        axes.set(xscale="log" if log else "linear", xlim=(self.x.low, self.x.high), ylim=(y.low, y.high))
        across, up = self.x.ticks(max(3, int(width / 62))), y.ticks(9)
        axes.set_xticks(across, labels=map(short, across))
        axes.set_yticks(up, labels=[f"{100 * value:g} %" for value in up])
        axes.minorticks_off()
        axes.set_xlabel(METRICS[metric].title, labelpad=8)

    def spots(self, series: Series | None) -> list[tuple[Point, float]]:
        """Points of a known cost, with it."""
        points = series.points if series else ()
        return [(point, cost) for point in points if (cost := point.get(self.metric)) is not None]

    def rungs(self, baseline: Series | None) -> None:
        """The baseline's sizes along the upper edge: a second scale, in samples."""
        last, room, kept = -1e9, 0, list[tuple[float, str]]()
        for point, cost in self.spots(baseline):
            if self.x.at(cost) - last >= room:
                kept.append((cost, str(point.n) if kept else f"n = {point.n}"))
                last, room = self.x.at(cost), 18 if len(kept) > 1 else 30  # the first label is wider
        upper = self.axes.secondary_xaxis("top")
        upper.set_xticks([cost for cost, _ in kept], labels=[label for _, label in kept], fontsize=11)
        upper.minorticks_off()
        upper.spines["top"].set_visible(False)

    def draw(self, series: Series, number: int, layer: float) -> None:
        """Band, line, whiskers and marks of a strategy, the `number`th of the legend."""
        spots, look = self.spots(series), _look(series.strategy, series.colour)
        oracle, alone = series.strategy == ORACLE, len(spots) < 2
        band, line = series.strategy == BASELINE and not alone, f"line-{number}"
        costs = [cost for _, cost in spots]
        if band:
            low, high = [point.low for point, _ in spots], [point.high for point, _ in spots]
            self.axes.fill_between(
                costs, low, high, color=look["color"], alpha=0.1, linewidth=0, zorder=layer, gid=line
            )
        if not alone:
            accuracies = [point.accuracy for point, _ in spots]
            self.axes.plot(costs, accuracies, **look | {"marker": ""}, zorder=layer, gid=line)
        inside = [(point, cost) for point, cost in spots if point.accuracy <= self.top]  # `leaving` names the others
        if not oracle and not band:
            ends = [point.low for point, _ in inside], [min(self.top, point.high) for point, _ in inside]
            costs = [cost for _, cost in inside]
            self.axes.vlines(costs, *ends, color=look["color"], alpha=0.32, linewidth=1.25, zorder=layer, gid=line)
        if inside:
            look |= {"linestyle": "", "clip_on": False, "zorder": layer + 0.5}
            gid = "-".join(("marks", *(str(point.place) for point, _ in inside)))
            self.axes.plot([cost for _, cost in inside], [point.accuracy for point, _ in inside], **look, gid=gid)

    def leaving(self, oracle: Series | None, number: int) -> None:
        """Where the oracle leaves the panel, say how far it goes."""
        spots = self.spots(oracle)
        after = next((place for place, (point, _) in enumerate(spots) if point.accuracy > self.top), None)
        if after is None or (last := spots[-1][0]).accuracy <= self.top:
            return
        (before, start), (point, end) = spots[max(0, after - 1)], spots[after]
        rise = point.accuracy - before.accuracy
        share = (self.top - before.accuracy) / rise if rise else 1.0
        spot = self.x.at(start) + (self.x.at(end) - self.x.at(start)) * share
        content = f"oracle: {100 * last.accuracy:.0f} % at n = {last.n}"
        right = spot + 8 + 7 * len(content) < self.x.end
        self.axes.annotate(
            content,
            (spot / self.x.end, 1.0),
            xycoords="axes fraction",
            xytext=(8 if right else -10, -5),
            textcoords="offset points",
            ha="left" if right else "right",
            va="top",
            color=MUTED,
            fontsize=11,
            bbox={"facecolor": GROUND, "edgecolor": "none", "pad": 1},
            gid=f"line-{number}",
            zorder=90,
        )


def _summary(by_file: Sequence[Panel]) -> str:
    """What the chart shows, in words, for those who cannot see it."""
    lasts = [(panel.traces, series.strategy, series.points[-1]) for panel in by_file for series in panel.series]
    return " ".join(f"{name}: {who} reaches {100 * last.accuracy:.1f} % at n = {last.n}." for name, who, last in lasts)


def _panels(canvas: Canvas, rows: Sequence[Row], top: float, tall: float, x: str, log: bool) -> None:
    """All panels, two in a line, with one cost axis: models are compared at equal cost."""
    costs = [cost for row in rows if (cost := row.get(x)) is not None and cost > 0] or [1.0, 10.0]
    by_file, names = panels(rows), strategies(rows)
    columns = min(2, len(by_file))
    width = (_WIDTH - 2 * MARGIN - (columns - 1) * 30) / columns
    for index, panel in enumerate(by_file):
        left, upper = MARGIN + (index % columns) * (width + 30), top + (index // columns) * (tall + 112)
        axes = canvas.axes(left + _GUTTER, upper, width - _GUTTER, tall)
        canvas.text(left, upper - 32, panel.traces.replace("--", " · "), fontsize=13.5, fontweight="bold")
        if not any(point.get(x) for series in panel.series for point in series.points):
            axes.set_axis_off()
            axes.text(0.5, 0.5, f"{METRICS[x].title}: unknown", color=MUTED, ha="center", transform=axes.transAxes)
            continue
        frame = _Frame(axes, width - _GUTTER, panel, x, costs, log)
        frame.rungs(panel.find(BASELINE))
        # References first, so that contenders lie on top of them, and lone marks where no line can hide them.
        ordered = sorted(panel.series, key=lambda item: (item.colour is not None, len(item.points) == 1))
        for layer, series in enumerate(ordered, 3):
            frame.draw(series, names.index(series.strategy), layer)
        if ORACLE in names:
            frame.leaving(panel.find(ORACLE), names.index(ORACLE))


def _drawn(rows: Sequence[Row], x: str, log: bool, title: str, subtitle: str, heading: bool) -> Canvas:
    if x not in METRICS:
        raise BadInput("x", x, "is no axis", f"use one of {', '.join(METRICS)}")
    by_file, names = panels(rows), strategies(rows)
    lines = {series.strategy for panel in by_file for series in panel.series if len(series.points) > 1}
    contenders = [name for name in names if name not in (BASELINE, GREEDY, ORACLE)]
    looks = [_look(name, contenders.index(name) if name in contenders else None) for name in names]
    canvas = Canvas(_WIDTH)
    entries = zip(names, looks, strict=True)
    high = canvas.legend([(name, look if name in lines else look | {"linewidth": 0}) for name, look in entries])
    legend = (88.0 if subtitle else 66.0) if heading else 14.0
    top, tall = legend + high + 70, 330.0 if len(by_file) > 1 else 400.0
    foot = top + -(-len(by_file) // 2) * (tall + 112) - 46
    canvas.resize(foot + 16, legend)
    if heading:
        canvas.heading(title, subtitle)
    _panels(canvas, rows, top, tall, x, log)
    note = _NOTE + _SAMPLES if BASELINE in names else _NOTE
    canvas.text(MARGIN, foot - 4, note, color=MUTED, fontsize=11)
    return canvas


def write(rows: Sequence[Row], form: str, *, title: str = "Accuracy against compute", subtitle: str = "") -> bytes:
    """The rows of `compare` as a file: `svg`, `png` or `pdf`, the same bytes for the same rows."""
    if form == "svg":
        return (draw(rows, title=title, subtitle=subtitle) + "\n").encode()
    with settings("outthink"):
        return _drawn(rows, "tokens", True, title, subtitle, True).write(form)


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
    """Draw the rows of `compare` with matplotlib, of the extra `report`.

    Args:
        rows: dicts with the keys of docs/contracts.md; all traces files get a panel, two in a line.
        x: the cost on the horizontal axis: tokens, flops or seconds (means per problem).
        log: a logarithmic cost axis; a linear one begins at zero.
        interactive: marks can be focused and name their row (for the HTML report, which also
            brings style and title itself).
        prefix: begins every identifier inside, unique within a page.

    Returns:
        An <svg> element that needs nothing outside itself, the same for the same rows. BadInput for an unknown axis,
        for no rows and without the extra.
    """
    if not rows:
        raise BadInput("rows", "[]", "is empty", "give the rows of `outthink compare --json`")
    with settings(prefix):
        canvas = _drawn(rows, x, log, title, subtitle, not interactive)
        name = f"{title}: accuracy in percent against {METRICS[x].title}"
        return canvas.svg(prefix, name, _summary(panels(rows)), _tags(rows, x, interactive), alone=not interactive)


def _tags(rows: Sequence[Row], metric: str, interactive: bool) -> dict[str, str]:
    """Marks that tell what they stand for; lines and keys that name their strategy, for whoever acts on the page."""
    tags = {}
    for number, name in enumerate(escape(name, quote=True) for name in strategies(rows)):
        tags[f"line-{number}"] = f'<g data-strategy="{name}">'
        tags[f"key-{number}"] = f'<g class="key" data-key="{name}">'
        tags[f"handle-{number}"] = f'<g class="key" data-key="{name}" aria-hidden="true">'
    for point in (point for panel in panels(rows) for series in panel.series for point in series.points):
        name, told = (escape(text, quote=True) for text in (str(point.row["strategy"]), describe(point, metric)))
        # A focusable mark needs a name of its own; a still picture has a native tooltip instead.
        acting = f'data-strategy="{name}" data-row="{point.place}" tabindex="0" role="img" aria-label="{told}">'
        tags[f"mark-{point.place}"] = f'<g class="point" {acting}' if interactive else f"<g><title>{told}</title>"
    return tags
