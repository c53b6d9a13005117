"""Files of recorded samples as tables: read whole, written back with what a verifier said.

Knows: Parquet and JSONL, which columns a sample is made of, that everything else passes through untouched, and that a
file is written whole or not at all. Does not know verifiers, problems or journals.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from outthink.core.errors import BadInput
from outthink.core.sample import ConfidenceTrace, Sample
from outthink.core.text import REPLACED, writable
from outthink.engines.cells import (
    Arrow,
    BadCell,
    cells_of,
    column_of,
    count_of,
    decoded,
    empty,
    name_of,
    text_of,
    truth_of,
)
from outthink.engines.protocol import CHUNK
from outthink.engines.traces import SCORE_COLUMNS, VERIFIER_KEY, reading_parquet
from outthink.evaluation.published import rows as data_rows
from outthink.evaluation.published.columns import NAMES
from outthink.evaluation.published.rows import BadRow, json_lines

JsonObject = data_rows.JsonObject
JSONL = data_rows.JSONL
T = TypeVar("T")
_TEXTS = ("text", "completion")
"""Columns of a sample's text; the second is HumanEval's."""


@dataclass(frozen=True, slots=True)
class JudgedSample:
    """What is recorded of one judged sample; `reason` says why there is no score.

    Args:
        score: between 0 and 1, None without one.
        steps: the step scores it was made from, None for verifiers of whole solutions.
        tokens: what the verifier read and generated, None if unknown.
    """

    score: float | None
    steps: tuple[float, ...] | None = None
    tokens: int | None = None
    reason: str = ""


def is_jsonl(path: Path) -> bool:
    """Whether a file's name says JSON lines; every other name is taken for Parquet."""
    return data_rows.suffix(path) in JSONL


def read_rows(field: str, path: Path) -> list[JsonObject]:
    """All rows of a JSONL file; BadInput names the line that is none."""
    rows = []
    for row in json_lines(field, path):
        if isinstance(row, BadRow):
            raise BadInput(field, str(path), row.problem, "mend the line")
        rows.append(row)
    return rows


def read_table(field: str, path: Path, remedy: str = "give JSONL or Parquet") -> Arrow:
    """A Parquet file as a pyarrow table; BadInput where it cannot be read as one."""
    import pyarrow.parquet as parquet

    with reading_parquet(field, path, remedy):
        # Not `read_table`: that takes `name=value` in the names of folders for columns.
        table = parquet.ParquetFile(path).read()
    if len({*table.column_names}) < table.num_columns:
        raise BadInput(field, str(path), "names a column twice", "give each its own name")
    return table


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """A file beside OUT that takes its place at the end; BadInput where that cannot be written."""
    # In the same folder, since a file replaces another at one stroke only within a file system.
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        yield draft
        os.replace(draft, out)
    except OSError as error:
        # pyarrow's own text runs over several causes; the number, where it has one, says the same in a few words.
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        remedy = "check the folder and the space there, and run the same command again: nothing is lost"
        raise BadInput("--out", str(out), f"cannot be written ({reason})", remedy) from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


_PIECE = 256
"""Rows that are turned into columns at a time."""
_GROUP = 8 << 20
"""Bytes of columns that make a row group: what is written need not be held."""


