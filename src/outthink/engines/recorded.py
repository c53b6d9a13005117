"""Recorded samples as columns, and those of one problem at a time as Samples.

A file may hold a hundred thousand rows, and a Sample takes ten times what its row takes in columns. Knows: how cells
become a Sample, and when it is unknown whether one is right. Does not know files or engines.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outthink.core.sample import ConfidenceTrace, Sample
from outthink.engines.protocol import CHUNK

Numbers = NDArray[Any]
"""Numbers of any type."""
_BUILT, _BUILT_OF_PART = 1 << 14, 1 << 12
"""Samples that are kept built: small files are built once, of large ones, and of parts, what is in use."""
NUMBERS = (
    "sample_idx",
    "n_tokens",
    "prompt_tokens",
    "correct",
    "mean_logprob",
    "self_certainty",
    "score",
    "verifier_tokens",
    "length",
)
WORDS = ("finish_reason", "extraction")
LISTS = ("chunk_conf", "steps")
"""Columns of numbers, of texts of which there are few, and of lists."""


@dataclass(slots=True)
class Recorded:
    """All samples of one problem: the greedy one (sample_idx 0), the sampled ones, and what is right.

    Args:
        lengths: tokens at which samples of unknown length replay, by their index: for order and time alone.
        ungraded: rows that nobody has told to be right or wrong.
    """

    problem: str
    sampled: list[Sample] = field(default_factory=list)
    greedy: Sample | None = None
    right: set[str] = field(default_factory=set)
    lengths: dict[int, int] = field(default_factory=dict)
    ungraded: int = 0

    @property
    def samples(self) -> list[Sample]:
        """The greedy one, if there is one, and the sampled ones."""
        return self.sampled if self.greedy is None else [self.greedy, *self.sampled]

    def order(self, seed: int) -> list[int]:
        """Places of the samples as they are dealt out under a seed: the same for every strategy and size."""
        places = list(range(len(self.sampled)))
        # Seeded by text, which gives the same order in every process; hash() of a text does not.
        random.Random(f"{seed}:{self.problem}").shuffle(places)
        return places

    def dealt(self, seed: int) -> list[Sample]:
        """The sampled ones in the order of a seed."""
        return [self.sampled[place] for place in self.order(seed)]


@dataclass(frozen=True, slots=True)
class Ragged:
    """Lists, or texts as bytes, of different lengths: row i is `values[offsets[i]:offsets[i + 1]]`."""

    offsets: Numbers
    values: Numbers

    def take(self, start: int, end: int) -> Ragged:
        """Some rows."""
        offsets = self.offsets[start : end + 1]
        return Ragged(offsets - offsets[0], self.values[offsets[0] : offsets[-1]])

    def ordered(self, rows: NDArray[np.intp]) -> Ragged:
        """The rows in another order."""
        sizes = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], sizes)
        return Ragged(offsets, self.values[places])

    def texts(self, start: int, end: int) -> list[str]:
        """Some rows of texts."""
        at = self.offsets[start : end + 1].tolist()
        held = self.values[at[0] : at[-1]].tobytes()
        return [held[a - at[0] : b - at[0]].decode(errors="replace") for a, b in pairwise(at)]

    def lists(self, start: int, end: int) -> list[tuple[float, ...]]:
        """Some rows of numbers; a list with a gap is none."""
        at = self.offsets[start : end + 1].tolist()
        held = self.values[at[0] : at[-1]].tolist()
        rows = [tuple(held[a - at[0] : b - at[0]]) for a, b in pairwise(at)]
        return [() if math.isnan(sum(row)) else row for row in rows]

    @classmethod
    def joined(cls, pieces: list[Ragged]) -> Ragged:
        """One behind the other; the list is emptied on the way, so that not all stands here twice."""
        ends = np.cumsum([0, *(int(piece.offsets[-1]) for piece in pieces)])
        kind = np.int32 if ends[-1] < 1 << 31 else np.int64
        first = np.zeros(1, dtype=kind)
        offsets = [(piece.offsets[1:] + end).astype(kind) for piece, end in zip(pieces, ends, strict=False)]
        values = np.empty(int(ends[-1]), np.result_type(*(piece.values for piece in pieces)))
        for start, end in reversed([*pairwise(ends.tolist())]):
            values[start:end] = pieces.pop().values
        return cls(np.concatenate([first, *offsets]), values)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Ragged:
        """Texts as bytes."""
        held = [text.encode("utf-8", "replace") for text in texts]
        return cls(np.cumsum([0, *map(len, held)]), np.frombuffer(b"".join(held), dtype=np.uint8))


@dataclass(frozen=True, slots=True)
class SampleColumns:
    """A row a sample. Unknown is -1 in columns of whole numbers, NaN in the others, and empty in ragged ones."""

    numbers: dict[str, Numbers]
    ragged: dict[str, Ragged]

    def take(self, start: int, end: int) -> SampleColumns:
        """Some rows."""
        return SampleColumns(
            {name: column[start:end] for name, column in self.numbers.items()},
            {name: column.take(start, end) for name, column in self.ragged.items()},
        )

    def ordered(self, rows: NDArray[np.intp]) -> SampleColumns:
        """Rows in another order."""
        return SampleColumns(
            {name: column[rows] for name, column in self.numbers.items()},
            {name: column.ordered(rows) for name, column in self.ragged.items()},
        )


class RecordedProblems(Mapping[str, Recorded]):
    """Problems by name, each built from the columns when it is asked for.

    Args:
        starts: first row of each problem, and the end of the last.
        words: the texts of the columns `finish_reason` and `extraction`.
        answered: whether any row of the file has an answer; without one, rows are right or wrong by themselves.
        built: samples that are kept built.
    """

    def __init__(
        self,
        names: Sequence[str],
        starts: NDArray[np.int64],
        columns: SampleColumns,
        words: Mapping[str, Sequence[str]],
        answered: bool,
        built: int = _BUILT,
    ) -> None:
        self.answered = answered
        self._places = {name: place for place, name in enumerate(names)}
        self._starts, self._columns, self._words = starts, columns, words
        self._built: dict[str, Recorded] = {}
        self._held, self._most = 0, built

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> Recorded:
        if (known := self._built.get(name)) is not None:
            return known
        place = self._places[name]
        start, end = int(self._starts[place]), int(self._starts[place + 1])
        built = self._built[name] = self._problem(name, start, end)
        self._held += end - start
        while self._held > self._most and len(self._built) > 1:
            oldest = next(iter(self._built))
            del self._built[oldest]
            place = self._places[oldest]
            self._held -= int(self._starts[place + 1] - self._starts[place])
        return built

    def __reduce__(self) -> tuple[type[RecordedProblems], tuple[Any, ...]]:
        """Without what is built: columns are smaller."""
        return type(self), (list(self._places), self._starts, self._columns, self._words, self.answered, self._most)

    @property
    def sampled(self) -> Numbers:
        """Sampled completions of each problem."""
        return np.add.reduceat(self._columns.numbers["sample_idx"] != 0, self._starts[:-1], dtype=np.int64)

    @property
    def greedy(self) -> bool:
        """Whether every problem has a greedy sample."""
        return bool(np.logical_or.reduceat(self._columns.numbers["sample_idx"] == 0, self._starts[:-1]).all())

    def hits(self) -> list[tuple[int, int]]:
        """Sampled completions of each problem, and how many of them are right: without building them."""
        counts = []
        for start, end in pairwise(self._starts.tolist()):
            answers = self._answers(start, end)
            told, places = (self._columns.numbers[name][start:end].tolist() for name in ("correct", "sample_idx"))
            right = {answer for answer, correct in zip(answers, told, strict=True) if correct == 1 and answer}
            sampled = [answer in right for answer, place in zip(answers, places, strict=True) if place != 0]
            counts.append((len(sampled), sum(sampled)))
        return counts

    @property
    def uncounted(self) -> tuple[int, int, int]:
        """Rows, and those whose generated and whose prompt tokens are unknown."""
        numbers = self._columns.numbers
        rows, prompts = len(numbers["sample_idx"]), numbers.get("prompt_tokens")
        return rows, int((numbers["n_tokens"] < 0).sum()), rows if prompts is None else int((prompts < 0).sum())

    @property
    def graded(self) -> bool:
        """Whether anybody has told of any row that it is right or wrong."""
        return bool((self._columns.numbers["correct"] >= 0).any())

    @property
    def wholly_graded(self) -> bool:
        """Whether that is told of every row."""
        return bool((self._columns.numbers["correct"] >= 0).all())

    def part(self, names: Sequence[str]) -> RecordedProblems:
        """Some problems with their own rows alone."""
        places = np.array([self._places[name] for name in names])
        if np.all(np.diff(places) == 1):
            start, end = int(self._starts[places[0]]), int(self._starts[places[-1] + 1])
            columns = self._columns.take(start, end)
            starts = self._starts[places[0] : places[-1] + 2] - start
        else:
            rows = np.concatenate([np.arange(self._starts[place], self._starts[place + 1]) for place in places])
            columns = self._columns.ordered(rows)
            starts = np.concatenate([[0], np.cumsum(np.diff(self._starts)[places])])
        return RecordedProblems(names, starts, columns, self._words, self.answered, _BUILT_OF_PART)

    def reread(self, read: Callable[[Recorded], Recorded]) -> RecordedProblems:
        """The problems with the answers that `read` gives them, and what it says of these; without texts, of which
        nobody asks anything more."""
        answers, truths = [], []
        rules: list[int] = []
        words: dict[str, int] = {}
        places = self._columns.numbers["sample_idx"]
        for name, (start, end) in zip(self._places, pairwise(self._starts.tolist()), strict=True):
            anew = read(self._problem(name, start, end))  # not kept built: its texts are read this once
            sampled = iter(anew.sampled)
            for index in places[start:end].tolist():
                sample = next(sampled) if index or anew.greedy is None else anew.greedy
                answers.append(sample.answer or "")
                rules.append(words.setdefault(sample.rule, len(words)))
                truths.append(sample.answer in anew.right)
        numbers = self._columns.numbers | {
            "correct": np.array(truths, dtype=np.int8),
            "extraction": np.array(rules, dtype=np.int32),
        }
        ragged = {name: column for name, column in self._columns.ragged.items() if name != "text"}
        columns = SampleColumns(numbers, ragged | {"answer": Ragged.of(answers)})
        told = {**self._words, "extraction": list(words)}
        return RecordedProblems(list(self._places), self._starts, columns, told, True, self._most)

    def _numbers(self, name: str, start: int, end: int) -> list[Any]:
        """Cells of a column of numbers, None where unknown."""
        column = self._columns.numbers.get(name)
        if column is None:
            return [None] * (end - start)
        cells: list[Any] = column[start:end].tolist()
        if column.dtype.kind == "f":
            return [None if cell != cell else cell for cell in cells]
        return [None if cell < 0 else cell for cell in cells]

    def _texts(self, name: str, start: int, end: int) -> list[str]:
        column = self._columns.ragged.get(name)
        return [""] * (end - start) if column is None else column.texts(start, end)

    def _answers(self, start: int, end: int) -> list[str]:
        if not self.answered:
            return [f"#{row}" for row in range(end - start)]
        return self._texts("answer", start, end)

    def _lists(self, name: str, start: int, end: int) -> list[tuple[float, ...]]:
        column = self._columns.ragged.get(name)
        return [()] * (end - start) if column is None else column.lists(start, end)

    def _coded(self, name: str, start: int, end: int) -> list[str]:
        words = self._words.get(name, ())
        return ["" if cell is None else words[cell] for cell in self._numbers(name, start, end)]

    def _problem(self, name: str, start: int, end: int) -> Recorded:
        numbers = [self._numbers(column, start, end) for column in NUMBERS]
        cells = zip(
            *numbers,
            self._answers(start, end),
            self._texts("text", start, end),
            *(self._coded(column, start, end) for column in WORDS),
            *(self._lists(column, start, end) for column in LISTS),
            strict=True,
        )
        recorded = Recorded(name)
        wrong: set[str] = set()
        unknown = []
        for (
            index, tokens, prompt, correct, logprob, certainty, score, spent, length,
            answer, text, reason, rule, conf, steps,
        ) in cells:  # fmt: skip
            trace = ConfidenceTrace(conf, CHUNK, CHUNK * len(conf) if tokens is None else tokens) if conf else None
            sample = Sample(
                index,
                text,
                answer or None,
                rule or ("recorded" if answer else "none"),
                tokens,
                reason or "unknown",
                prompt,
                logprob,
                trace,
                certainty,
                scores=steps or (() if score is None else (score,)),
                verifier_tokens=spent,
            )
            if index == 0:
                recorded.greedy = sample
            else:
                recorded.sampled.append(sample)
            if tokens is None:
                recorded.lengths[index] = length or 0
            if not answer:
                continue  # no answer is never right
            if correct is None:
                unknown.append(answer)
            else:
                (recorded.right if correct else wrong).add(answer)
        # Rows of one answer are right together, so one that is told tells of the others.
        recorded.ungraded = sum(answer not in recorded.right and answer not in wrong for answer in unknown)
        return recorded
