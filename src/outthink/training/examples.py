"""Solutions with what is known of their steps, and the same as flat arrays of tokens with a target and a weight each.

Knows: the columns of the data card, how labels meet steps, the input format (question, blank line, steps tokenised one
by one), where targets stand and how arrays become a padded batch. Does not know models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from outthink.core.errors import BadInput
from outthink.core.sample import split_steps
from outthink.engines.cells import (
    BadCell,
    Cell,
    column_of,
    count_of,
    decoded,
    name_of,
    place_of,
    text_of,
    truth_of,
)
from outthink.engines.traces import reading_parquet
from outthink.evaluation.published.lookup import Problems
from outthink.training.base import Tokenizer

Labels = Literal["soft", "hard"]
SEPARATOR = "\n"
_COMPLETIONS = 8
"""Completions a prefix in recorded labels that do not say it themselves (the data card's)."""
_SAMPLES = ("problem_id", "sample_idx", "text")
_RECORDED = ("correct", "answer", "n_tokens", "prompt_tokens", "finish_reason")
_MOST = 0xFFFF
"""The largest number of a sample that a file of labels holds."""
_STEPS = ("problem_id", "sample_idx", "step_idx", "prefix_end", "n_correct")


@dataclass(frozen=True, slots=True)
class Solution:
    """One sampled solution.

    Args:
        steps: its text, cut at newlines.
        correct: whether its answer is right.
        labels: chance that a completion of each step's prefix is right, None where unknown.
        answer, tokens, prompt_tokens: as recorded; empty or 0 where the file has no such column.
        cut: it ended at a length limit, in the middle of a step.
    """

    problem_id: str
    sample_idx: int
    steps: tuple[str, ...]
    correct: bool
    labels: tuple[float | None, ...] = ()
    answer: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Collection:
    """Solutions and the questions that they answer; `left_out` counts rows that cannot be used, by reason."""

    questions: Mapping[str, str]
    solutions: Sequence[Solution]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """Problems that have a solution here, in order."""
        return list(dict.fromkeys(solution.problem_id for solution in self.solutions))

    def only(self, problems: set[str]) -> Collection:
        """The part that belongs to these problems."""
        return Collection(self.questions, [s for s in self.solutions if s.problem_id in problems], self.left_out)


def read_columns(
    path: Path, wanted: Sequence[str], maybe: Sequence[str] = (), name: str = "file"
) -> dict[str, list[Any]]:
    """Columns of a Parquet file as lists; those of `maybe` only if they are there. BadInput for a missing one, and with
    its row for a cell that is none of a sample."""
    import pyarrow.parquet as parquet

    if not path.is_file():
        raise BadInput(name, str(path), "does not exist", "give a Parquet file")
    with reading_parquet(name, path, "write it again"), parquet.ParquetFile(path) as file:
        known = file.schema_arrow.names
        for column in wanted:
            if column not in known:
                raise BadInput(name, str(path), f"has no column {column}", f"it has: {', '.join(known)}")
        table = file.read(columns=[*wanted, *(column for column in maybe if column in known)])
        columns = {column: column_of(table, column) for column in table.column_names}
    return {column: _meant(path, name, column, cells) for column, cells in columns.items()}


def _text(cell: Cell) -> str:
    """A sample's text, empty for nothing."""
    if not isinstance(text := decoded(cell), str | None):
        raise BadCell("is no text")
    return text or ""


def _number(cell: Cell) -> int:
    if (number := place_of(cell)) > _MOST:
        raise BadCell(f"is more than {_MOST:,}")
    return number


_MEANINGS: dict[str, Callable[[Cell], Any]] = {
    "problem_id": name_of,
    "sample_idx": _number,
    "text": _text,
    "correct": truth_of,
    "answer": text_of,
    "n_tokens": count_of,
    "prompt_tokens": count_of,
    "finish_reason": text_of,
    "step_idx": place_of,
    "prefix_end": place_of,
    "n_correct": place_of,
    "n_completions": place_of,
}


def _meant(path: Path, name: str, column: str, cells: list[Any]) -> list[Any]:
    meaning = _MEANINGS[column]
    meant = []
    for row, cell in enumerate(cells, start=1):
        try:
            meant.append(meaning(cell))
        except BadCell as error:
            raise BadInput(name, str(path), f"row {row}: {column} {error}", "mend the row") from None
    return meant


def read_questions(path: Path, samples: Path | None = None) -> dict[str, str]:
    """Question by problem_id, of a data set in any published form.

    Args:
        samples: recorded samples that it is for; they tell which columns they were recorded from.
    """
    problems = Problems.read(path, samples=samples)
    return {name: problems.question(name) for name, row in problems.rows.items() if row.question is not None}


def read_labels(path: Path, kind: Labels) -> dict[tuple[str, int], dict[int, tuple[int, float]]]:
    """Process labels: solution -> step -> (end of the prefix, label).

    Soft: the share of completions that are right. Hard: 1 where any is. The completions a prefix are
    the file's `n_completions`, else the data card's 8.
    """
    columns = read_columns(path, _STEPS, ("n_completions",), name="--steps")
    counts = columns.get("n_completions") or [_COMPLETIONS] * len(columns["n_correct"])
    by_solution: dict[tuple[str, int], dict[int, tuple[int, float]]] = {}
    for problem, sample, step, end, hits, count in zip(*(columns[name] for name in _STEPS), counts, strict=True):
        if not 0 <= hits <= count:
            raise BadInput("--steps", str(path), f"has {hits} right of {count} completions", "check the file")
        label = hits / count if kind == "soft" else float(hits > 0)
        by_solution.setdefault((problem, sample), {})[step] = (end, label)
    return by_solution


def read_solutions(
    samples: Path,
    problems: Path,
    steps: Path | None = None,
    *,
    labels: Labels = "soft",
    limit: int | None = None,
    per_problem: int | None = None,
) -> Collection:
    """Recorded samples with their process labels; see `read_samples` for what is left out.

    Raises BadInput for missing files and columns, and labels that do not fit the texts.
    """
    known = read_labels(steps, labels) if steps is not None else {}
    questions = read_questions(problems, samples)
    return read_samples(samples, questions, limit=limit, per_problem=per_problem, labels=known, graded=True)


def read_samples(
    path: Path,
    questions: Mapping[str, str],
    *,
    limit: int | None = None,
    per_problem: int | None = None,
    labels: Mapping[tuple[str, int], Mapping[int, tuple[int, float]]] | None = None,
    graded: bool = False,
) -> Collection:
    """Recorded samples cut into steps.

    Args:
        limit: only the first so many problems of the file.
        per_problem: only the first so many samples of each problem; sample 0 (greedy) never counts.
        labels: as `read_labels` gives them.
        graded: only those that are known to be right or wrong.

    Rows without visible text, of problems without a question, and (where `graded`) of unknown truth are left out and
    counted.
    """
    columns = read_columns(path, [*_SAMPLES, *(["correct"] if graded else [])], _RECORDED, name="--samples")
    left_out: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    solutions: list[Solution] = []
    rows = zip(*(columns[name] for name in _SAMPLES), strict=True)
    for row, (problem, index, text) in enumerate(rows):
        full = problem not in seen and limit is not None and len(seen) >= limit
        if full or index == 0 or (per_problem is not None and seen[problem] >= per_problem):
            continue
        if problem not in questions:
            left_out["no question"] += 1
            continue
        correct, answer, tokens, prompt, reason = (
            columns[name][row] if name in columns else None for name in _RECORDED
        )
        if graded and correct is None:
            left_out["not graded"] += 1
            continue
        seen[problem] += 1
        pieces = split_steps(text, SEPARATOR)
        if not pieces:
            left_out["no text"] += 1
            continue
        known = (labels or {}).get((problem, index), {})
        marks = _fit(pieces, known, f"{problem}, sample {index}")
        recorded = answer or "", tokens or 0, prompt or 0, reason == "length"
        solutions.append(Solution(problem, index, pieces, bool(correct), marks, *recorded))
    if not solutions:
        raise BadInput("--samples", str(path), "holds no usable solution", "give samples of these problems")
    return Collection(questions, solutions, left_out)


def _fit(steps: Sequence[str], known: Mapping[int, tuple[int, float]], name: str) -> tuple[float | None, ...]:
    """Labels step by step; a recorded prefix may end in the white space that opens our next step."""
    if not known:
        return ()
    text = "".join(steps)
    marks: list[float | None] = []
    end = 0
    for place, step in enumerate(steps):
        end += len(step)
        recorded = known.get(place)
        if recorded is not None and text[: recorded[0]].rstrip() != text[:end].rstrip():
            raise BadInput("--steps", name, f"labels another text at step {place}", "give labels of these samples")
        marks.append(None if recorded is None else recorded[1])
    if max(known) >= len(steps):
        raise BadInput("--steps", name, f"labels step {max(known)} of {len(steps)}", "give labels of these samples")
    return tuple(marks)


OutcomeAt = Literal["last", "steps", "tokens"]
_CHUNK = 20_000  # texts tokenised at a time

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
T = TypeVar("T", np.int32, np.float32)


@dataclass(frozen=True, slots=True)
class Targets:
    """What the model should say, where.

    Args:
        outcome_at: the solution's own grade stands at its `last` token, at the end of all `steps`, or at
            all its `tokens`. A process label replaces it at its step.
        outcome_weight: of that grade in the loss where it is a weak label (not at the last token);
            process labels and last tokens weigh `step_weight` and 1.
    """

    outcome_at: OutcomeAt = "last"
    outcome_weight: float = 1.0
    step_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Examples:
    """Tokenised solutions. Example i is `ids[starts[i]:starts[i + 1]]`, its step ends (counted from its
    own start) `ends[firsts[i]:firsts[i + 1]]`; `targets` and `weights` go with `ids`, `labels` with `ends`
    (NaN where unknown); `problem` numbers `names`; `source` is the place in the collection."""

    ids: Int32s
    starts: Ints
    ends: Int32s
    firsts: Ints
    targets: Floats
    weights: Floats
    labels: Floats
    problem: Ints
    correct: npt.NDArray[np.bool_]
    source: Ints
    names: tuple[str, ...]
    too_long: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Ints:
        """Tokens of each example."""
        return np.diff(self.starts)

    def batch(self, chosen: Ints) -> tuple[Ints, Floats, Floats, Ints]:
        """Padded (ids, targets, weights) of some examples, each (examples, longest), and their lengths.

        Padding stands on the right, where a causal model cannot see it from any real token.
        """
        lengths = self.lengths[chosen]
        width = int(-(-lengths.max() // 8) * 8)
        column = np.arange(width)[None, :]
        inside = column < lengths[:, None]
        place = np.where(inside, self.starts[chosen][:, None] + column, 0)
        zero = np.float32(0)
        return (
            np.where(inside, self.ids[place], 0).astype(np.int64),
            np.where(inside, self.targets[place], zero),
            np.where(inside, self.weights[place], zero),
            lengths,
        )

    def step_scores(self, scores: Floats, chosen: Ints) -> list[Floats]:
        """The scores at the step ends out of (examples, longest) scores of a batch."""
        return [
            scores[row, self.ends[self.firsts[i] : self.firsts[i + 1]]].copy() for row, i in enumerate(chosen.tolist())
        ]


def _tokenise(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, list[int]]:
    """Token ids of each distinct text, in bulk."""
    tokens: dict[str, list[int]] = {}
    distinct = list(dict.fromkeys(texts))
    for start in range(0, len(distinct), _CHUNK):
        part = distinct[start : start + _CHUNK]
        ids = tokenizer(part, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        tokens.update(zip(part, ids, strict=True))
    return tokens


def encode_all(
    collection: Collection, tokenizer: Tokenizer, *, targets: Targets | None = None, max_context: int = 2048
) -> Examples:
    """Tokenise a collection. Solutions over `max_context` tokens are left out and counted, never cut."""
    targets = targets or Targets()
    asked = {name: collection.questions[name] + "\n\n" for name in collection.problems}
    # Step by step, as formats.py scores them: a step's tokens do not depend on what stands before or after it.
    texts = [step for solution in collection.solutions for step in solution.steps]
    tokens = _tokenise(tokenizer, [*asked.values(), *texts])
    numbers = {name: number for number, name in enumerate(asked)}
    rows: list[_Row] = []
    source: list[int] = []
    for place, solution in enumerate(collection.solutions):
        head = tokens[asked[solution.problem_id]]
        pieces = [tokens[step] for step in solution.steps]
        # Scoring refuses what is too long, too; cut, a solution would lose its graded end.
        if len(head) + sum(map(len, pieces)) <= max_context:
            rows.append(_row(solution, head, pieces, targets))
            source.append(place)
    ids, ends, goals, weights, labels = zip(*rows, strict=True) if rows else ((),) * 5
    kept = [collection.solutions[place] for place in source]
    return Examples(
        _joined(ids, np.int32),
        _offsets(ids),
        _joined(ends, np.int32),
        _offsets(ends),
        _joined(goals, np.float32),
        _joined(weights, np.float32),
        _joined(labels, np.float32),
        np.array([numbers[solution.problem_id] for solution in kept], np.int64),
        np.array([solution.correct for solution in kept], np.bool_),
        np.array(source, np.int64),
        tuple(asked),
        len(collection.solutions) - len(kept),
    )


_Row = tuple[Int32s, Int32s, Floats, Floats, Floats]
"""Token ids, step ends, targets, weights and labels of one example."""


def _row(solution: Solution, head: list[int], pieces: list[list[int]], targets: Targets) -> _Row:
    ids = np.array([token for part in (head, *pieces) for token in part], np.int32)
    ends = (len(head) + np.cumsum([len(piece) for piece in pieces]) - 1).astype(np.int32)
    goal = np.full(len(ids), float(solution.correct), np.float32)
    weight = np.zeros(len(ids), np.float32)
    if targets.outcome_at == "tokens":
        weight[len(head) :] = targets.outcome_weight
    elif targets.outcome_at == "steps":
        weight[ends] = targets.outcome_weight
    labels = np.full(len(ends), np.nan, np.float32)
    if solution.labels:
        labels[:] = [np.nan if label is None else label for label in solution.labels]
        known = ends[~np.isnan(labels)]
        goal[known] = labels[~np.isnan(labels)]
        weight[known] = targets.step_weight
    # Last, over any label: that of the whole solution is its grade.
    goal[ends[-1]], weight[ends[-1]] = float(solution.correct), 1.0
    return ids, ends, goal, weight, labels


def _joined(arrays: Sequence[npt.NDArray[T]], kind: type[T]) -> npt.NDArray[T]:
    return np.concatenate([np.zeros(0, kind), *arrays])


def _offsets(arrays: Sequence[Int32s]) -> Ints:
    return np.cumsum([0, *map(len, arrays)], dtype=np.int64)
