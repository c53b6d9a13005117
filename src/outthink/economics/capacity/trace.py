"""Reads a trace of requests: Parquet, CSV or JSON lines with a time of arrival and lengths.

Knows: the columns, and that rows of one group are samples of one prompt. Raises BadInput that names the column, the row
and what to do, before anything is planned. Does not know how a server takes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from outthink.core.errors import BadInput
from outthink.economics.workload import Counts, Numbers, Workload

Arrow = Any
REQUIRED = ("arrival", "prompt_tokens", "output_tokens")
OPTIONAL = ("group", "order", "stop_after", "ahead", "samples")
_LONGEST = 10_000_000


def read_trace(path: Path) -> Workload:
    """The requests of a file, in order of arrival.

    Columns: `arrival` (seconds, not decreasing), `prompt_tokens`, `output_tokens`; `group` (rows of one group are
    samples of one prompt and arrive with its first), `order` (of launch in the group), `stop_after` (samples consumed
    in that order), `ahead` (in flight at once), `samples` (this row so many times, as a group of its own).
    """
    table = _table(path)
    names = set(table.column_names)
    for name in REQUIRED:
        if name not in names:
            raise BadInput("trace", str(path), f"has no column {name}", f"give {', '.join(REQUIRED)}")
    if not table.num_rows:
        raise BadInput("trace", str(path), "holds no requests", "give at least one row")
    read = _TraceTable(path, table)
    arrival = read.times()
    prompt, output = read.counts("prompt_tokens", 1), read.counts("output_tokens", 1)
    group = read.groups() if "group" in names else np.arange(arrival.size)
    if "samples" in names:
        return _repeated(read, group, arrival, prompt, output)
    order = read.counts("order", 0) if "order" in names else np.arange(arrival.size)
    # Groups in the order of their first row; inside, in launch order.
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first, kind="stable"), kind="stable")
    group = place[group]
    rows = np.lexsort((order, group))
    starts = np.searchsorted(group[rows], np.arange(first.size))
    _same(read, "prompt_tokens", prompt, group, rows, starts)
    one: dict[str, Counts | None] = {"stop_after": None, "ahead": None}
    for name in one:
        if name in names:
            values = read.counts(name, 1)
            _same(read, name, values, group, rows, starts)
            one[name] = values[rows][starts]
    return Workload.of_calls(
        prompt[rows],
        output[rows],
        np.sort(arrival[first], kind="stable"),
        stage=group[rows],
        need=one["stop_after"],
        ahead=one["ahead"],
    )


def _repeated(read: _TraceTable, group: Counts, arrival: Numbers, prompt: Counts, output: Counts) -> Workload:
    """Each row as a group of `samples` calls."""
    if np.unique(group).size < group.size:
        raise BadInput("trace", str(read.path), "has both samples and groups of several rows", "give one of them")
    samples = read.counts("samples", 1)
    of = np.repeat(np.arange(arrival.size), samples)
    names = set(read.table.column_names)
    return Workload.of_calls(
        prompt[of],
        output[of],
        arrival,
        stage=of,
        need=read.counts("stop_after", 1) if "stop_after" in names else None,
        ahead=read.counts("ahead", 1) if "ahead" in names else None,
    )


def _same(read: _TraceTable, name: str, values: Counts, group: Counts, rows: Counts, starts: Counts) -> None:
    """BadInput where rows of one group differ in what they have in common."""
    ordered = values[rows]
    differs = ordered != ordered[starts][group[rows]]
    if differs.any():
        row = int(rows[differs.argmax()])
        raise read.refused(name, row, int(values[row]), "differs within its group", "give one value a group")


def _table(path: Path) -> Arrow:
    from pyarrow import ArrowException, csv, json, parquet

    remedy = "give Parquet, CSV or JSON lines with " + ", ".join(REQUIRED)
    try:
        match path.suffix:
            case ".csv":
                return csv.read_csv(path)
            case ".jsonl" | ".ndjson" | ".json":
                return json.read_json(path)
            case _:
                return parquet.read_table(path)
    except FileNotFoundError:
        raise BadInput("trace", str(path), "is no file", "check the path") from None
    except (OSError, ArrowException) as error:
        raise BadInput("trace", str(path), f"cannot be read ({error})", remedy) from None


class _TraceTable:
    """Columns of one file, checked."""

    def __init__(self, path: Path, table: Arrow) -> None:
        self.path, self.table = path, table

    def refused(self, name: str, row: int, value: float | None, problem: str, remedy: str) -> BadInput:
        """What is wrong with one cell."""
        return BadInput(f"{self.path.name} row {row + 1} {name}", value, problem, remedy)

    def numbers(self, name: str, remedy: str) -> Numbers:
        """A column without gaps."""
        column = self.table.column(name).combine_chunks()
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise self.refused(name, row, None, "is missing", remedy)
        try:
            values = np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
        except (TypeError, ValueError):
            raise BadInput(f"{self.path.name} {name}", str(column.type), "is no column of numbers", remedy) from None
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(bad.argmax())
            raise self.refused(name, row, float(values[row]), "is not finite", remedy)
        return values

    def counts(self, name: str, least: int) -> Counts:
        """Whole numbers from `least`."""
        remedy = f"give whole numbers from {least}"
        values = self.numbers(name, remedy)
        bad = (values < least) | (values > _LONGEST) | (values != np.floor(values))
        if bad.any():
            row = int(bad.argmax())
            raise self.refused(
                name, row, float(values[row]), f"is no whole number from {least} to {_LONGEST:,}", remedy
            )
        return values.astype(np.int64)

    def times(self) -> Numbers:
        """Arrivals from 0, as far apart as the file has them."""
        values = self.numbers("arrival", "give seconds, in order")
        back = np.flatnonzero(np.diff(values) < 0)
        if back.size:
            row = int(back[0]) + 1
            problem = f"is earlier than the row before ({values[row - 1]:g})"
            raise self.refused("arrival", row, float(values[row]), problem, "sort the trace by arrival")
        return np.asarray(values - values[0])

    def groups(self) -> Counts:
        """A number for each name of a group, in no order."""
        column = self.table.column("group").combine_chunks()
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise self.refused("group", row, None, "is missing", "name a group in each row, or leave the column out")
        return np.asarray(column.dictionary_encode().indices.to_numpy(zero_copy_only=False), dtype=np.int64)
