"""Outcomes of several models on the same questions: how often each was right, and how much it wrote.

Knows: recorded samples with the problems beside them. Does not know what is predicted from the questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from outthink.core.errors import BadInput
from outthink.evaluation.calibration.source import Source
from outthink.evaluation.routing.data import Floats


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Rows are questions that every model was asked.

    Args:
        name: of the data sets.
        models: by name, in the order of the files.
        questions: texts.
        right: (questions, models), share of right samples.
        tokens: (questions, models), mean length of a sample.
        dropped: questions that some model was not asked.
    """

    name: str
    models: tuple[str, ...]
    questions: tuple[str, ...]
    right: Floats
    tokens: Floats
    dropped: int

    def __len__(self) -> int:
        return len(self.questions)


def outcomes(sources: Sequence[Source]) -> Outcomes:
    """What the sampled completions of some files say; greedy ones are left out.

    Raises BadInput where no questions lie beside the samples, no question was put to every model, or a
    model was always right, or always wrong.
    """
    models = tuple(dict.fromkeys(source.traces.model for source in sources))
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for source in sources:
        if source.questions is None:
            raise BadInput("traces", str(source.traces.path), "has no problems beside it", "add problems.parquet")
        for name, problem in source.traces.problems.items():
            shares = [one.answer in problem.right for one in problem.sampled]
            lengths = [one.tokens for one in problem.sampled if one.tokens]
            if not shares or not lengths:
                raise BadInput("traces", name, f"has no samples with tokens in {source.traces.path}", "record some")
            both = float(np.mean(shares)), float(np.mean(lengths))
            found.setdefault(source.questions[name], {})[source.traces.model] = both
    kept = {question: by for question, by in found.items() if len(by) == len(models)}
    if not kept:
        raise BadInput("traces", ", ".join(models), "share no question", "give samples of the same problems")
    table = np.array([[by[model] for model in models] for by in kept.values()])
    for place, model in enumerate(models):
        column = table[:, place, 0]
        if column.min() == column.max():
            state = f"is right in {column[0]:.0%} of the samples of every question"
            raise BadInput("traces", model, state, "give questions that it sometimes answers and sometimes not")
    name = ", ".join(dict.fromkeys(source.traces.dataset for source in sources))
    return Outcomes(name, models, tuple(kept), table[..., 0], table[..., 1], len(found) - len(kept))
