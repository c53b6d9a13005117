"""Rows of `compare` as what a chart needs, panels of series of points, and as a table on a console.

Knows: the keys of a row, which strategies are references rather than contenders, which columns a reader needs and how
numbers are written (the HTML report takes its cells from here). Does not know how rows were made or a chart is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outthink.core.errors import BadInput
from outthink.evaluation.report.axis import short
from outthink.strategies.defaults import BASELINE, GREEDY, ORACLE

if TYPE_CHECKING:
    from rich.console import Console

Row = Mapping[str, Any]
_REFERENCES = (BASELINE, GREEDY, ORACLE)
NEEDED = ("traces", "strategy", "n", "accuracy", "tokens")


@dataclass(frozen=True, slots=True)
class Point:
    """One row; `place` is its index in the list of all rows."""

    place: int
    row: Row

    @property
    def n(self) -> int:
        """Samples at most."""
        return int(self.row["n"])

    @property
    def accuracy(self) -> float:
        """Fraction of problems answered right."""
        return float(self.row["accuracy"])

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval, the accuracy itself where there is none."""
        value = self.row.get("accuracy_low")
        return self.accuracy if value is None else float(value)

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval, the accuracy itself where there is none."""
        value = self.row.get("accuracy_high")
        return self.accuracy if value is None else float(value)

    def get(self, metric: str) -> float | None:
        """A quantity of the row that a logarithmic axis can show, else None."""
        value = self.row.get(metric)
        return float(value) if value is not None and value > 0 else None


@dataclass(frozen=True, slots=True)
class Series:
    """All sizes of one strategy on one traces file, by rising n; `colour` counts the contenders."""

    strategy: str
    colour: int | None
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One traces file."""

    traces: str
    series: tuple[Series, ...]

    def find(self, strategy: str) -> Series | None:
        """The series of one strategy."""
        return next((item for item in self.series if item.strategy == strategy), None)


def strategies(rows: Sequence[Row]) -> list[str]:
    """Strategies as a legend lists them: the baseline, the contenders by first appearance, then the
    reference points."""
    seen = list(dict.fromkeys(str(row["strategy"]) for row in rows))
    first = [BASELINE] if BASELINE in seen else []
    last = [name for name in (GREEDY, ORACLE) if name in seen]
    return first + [name for name in seen if name not in _REFERENCES] + last


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Group rows by traces file and strategy; BadInput names a row that lacks a key."""
    for place, row in enumerate(rows):
        # Tokens may be unknown, which is null; a row that does not speak of them is none of `compare`.
        missing = [key for key in NEEDED if row.get(key) is None and (key != "tokens" or key not in row)]
        if missing:
            raise BadInput(
                f"row {place}", ", ".join(missing), "is missing", "use the rows of `outthink compare --json`"
            )
    order = strategies(rows)
    colours = {name: index for index, name in enumerate(name for name in order if name not in _REFERENCES)}
    grouped = []
    for traces in dict.fromkeys(str(row["traces"]) for row in rows):
        of_file = [Point(place, row) for place, row in enumerate(rows) if row["traces"] == traces]
        series = []
        for name in order:
            points = sorted((point for point in of_file if point.row["strategy"] == name), key=lambda point: point.n)
            if points:
                series.append(Series(name, colours.get(name), tuple(points)))
        grouped.append(Panel(traces, tuple(series)))
    return grouped


MISSING = "–"
UNKNOWN = "unknown"
_COST = {"difference": "tokens", "flops_difference": "flops"}
"""Amounts at which differences are taken; without one the difference is as unknown as the amount."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the key it reads, its title, and how its numbers are written."""

    key: str
    title: str
    style: str  # text, count, percent, points, plain, short

    @property
    def numeric(self) -> bool:
        """Whether it is right-aligned and sorted as a number."""
        return self.style != "text"

    @property
    def ranged(self) -> bool:
        """Whether an interval stands beside its numbers."""
        return self.style in ("percent", "points")


