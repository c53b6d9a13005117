"""Solutions with what is known of their steps, read from recorded samples and process labels.

Knows: the columns of the data card and how labels meet steps. Does not know tokens or models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from outthink.core.errors import BadInput
from outthink.core.sample import split_steps

Labels = Literal["soft", "hard"]
SEPARATOR = "\n"
_COMPLETIONS = 8
"""Completions a prefix in recorded labels that do not say it themselves (the data card's)."""
_SAMPLES = ("problem_id", "sample_idx", "text", "correct")
_RECORDED = ("answer", "n_tokens", "prompt_tokens", "finish_reason")
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
    """Columns of a Parquet file as lists; those of `maybe` only if they are there. BadInput for a missing one."""
    import pyarrow.parquet as parquet

    if not path.is_file():
        raise BadInput(name, str(path), "does not exist", "give a Parquet file")
    try:
        known = parquet.read_schema(path).names
        for column in wanted:
            if column not in known:
                raise BadInput(name, str(path), f"has no column {column}", f"it has: {', '.join(known)}")
        table = parquet.read_table(path, columns=[*wanted, *(column for column in maybe if column in known)])
    except OSError as error:
        raise BadInput(name, str(path), f"is not a readable Parquet file ({error})", "write it again") from None
    return {column: table[column].to_pylist() for column in table.schema.names}


def read_questions(path: Path) -> dict[str, str]:
    """Question by problem_id."""
    columns = read_columns(path, ("problem_id", "question"), name="--problems")
    return dict(zip(columns["problem_id"], columns["question"], strict=True))


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
    return read_samples(samples, read_questions(problems), limit=limit, per_problem=per_problem, labels=known)


def read_samples(
    path: Path,
    questions: Mapping[str, str],
    *,
    limit: int | None = None,
    per_problem: int | None = None,
    labels: Mapping[tuple[str, int], Mapping[int, tuple[int, float]]] | None = None,
) -> Collection:
    """Recorded samples cut into steps.

    Args:
        limit: only the first so many problems of the file.
        per_problem: only the first so many samples of each problem; sample 0 (greedy) never counts.
        labels: as `read_labels` gives them.

    Rows without visible text, and of problems without a question, are left out and counted.
    """
    columns = read_columns(path, _SAMPLES, _RECORDED, name="--samples")
    left_out: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    solutions: list[Solution] = []
    rows = zip(*(columns[name] for name in _SAMPLES), strict=True)
    for row, (problem, index, text, correct) in enumerate(rows):
        full = problem not in seen and limit is not None and len(seen) >= limit
        if full or index == 0 or (per_problem is not None and seen[problem] >= per_problem):
            continue
        if problem not in questions:
            left_out["no question"] += 1
            continue
        seen[problem] += 1
        pieces = split_steps(text, SEPARATOR)
        if not pieces:
            left_out["no text"] += 1
            continue
        known = (labels or {}).get((problem, index), {})
        marks = _fit(pieces, known, f"{problem}, sample {index}")
        answer, tokens, prompt, reason = (columns[name][row] if name in columns else None for name in _RECORDED)
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
