"""Rows of a data file, one after the other: JSON lines, a JSON array, CSV or Parquet, each of them also gzipped.

Knows the containers, byte order marks, what ends a line, and how Arrow's values become plain ones. A row that cannot
be read is told as such, so that whoever reads decides what becomes of the others. Does not know what a column means.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import BufferedReader, TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import Any

from outthink.core.errors import BadInput
from outthink.core.text import writable
from outthink.engines.cells import Arrow, cells_of
from outthink.engines.traces import reading_parquet

JsonObject = dict[str, Any]
"""A JSON object, or a row of a table: what stands under a key is told by the format that it comes from."""
JSONL = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
HEADERLESS = ("question", "A", "B", "C", "D", "answer")
"""Columns of a CSV without a header: MMLU's."""
_GIVE = "give JSONL, a JSON array, CSV or Parquet"
_LETTERS = frozenset("ABCD")
_BATCH = 1024  # rows of Parquet in memory at a time
_BUFFER = 1 << 16  # bytes
_PEEK = 100  # rows that are looked at first: of JSON their keys are the columns
_LONGEST_CELL = 2**31 - 1  # of a CSV, in characters; csv's own limit is 128 KiB


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read, and why."""

    problem: str


ReadRow = JsonObject | BadRow


@dataclass(frozen=True, slots=True)
class RowFile:
    """A data file whose columns are known; its rows are read once, as they are asked for.

    Args:
        columns: names of the columns, in order; of JSON those of the first rows.
        head: the first rows, as far as they can be read; of Parquet their texts alone.
        rows: reads all rows, of Parquet only the named cells (None for all).
    """

    columns: tuple[str, ...]
    head: tuple[JsonObject, ...]
    rows: Callable[[Collection[str] | None], Iterator[ReadRow]]
    broken: BadRow | None = None
    """One of the first rows that cannot be read."""


def suffix(path: Path) -> str:
    """What a file's name says of its container, in small letters, `.gz` passed over."""
    return (Path(path.stem) if path.suffix.lower() == ".gz" else path).suffix.lower()


def stem(path: Path) -> str:
    """A file's name without the suffixes of its container."""
    return writable(Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem)


def open_rows(field: str, path: Path, known: Collection[str] = ()) -> RowFile:
    """Open a data file of any container, by its content and its name.

    Args:
        field: what errors call the file.
        known: names of columns by which a CSV's first line is taken for a header.

    Raises BadInput for a file that is missing or none of them; so does reading its rows.
    """
    with reading(field, path), _opened(path) as file:
        head = file.read(4096)
    kind, text = suffix(path), head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(field, str(path), "is UTF-16", "write it as UTF-8")
    if kind in PARQUET or head.startswith(b"PAR1"):
        return _parquet(field, path)
    if kind == ".csv":
        return _csv(field, path, known)
    if text.startswith(b"["):
        return _with_columns(_array(field, path))
    if text and kind not in (*JSONL, ".json") and not text.startswith(b"{"):
        raise BadInput(field, str(path), "is neither JSON, CSV nor Parquet", _GIVE)
    if kind == ".json" and (whole := _single(field, path)) is not None:
        return _with_columns(iter([whole]))
    return _with_columns(json_lines(field, path))


@contextmanager
def reading(field: str, path: Path) -> Iterator[None]:
    """BadInput for whatever keeps a file from being read."""
    try:
        yield
    except FileNotFoundError:
        raise BadInput(field, str(path), "does not exist", "check the path") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(field, str(path), f"cannot be read ({error})", _GIVE) from None


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    """A file's bytes, unpacked where they are gzipped, whatever its name says."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def _with_columns(rows: Iterator[ReadRow]) -> RowFile:
    head = list(islice(rows, _PEEK))
    readable = [row for row in head if not isinstance(row, BadRow)]
    broken = next((row for row in head if isinstance(row, BadRow)), None)
    columns = dict.fromkeys(name for row in readable for name in row)
    return RowFile(tuple(columns), tuple(readable), lambda _: chain(head, rows), broken)


# JSON.


def json_lines(field: str, path: Path) -> Iterator[ReadRow]:
    r"""The objects of a file of JSON lines; blank lines are passed over.

    A line ends at `\n` alone (JSON passes over an `\r` before it): U+2028 and others are letters within a text.
    """
    with reading(field, path), _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield _row(line, f"line {number}")


def _row(text: bytes, name: str) -> ReadRow:
    try:
        row = json.loads(text.decode("utf-8"))
    except UnicodeDecodeError:
        return BadRow(f"{name} is not UTF-8")
    except (ValueError, RecursionError) as error:
        return BadRow(f"{name} is not JSON ({error})")
    return row if isinstance(row, dict) else BadRow(f"{name} is no JSON object")


def _array(field: str, path: Path) -> Iterator[ReadRow]:
    """The objects of a JSON array, parsed one by one. BadInput where it breaks off: what follows is not known."""
    with reading(field, path), _opened(path) as file:
        text = file.read().decode("utf-8-sig", "surrogateescape")
    decoder, place, number = json.JSONDecoder(), _blank(text, text.index("[") + 1), 0
    if text.startswith("]", place):
        yield BadRow("the array holds no JSON object")
    while not text.startswith("]", place):
        number, start = number + 1, place
        try:
            row, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise BadInput(field, str(path), f"row {number} is not JSON ({error})", "mend the file") from None
        if not _is_utf8(text[start:place]):
            yield BadRow(f"row {number} is not UTF-8")
        else:
            yield row if isinstance(row, dict) else BadRow(f"row {number} is no JSON object")
        place = _blank(text, place)
        if text.startswith(",", place):
            place = _blank(text, place + 1)
        elif not text.startswith("]", place):
            problem = f"row {number} is followed by no comma and no end of the array"
            raise BadInput(field, str(path), problem, "mend the file")
    if text[place + 1 :].strip():
        raise BadInput(field, str(path), f"its array ends at row {number}, and more follows", "mend the file")


def _blank(text: str, place: int) -> int:
    """The next place that holds no white space."""
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _single(field: str, path: Path) -> JsonObject | None:
    """The one object of a file that holds no more than that, over several lines perhaps; None for JSON lines."""
    with reading(field, path), _opened(path) as file:
        try:
            whole = json.loads(file.read().decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return None
    return whole if isinstance(whole, dict) else None


# CSV.


def _csv(field: str, path: Path, known: Collection[str]) -> RowFile:
    records = _records(field, path)
    raw, second = next(records, []), next(records, [])
    first = tuple(cell.strip() for cell in raw)
    headerless = _is_mmlu(first) and not _is_header(first, second, known)
    columns = HEADERLESS if headerless else first
    if not _is_utf8("".join(columns)):
        raise BadInput(field, str(path), "is not UTF-8", "write it as UTF-8")
    if len({*columns}) < len(columns):
        raise BadInput(field, str(path), "names a column twice in its header", "give each its own name")
    begun = [raw, second] if headerless else [second]
    rows = _with_columns(_cells(columns, chain(filter(None, begun), records)))
    return replace(rows, columns=columns)


def _is_mmlu(record: Sequence[str]) -> bool:
    """Whether a record looks like a row of MMLU's files: six cells, the last one a letter."""
    return len(record) == len(HEADERLESS) and record[-1].strip() in _LETTERS


