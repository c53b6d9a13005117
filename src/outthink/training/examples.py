"""Solutions as flat arrays of tokens with a target and a weight each.

Knows: the input format (question, blank line, steps tokenised one by one), where targets stand and
how arrays become a padded batch. Does not know models or where solutions come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from outthink.training.base import Tokenizer
from outthink.training.solutions import Collection, Solution

OutcomeAt = Literal["last", "steps", "tokens"]
_CHUNK = 20_000  # texts tokenised at a time

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


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

    ids: npt.NDArray[np.int32]
    starts: Ints
    ends: npt.NDArray[np.int32]
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

    def batch(self, chosen: Ints, multiple: int = 8) -> tuple[Ints, Floats, Floats, Ints]:
        """Padded (ids, targets, weights) of some examples, each (examples, longest), and their lengths.

        Padding stands on the right, where a causal model cannot see it from any real token.
        """
        lengths = self.lengths[chosen]
        width = int(-(-lengths.max() // multiple) * multiple)
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
    texts = [step for solution in collection.solutions for step in solution.steps]
    tokens = _tokenise(tokenizer, [*asked.values(), *texts])
    numbers = {name: number for number, name in enumerate(asked)}
    parts: list[_Part] = []
    too_long = 0
    for place, solution in enumerate(collection.solutions):
        head = tokens[asked[solution.problem_id]]
        pieces = [tokens[step] for step in solution.steps]
        if len(head) + sum(map(len, pieces)) > max_context:
            too_long += 1
            continue
        parts.append(_part(solution, head, pieces, targets, numbers[solution.problem_id], place))
    return _join(parts, tuple(asked), too_long)


@dataclass(slots=True)
class _Part:
    ids: list[int]
    ends: Ints
    targets: Floats
    weights: Floats
    labels: Floats
    problem: int
    correct: bool
    source: int


def _part(
    solution: Solution, head: list[int], pieces: list[list[int]], targets: Targets, problem: int, place: int
) -> _Part:
    ids = list(head)
    for piece in pieces:
        ids += piece
    ends = len(head) + np.cumsum([len(piece) for piece in pieces]) - 1
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
    goal[ends[-1]], weight[ends[-1]] = float(solution.correct), 1.0
    return _Part(ids, ends, goal, weight, labels, problem, solution.correct, place)


def _join(parts: list[_Part], names: tuple[str, ...], too_long: int) -> Examples:
    def offsets(sizes: list[int]) -> Ints:
        return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)

    def floats(arrays: list[Floats]) -> Floats:
        return np.concatenate([np.zeros(0, np.float32), *arrays])

    return Examples(
        np.fromiter((token for part in parts for token in part.ids), np.int32, sum(len(part.ids) for part in parts)),
        offsets([len(part.ids) for part in parts]),
        np.concatenate([np.zeros(0, np.int32), *(part.ends for part in parts)]).astype(np.int32),
        offsets([len(part.ends) for part in parts]),
        floats([part.targets for part in parts]),
        floats([part.weights for part in parts]),
        floats([part.labels for part in parts]),
        np.array([part.problem for part in parts], np.int64),
        np.array([part.correct for part in parts], np.bool_),
        np.array([part.source for part in parts], np.int64),
        names,
        too_long,
    )