_TRACES = Column("traces", "traces", "text")
_MAIN = (
    Column("strategy", "strategy", "text"),
    Column("n", "n", "count"),
    Column("accuracy", "accuracy, %", "percent"),
    Column("tokens", "tokens", "count"),
    Column("prompt_tokens", "prompt", "count"),
    Column("cancelled_tokens", "cancelled", "count"),
    Column("seconds", "seconds", "plain"),
    Column("samples", "samples", "plain"),
    Column("difference", "vs self-consistency", "points"),
)
_BUDGET = Column("budget_tokens", "budget", "count")
_EQUAL_FLOPS = Column("flops_difference", "at equal FLOPs", "points")
COLUMNS = (_TRACES, *_MAIN[:7], Column("flops", "FLOPs", "short"), *_MAIN[7:])


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    """With a sign where there is a difference, so never a negative zero."""
    return f"{100 * value:+.1f}" if round(100 * value, 1) else "0.0"


def _interval(row: Row, key: str, write: Callable[[float], str]) -> str:
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    return "" if low is None or high is None else f" [{write(low)}, {write(high)}]"


def cell(row: Row, column: Column) -> str:
    """What stands in a cell: `unknown` for an amount that nobody told, a dash where there is nothing to tell."""
    value = row.get(column.key)
    if value is None:
        return UNKNOWN if row.get(_COST.get(column.key, column.key)) is None else MISSING
    match column.style:
        case "count":
            return f"{value:,.0f}"
        case "plain":
            return f"{value:,.1f}"
        case "short":
            return short(value)
        case "percent":
            return _percent(value) + _interval(row, column.key, _percent)
        case "points":
            return MISSING if row["strategy"] == BASELINE else _points(value) + _interval(row, column.key, _points)
    return str(value)


def _colour(row: Row, column: Column) -> str:
    """Green where self-consistency is beaten, red where it is not reached, both beyond the interval."""
    low, high = row.get("difference_low"), row.get("difference_high")
    if column.key == "difference" and row["strategy"] != BASELINE and low is not None and high is not None:
        return "green" if low > 0 else "red" if high < 0 else ""
    return "dim" if column.key in ("prompt_tokens", "cancelled_tokens") else ""


def remarks(rows: Sequence[Row]) -> list[str]:
    """What rows say about how they were measured, each remark once a strategy."""
    return list(dict.fromkeys(f"{row['strategy']}: {note}" for row in rows for note in row.get("notes") or ()))


def _fitting(rows: Sequence[Row], width: int) -> list[Column]:
    """The columns that a console has room for; the least telling ones go first."""
    columns = list(_MAIN)
    live = any(row.get("budget_tokens") is not None for row in rows)
    if live:
        columns.insert(2, _BUDGET)
    if any(row.get("verifier") is not None and row.get("flops_difference") is not None for row in rows):
        columns.append(_EQUAL_FLOPS)
    # The empty key takes none away: all columns are tried first.
    for key in ("", "prompt_tokens", "cancelled_tokens", "samples", "seconds", *(["n"] if live else [])):
        columns = [column for column in columns if column.key != key]
        widths = [max(len(column.title), *(len(cell(row, column)) for row in rows)) + 3 for column in columns]
        if sum(widths) <= width:
            break
    return columns


def show(rows: Sequence[Row], console: Console) -> None:
    """Print one table a traces file, with as many columns as the console has room for."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = _fitting(rows, console.width) if rows else []
    for panel in panels(rows):
        table = Table(
            title=Text(panel.traces), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
        )
        for column in columns:
            table.add_column(column.title, justify="right" if column.numeric else "left", no_wrap=True)
        for points in (series.points for series in panel.series):
            for place, row in enumerate(point.row for point in points):
                cells = [Text(cell(row, column), style=_colour(row, column)) for column in columns]
                if place:
                    cells[0] = Text("")
                table.add_row(*cells, end_section=place == len(points) - 1 and len(points) > 1)
        console.print(table)
    for remark in remarks(rows):
        console.print(Text(remark, style="dim"))