def _is_header(first: Sequence[str], second: Sequence[str], known: Collection[str]) -> bool:
    """Whether a record that may be a row names columns: the choices, question and answer, or one before another row."""
    found = {*first} & {*known}
    named = {*first} >= _LETTERS or len(found) > 1 or (found and second and not _is_mmlu(second))
    return len({*first}) == len(first) and bool(named)


def _records(field: str, path: Path) -> Iterator[list[str]]:
    """The records of a CSV; bytes that are no UTF-8 stand in them as lone surrogates."""
    csv.field_size_limit(_LONGEST_CELL)
    with reading(field, path), _text(path) as text:
        # Only `\n` and `\r\n` end a line, as in JSON lines; csv would stop at another `\r`.
        records = csv.reader((_LONE_CR.sub(_CR, line) for line in text), strict=True)
        try:
            yield from ([cell.replace(_CR, "\r") for cell in record] for record in records if record)
        except csv.Error as error:
            problem = f"cannot be read (line {records.line_num}: {error})"
            raise BadInput(field, str(path), problem, "mend the file") from None


def _text(path: Path) -> TextIOWrapper:
    return TextIOWrapper(_opened(path), encoding="utf-8-sig", errors="surrogateescape", newline="\n")


_LONE_CR = re.compile(r"\r(?!\n)(?=.)", re.DOTALL)
_CR = "\udc0d"
"""Stands for a carriage return within a cell; no byte is read as this half of a pair."""


def _cells(columns: Sequence[str], records: Iterable[list[str]]) -> Iterator[ReadRow]:
    for number, record in enumerate(records, start=1):
        if len(record) != len(columns):
            yield BadRow(f"row {number} has {len(record)} cells for {len(columns)} columns")
        elif not _is_utf8("".join(record)):
            yield BadRow(f"row {number} is not UTF-8")
        else:
            yield dict(zip(columns, record, strict=True))


def _is_utf8(text: str) -> bool:
    """False for text with bytes that could not be read as such."""
    return text.isascii() or writable(text) == text


# Parquet.


def _parquet(field: str, path: Path) -> RowFile:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    with reading_parquet(field, path, _GIVE), _opened(path) as opened:
        # A path is mapped, so that only what is read is in memory; what is gzipped has to be unpacked whole.
        source = pa.BufferReader(opened.read()) if isinstance(opened, gzip.GzipFile) else path
        # Not `read_table`: that takes `name=value` in the names of folders for columns.
        # Small buffers: by default whole columns of a row group are in memory while it is read.
        file = parquet.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
        columns = tuple(file.schema_arrow.names)
        # Only texts: a value of another column that Python cannot hold must not keep the file from being read.
        texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
        head = next(file.iter_batches(batch_size=_PEEK, columns=texts), None)
        rows = () if head is None else tuple(head.to_pylist())
    return RowFile(columns, rows, partial(_batches, field, path, file))


def _is_text(kind: Arrow) -> bool:
    """Whether a column holds texts, or bytes that may be some."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    texts = types.is_string, types.is_large_string, types.is_string_view, types.is_fixed_size_binary
    return any(is_one(kind) for is_one in (*texts, types.is_binary, types.is_large_binary, types.is_binary_view))


def _batches(field: str, path: Path, file: Arrow, wanted: Collection[str] | None) -> Iterator[ReadRow]:
    names = None if wanted is None else [name for name in file.schema_arrow.names if name in wanted]
    batches = file.iter_batches(batch_size=_BATCH, columns=names, use_threads=False)
    while True:
        with reading_parquet(field, path, _GIVE):
            batch = next(batches, None)
            if batch is None:
                return
            cells = {name: cells_of(batch.column(name)) for name in batch.schema.names}
        for place in range(batch.num_rows):
            yield {name: values[place] for name, values in cells.items()}
