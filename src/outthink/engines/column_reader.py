"""Columns of a Parquet file of samples: read by batches, and every cell checked.

Knows: which types a column may have, what is in which (names, places, counts, answers, truth values), and at what
length a sample of unknown tokens replays. Does not know what a cell means, what a sample is, or the file's metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np

from outthink.core.errors import BadInput
from outthink.engines.cells import (
    Arrow,
    BadCell,
    Cell,
    cells_of,
    count_of,
    is_listed,
    name_of,
    place_of,
    text_of,
    truth_of,
)
from outthink.engines.recorded import LISTS, WORDS, Numbers, Ragged, RecordedProblems, SampleColumns

T = TypeVar("T")
_BATCH = 4096
"""Rows that are read at a time."""
_PER_TOKEN = 4.0
"""Characters a token where a file knows none."""
_COUNTS = ("n_tokens", "prompt_tokens", "verifier_tokens")
_REALS = ("mean_logprob", "self_certainty", "score")


def _is_number(kind: Arrow) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _named(value: Cell) -> str:
    if (name := name_of(value)) is None:
        raise BadCell("is empty")
    return name


class Words:
    """Texts of which there are few: each row holds a number, and the texts stand here once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def coded(self, texts: Iterable[str]) -> list[int]:
        """The number of each text, in the order in which they came first."""
        numbers = self.numbers
        return [numbers.setdefault(text, len(numbers)) for text in texts]


