"""Rows of `compare` as what a chart needs: panels of series of points.

Knows: the keys of a row and which strategies are references rather than contenders. Does not know
how anything is drawn, or how a row was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outthink.core.errors import BadInput

Row = Mapping[str, Any]
BASELINE, GREEDY, ORACLE = "self-consistency", "greedy", "oracle"
REFERENCES = (BASELINE, GREEDY, ORACLE)
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
    return first + [name for name in seen if name not in REFERENCES] + last


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Group rows by traces file and strategy; BadInput names a row that lacks a key."""
    for place, row in enumerate(rows):
        missing = [key for key in NEEDED if row.get(key) is None]
        if missing:
            raise BadInput(
                f"row {place}", ", ".join(missing), "is missing", "use the rows of `outthink compare --json`"
            )
    order = strategies(rows)
    colours = {name: index for index, name in enumerate(name for name in order if name not in REFERENCES)}
    found = []
    for traces in dict.fromkeys(str(row["traces"]) for row in rows):
        mine = [Point(place, row) for place, row in enumerate(rows) if row["traces"] == traces]
        series = []
        for name in order:
            points = sorted((point for point in mine if point.row["strategy"] == name), key=lambda point: point.n)
            if points:
                series.append(Series(name, colours.get(name), tuple(points)))
        found.append(Panel(traces, tuple(series)))
    return found