def write_table(out: Path, rows: Iterable[JsonObject], columns: Sequence[tuple[str, str]], about: JsonObject) -> int:
    """Write a Parquet file whole or not at all, and say how many rows it has; BadInput where it cannot be written.

    Args:
        rows: taken one after the other; a group of them is held at a time.
        columns: names and types, as pyarrow calls them.
        about: what `outthink` in the file's metadata says beside our version.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    fields = [(name, pa.list_(pa.float16()) if kind == "halves" else pa.type_for_alias(kind)) for name, kind in columns]
    schema = pa.schema(fields, metadata={"outthink": json.dumps({**about, "version": version("outthink")})})
    written = 0
    with _draft(out) as draft, parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
        for table in _row_groups(rows, schema):
            writer.write_table(table)
            written += int(table.num_rows)
    return written


def _row_groups(rows: Iterable[JsonObject], schema: Arrow) -> Iterator[Arrow]:
    import pyarrow as pa

    pieces, left = [], iter(rows)
    while piece := list(islice(left, _PIECE)):
        pieces.append(pa.Table.from_pylist(piece, schema=schema))
        if sum(table.nbytes for table in pieces) >= _GROUP:
            yield pa.concat_tables(pieces)
            pieces = []
    if pieces:
        yield pa.concat_tables(pieces)


def journal_of(out: Path) -> Path:
    """Where the journal of an output file lies; BadInput for a name that pyarrow could not open at the end."""
    if writable(str(out)) != str(out):
        raise BadInput("--out", str(out), "is no UTF-8", "give another name")
    return out.with_name(out.name + ".journal")


def remove_journal(out: Path) -> None:
    """Delete the journal of a finished file."""
    for suffix in ("", "-wal", "-shm"):  # SQLite keeps up to two files beside it
        out.with_name(f"{out.name}.journal{suffix}").unlink(missing_ok=True)


class SampleFile:
    """Recorded samples in the order of their file.

    Raises BadInput for a file that cannot be read, lacks `problem_id` or `text`, has no rows, or has
    been scored already (unless `rescore`: then the old score columns are dropped).
    """

    def __init__(self, path: Path, *, rescore: bool = False) -> None:
        self.path = path
        self.rows: list[JsonObject] | None = read_rows("samples", path) if is_jsonl(path) else None
        self.table: Arrow = None if self.rows is not None else read_table("samples", path)
        names = self.names
        if len(self) == 0:
            raise BadInput("samples", str(path), "has no rows", "record some samples")
        self._name = next((name for name in NAMES if name in names), NAMES[0])
        self._text = next((name for name in _TEXTS if name in names), _TEXTS[0])
        absent = [name for name in (self._name, self._text) if name not in names]
        if absent:
            raise BadInput("samples", str(path), f"lacks the columns {', '.join(absent)}", "record samples with them")
        scored = [name for name in SCORE_COLUMNS if name in names]
        if scored and not rescore:
            raise BadInput(
                "samples", str(path), f"has the columns {', '.join(scored)} already", "score the file they came from"
            )
        self._drop(scored)

    def __len__(self) -> int:
        return len(self.rows) if self.rows is not None else int(self.table.num_rows)

    @property
    def names(self) -> list[str]:
        """Names of all columns."""
        if self.rows is None:
            return list(self.table.column_names)
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def digest(self) -> str:
        """Hash of the file's bytes."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def column(self, name: str) -> list[Any]:
        """One column, None where a row or the whole file has no such value."""
        if self.rows is not None:
            return [row.get(name) for row in self.rows]
        return column_of(self.table, name) if name in self.table.column_names else [None] * len(self)

    def truths(self, name: str) -> list[bool | None]:
        """A column of truth values; None for every cell that is none."""
        truths: list[bool | None] = []
        for cell in self.column(name):
            try:
                truths.append(truth_of(cell))
            except BadCell:
                truths.append(None)
        return truths

    def samples(self) -> list[tuple[str, Sample]]:
        """Problem and sample of every row. BadInput, naming the row, for a cell that is none of a sample."""
        cells = zip(
            *(self.column(name) for name in (self._name, "sample_idx", self._text, "answer", "extraction")),
            *(self.column(name) for name in ("n_tokens", "finish_reason", "prompt_tokens", "mean_logprob")),
            self.column("chunk_conf"),
            self.column("self_certainty"),
            strict=True,
        )
        samples = []
        for row, (key, index, text, answer, rule, told, reason, read, logprob, conf, certainty) in enumerate(cells):
            text = self._read(row, self._text, text, decoded)
            if not (text is None or isinstance(text, str)):
                raise self._refused(row, self._text, "is no text")
            name = self._read(row, self._name, key, name_of)
            if name is None:
                raise self._refused(row, self._name, "is empty")
            number = self._read(row, "sample_idx", index, count_of)
            tokens, prompt = (
                self._read(row, *cell, count_of) for cell in (("n_tokens", told), ("prompt_tokens", read))
            )
            values = self._numbers(row, "chunk_conf", conf)
            sample = Sample(
                row if number is None else number, text or "", self._read(row, "answer", answer, text_of),
                rule if rule and isinstance(rule, str) else "none", tokens,
                reason if reason and isinstance(reason, str) else "unknown", prompt,
                self._number(row, "mean_logprob", logprob),
                ConfidenceTrace(values, CHUNK, tokens or CHUNK * len(values)) if values else None,
                self._number(row, "self_certainty", certainty),
            )  # fmt: skip
            samples.append((name, sample))
        return samples

    def _read(self, row: int, column: str, value: Any, meaning: Callable[[Any], T]) -> T:
        """What a cell means; BadInput where that is refused."""
        try:
            return meaning(value)
        except BadCell as error:
            raise self._refused(row, column, str(error)) from None

    def _number(self, row: int, column: str, value: Any) -> float | None:
        """A number; None where the cell is empty."""
        if value is None:
            return None
        try:
            number = float("x" if isinstance(value, bool | str) else value)
        except (ValueError, TypeError, OverflowError):
            raise self._refused(row, column, "is no number") from None
        return number if math.isfinite(number) else None

    def _numbers(self, row: int, column: str, value: Any) -> tuple[float, ...]:
        """A list of numbers; one with a gap is none."""
        if empty(value):
            return ()
        if not isinstance(value, list):
            raise self._refused(row, column, "is no list of numbers")
        found = [self._number(row, column, item) for item in value]
        numbers = tuple(item for item in found if item is not None)
        return numbers if len(numbers) == len(found) else ()

    def _refused(self, row: int, column: str, problem: str) -> BadInput:
        return BadInput("samples", str(self.path), f"row {row + 1}: {column} {problem}", "mend the row")

    def write(self, out: Path, judged: Sequence[JudgedSample], verifier: JsonObject) -> None:
        """Write all rows with `score`, `steps`, `verifier` and `verifier_tokens`, whole or not at all.

        What an exact verifier says fills `correct` where the file does not know.

        Args:
            verifier: its `id` and what else a replay must know; kept in the metadata of a Parquet file.

        Raises BadInput where OUT cannot be written.
        """
        with _draft(out) as draft:
            if is_jsonl(out):
                self._write_jsonl(draft, judged, verifier)
            else:
                with _parquet_of(self.path):
                    self._write_parquet(draft, judged, verifier)

    def _graded(self, judged: Sequence[JudgedSample], verifier: JsonObject) -> list[Any] | None:
        """The column `correct` with its gaps filled, None where nothing is to be filled."""
        told = self.column("correct")
        if verifier.get("kind") != "exact" or not any(map(_untold, told)):
            return None
        # Of the type that the column has, so that it stays one.
        kind = next((type(cell) for cell in told if not _untold(cell)), bool)
        if not issubclass(kind, str | bytes | int | float | Decimal):
            return None
        as_told: Callable[[bool], Any] = (lambda right: str(right).encode()) if kind is bytes else kind
        filled = [as_told(sample.score == 1) if sample.score is not None else None for sample in judged]
        return [fill if _untold(cell) else cell for cell, fill in zip(told, filled, strict=True)]

    def _write_jsonl(self, draft: Path, judged: Sequence[JudgedSample], verifier: JsonObject) -> None:
        rows = self.rows if self.rows is not None else _rows_of(self.table)
        graded = self._graded(judged, verifier)
        with draft.open("w", encoding="utf-8", errors=REPLACED) as file:
            for place, (row, sample) in enumerate(zip(rows, judged, strict=True)):
                more = {} if graded is None else {"correct": graded[place]}
                more |= {"score": sample.score, "steps": None if sample.steps is None else list(sample.steps)}
                more |= {"verifier": verifier["id"], "verifier_tokens": sample.tokens}
                file.write(json.dumps(_plain(row | more), ensure_ascii=False) + "\n")

    def _write_parquet(self, draft: Path, judged: Sequence[JudgedSample], verifier: JsonObject) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        table = self.table if self.rows is None else _tabled(self.path, self.rows, self.names)
        if (graded := self._graded(judged, verifier)) is not None:
            place = table.schema.get_field_index("correct")
            column = pa.array(graded, pa.bool_() if all(_untold(cell) for cell in graded) else None)
            table = table.append_column("correct", column) if place < 0 else table.set_column(place, "correct", column)
        steps = [None if sample.steps is None else list(sample.steps) for sample in judged]
        table = table.append_column("score", pa.array([sample.score for sample in judged], pa.float32()))
        table = table.append_column("steps", pa.array(steps, pa.list_(pa.float32())))
        names = pa.array([str(verifier["id"])] * len(judged), pa.string())
        table = table.append_column("verifier", names.dictionary_encode())
        table = table.append_column("verifier_tokens", pa.array([sample.tokens for sample in judged], pa.uint32()))
        metadata = dict(table.schema.metadata or {}) | {VERIFIER_KEY: json.dumps(verifier).encode()}
        parquet.write_table(table.replace_schema_metadata(metadata), draft, compression="zstd")

    def _drop(self, names: Sequence[str]) -> None:
        if not names:
            return
        if self.rows is not None:
            self.rows = [{name: value for name, value in row.items() if name not in names} for row in self.rows]
        else:
            self.table = self.table.drop_columns(list(names))


def _rows_of(table: Arrow) -> Iterator[JsonObject]:
    for batch in table.to_batches():
        for cells in zip(*map(cells_of, batch.columns), strict=True):
            yield dict(zip(table.column_names, cells, strict=True))


def _untold(cell: Any) -> bool:
    """Null, or what tables make of it: NaN, blank text."""
    return empty(cell) or (isinstance(cell, str | bytes) and not cell.strip())


def _plain(value: Any) -> Any:
    """A cell as JSON has it: dates, decimals and bytes as text, what is no number as null."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def _tabled(path: Path, rows: Sequence[JsonObject], names: Sequence[str]) -> Arrow:
    import pyarrow as pa

    try:
        return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can hold and Parquet cannot
        clean = [json.loads(writable(json.dumps(row, ensure_ascii=False))) for row in rows]
        return _tabled(path, clean, [writable(name) for name in names])


@contextmanager
def _parquet_of(path: Path) -> Iterator[None]:
    """BadInput where rows of JSON cannot stand in a table."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OverflowError) as error:
        line = str(error).splitlines()[0]
        raise BadInput("samples", str(path), f"mixes types in a column ({line})", "use --out FILE.jsonl") from None