class ColumnReader:
    """Reads the columns of a Parquet file by batches. BadInput names file, row and column of a cell that is none.

    Args:
        wanted: columns to read; those that are absent are left out.
    """

    def __init__(self, path: Path, file: Arrow, wanted: Sequence[str]) -> None:
        self._path, self._file = path, file
        present = set(file.schema_arrow.names)
        self._wanted = [name for name in wanted if name in present]
        self._words = {name: Words() for name in WORDS}
        self._names = Words()
        self._verifiers = Words()
        self._row = 0

    def read(self) -> tuple[RecordedProblems, list[str]]:
        """The problems, and the ids of the verifiers whose scores they carry."""
        numbers: dict[str, list[Numbers]] = {}
        ragged: dict[str, list[Ragged]] = {}
        for batch in self._file.iter_batches(_BATCH, columns=self._wanted):
            for name in self._wanted:
                column = self._column(name, batch[name])
                if isinstance(column, Ragged):
                    ragged.setdefault(name, []).append(column)
                else:
                    numbers.setdefault(name, []).append(column)
            self._row += batch.num_rows
        if not self._row:
            raise BadInput("traces", str(self._path), "has no rows", "record some samples")
        # Taken out one by one, so that no more than one column stands here twice.
        columns = SampleColumns(
            {name: np.concatenate(numbers.pop(name)) for name in list(numbers)},
            {name: Ragged.joined(ragged.pop(name)) for name in list(ragged)},
        )
        self._add_lengths(columns.numbers)
        problems = columns.numbers.pop("problem_id")
        if np.any(np.diff(problems) < 0):
            rows = np.argsort(problems, kind="stable")
            problems, columns = problems[rows], columns.ordered(rows)
        names = list(self._names.numbers)
        starts = np.searchsorted(problems, np.arange(len(names) + 1))
        words = {name: list(known.numbers) for name, known in self._words.items()}
        answered = len(columns.ragged["answer"].values) > 0
        found = RecordedProblems(names, starts, columns, words, answered)
        return found, sorted(name for name in self._verifiers.numbers if name)

    def _column(self, name: str, array: Arrow) -> Numbers | Ragged:
        if name == "problem_id":
            return np.array(self._names.coded(self._cells(name, array, _named)), dtype=np.int32)
        if name == "verifier":
            return np.array(self._verifiers.coded(cell or "" for cell in self._cells(name, array, text_of)), np.int16)
        if name in WORDS:
            texts = (cell or "" for cell in self._cells(name, array, text_of))
            return np.array(self._words[name].coded(texts), dtype=np.int32)
        if name == "sample_idx":
            return self._whole(name, array, place_of)
        if name in _COUNTS:
            return self._whole(name, array, count_of)
        if name in _REALS:
            return self._real(name, array)
        if name in LISTS:
            return self._listed(name, array)
        if name == "correct":
            truths = self._cells(name, array, truth_of)
            return np.array([-1 if truth is None else truth for truth in truths], dtype=np.int8)
        return self._text(name, array)

    def _cells(self, name: str, array: Arrow, meaning: Callable[[Cell], T]) -> list[T]:
        """What each cell means; of many equal ones it is asked once."""
        known: dict[tuple[type, Cell], T] = {}
        found = []
        for row, cell in enumerate(cells_of(array), start=self._row + 1):
            try:
                key = (type(cell), cell)
                found.append(known[key] if key in known else known.setdefault(key, meaning(cell)))
            except TypeError:  # a list or an object: it is not hashable
                found.append(self._refused(name, row, cell, meaning))
            except BadCell as error:
                self._refuse(name, row, error)
        return found

    def _refused(self, name: str, row: int, cell: Cell, meaning: Callable[[Cell], T]) -> T:
        try:
            return meaning(cell)
        except BadCell as error:
            self._refuse(name, row, error)

    def _refuse(self, name: str, row: int, error: BadCell) -> NoReturn:
        raise BadInput("traces", str(self._path), f"row {row}: {name} {error}", "mend the row") from None

    def _whole(self, name: str, array: Arrow, meaning: Callable[[Cell], int | None]) -> Numbers:
        """Whole numbers, -1 where unknown."""
        import pyarrow as pa

        if pa.types.is_integer(array.type) and not array.null_count:
            numbers: Numbers = array.to_numpy(zero_copy_only=False)
            if numbers.size == 0 or (numbers.min() >= 0 and numbers.max() < 1 << 31):
                return numbers.astype(np.int32)
        cells = self._cells(name, array, meaning)
        held = np.array([-1 if cell is None else cell for cell in cells], dtype=np.int64)
        return held if held.size and held.max() >= 1 << 31 else held.astype(np.int32)

    def _real(self, name: str, array: Arrow) -> Numbers:
        """Numbers as precise as the file has them, NaN where unknown."""
        import pyarrow as pa

        if pa.types.is_null(array.type):
            return np.full(len(array), np.nan, dtype=np.float32)
        if not _is_number(array.type):
            self._refuse(name, self._row + 1, BadCell("is no number"))
        kind = array.type if pa.types.is_floating(array.type) else pa.float64()
        numbers: Numbers = array.cast(kind, safe=False).to_numpy(zero_copy_only=False)
        return numbers

    def _listed(self, name: str, array: Arrow) -> Ragged:
        """Lists of numbers, empty where there is none."""
        import pyarrow as pa
        import pyarrow.compute as compute

        listed = is_listed(array.type)
        if pa.types.is_null(array.type.value_type if listed else array.type):
            return Ragged(np.zeros(len(array) + 1, dtype=np.int32), np.zeros(0, dtype=np.float32))
        if not (listed and _is_number(array.type.value_type)):
            self._refuse(name, self._row + 1, BadCell("is no list of numbers"))
        sizes = compute.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
        items = array.flatten()
        floating = pa.types.is_floating(items.type)
        held: Numbers = (items if floating else items.cast(pa.float64(), safe=False)).to_numpy(zero_copy_only=False)
        return Ragged(np.concatenate([[0], np.cumsum(sizes)]), held)

    def _text(self, name: str, array: Arrow) -> Ragged:
        """Texts, empty where there is none."""
        import pyarrow as pa
        import pyarrow.compute as compute

        if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
            array = pa.array(self._cells(name, array, text_of), pa.string())
        elif name == "answer":  # blanks are no answer
            array = compute.if_else(compute.equal(compute.utf8_trim_whitespace(array), ""), None, array)
        binary = array.fill_null("").cast(pa.large_binary())
        offsets = np.frombuffer(binary.buffers()[1], dtype=np.int64)[binary.offset : binary.offset + len(binary) + 1]
        held = binary.buffers()[2]
        values = np.frombuffer(held, dtype=np.uint8) if held is not None else np.zeros(0, dtype=np.uint8)
        return Ragged(offsets - offsets[0], values[offsets[0] : offsets[-1]].copy())

    def _add_lengths(self, columns: dict[str, Numbers]) -> None:
        """Lengths at which rows of unknown tokens replay: their text's, at the file's characters a token."""
        tokens = columns["n_tokens"]
        unknown = tokens < 0
        if not unknown.any():
            return
        characters = np.zeros(len(tokens), dtype=np.int64)
        if "text" in self._file.schema_arrow.names:
            characters = np.concatenate([*self._characters()])
        counted = ~unknown & (characters > 0) & (tokens > 0)
        per_token = float(characters[counted].sum() / tokens[counted].sum()) if counted.any() else _PER_TOKEN
        columns["length"] = np.where(unknown, np.ceil(characters / per_token), -1).astype(np.int32)

    def _characters(self) -> Iterator[Numbers]:
        """Characters of each row's text, batch by batch."""
        import pyarrow as pa
        import pyarrow.compute as compute

        for batch in self._file.iter_batches(_BATCH, columns=["text"]):
            texts = batch["text"]
            if pa.types.is_null(texts.type):
                yield np.zeros(len(texts), dtype=np.int64)
            else:
                yield compute.utf8_length(texts.cast(pa.large_string())).fill_null(0).to_numpy(zero_copy_only=False)
