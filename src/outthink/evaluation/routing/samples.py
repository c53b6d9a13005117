"""Predictors from recorded samples: success rates and lengths by question, and heads for a policy where they help.

Knows: how often each model was right on a question and how much it wrote, and when a policy is better off with heads.
Does not know solvers, or what a policy does with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from outthink.controller.policy.artefact import digest
from outthink.controller.router.artefact import load, plain
from outthink.controller.router.predictor import Predictor
from outthink.core.errors import BadInput
from outthink.evaluation.dataset import SampleSet
from outthink.evaluation.routing.corpus import Corpus
from outthink.evaluation.routing.data import Floats, ModelOutcomes
from outthink.evaluation.routing.figures import drawn
from outthink.evaluation.routing.report import model_figures
from outthink.evaluation.routing.run import write
from outthink.evaluation.routing.training import SAMPLED, PredictorRecipe, cross_fitted, fit
from outthink.evaluation.sample_file import JsonObject

_FEW = 100
"""Questions below which a policy gets no difficulty heads."""


def outcomes(sources: Sequence[SampleSet]) -> ModelOutcomes:
    """What the sampled completions of some files say; greedy ones are left out.

    Raises BadInput where no questions lie beside the samples, no question was put to every model, or a
    model was always right, or always wrong.
    """
    models = tuple(dict.fromkeys(source.traces.model for source in sources))
    by_question: dict[str, dict[str, tuple[float, float]]] = {}
    for source in sources:
        if source.questions is None:
            raise BadInput("traces", str(source.traces.path), "has no problems beside it", "add problems.parquet")
        source.traces.need_grades()
        source.traces.need_counts()
        for name, problem in source.traces.problems.items():
            grades = [sample.answer in problem.right for sample in problem.sampled]
            lengths = [sample.tokens for sample in problem.sampled if sample.tokens]
            if not grades or not lengths:
                raise BadInput("traces", name, f"has no samples with tokens in {source.traces.path}", "record some")
            outcome = float(np.mean(grades)), float(np.mean(lengths))
            by_question.setdefault(source.questions[name], {})[source.traces.model] = outcome
    kept = {question: by_model for question, by_model in by_question.items() if len(by_model) == len(models)}
    if not kept:
        raise BadInput("traces", ", ".join(models), "share no question", "give samples of the same problems")
    table = np.array([[by_model[model] for model in models] for by_model in kept.values()])
    for place, model in enumerate(models):
        column = table[:, place, 0]
        if column.min() == column.max():
            state = f"is right in {column[0]:.0%} of the samples of every question"
            raise BadInput("traces", model, state, "give questions that it sometimes answers and sometimes not")
    return ModelOutcomes(
        name=", ".join(dict.fromkeys(source.traces.dataset for source in sources)),
        models=models,
        prompts=tuple(kept),
        right=table[..., 0],
        tokens=table[..., 1],
        dropped=len(by_question) - len(kept),
    )


def train(data: ModelOutcomes, out: Path, recipe: PredictorRecipe = SAMPLED) -> Predictor:
    """Train on all questions and write `predictor.json` to a folder; as it is loaded from it.

    Raises BadInput for too few questions, a folder that cannot be written, or where scikit-learn is missing.
    """
    predictor, predicted = fit(data, Corpus(data.prompts), np.arange(len(data)), recipe)
    write(out, data, predictor, recipe, model_figures(data, predicted, drawn(data.group)))
    return load(out)


def for_policy(source: SampleSet, *, folds: int = 5, seed: int = 0) -> JsonObject | None:
    """Heads on the hand features alone, as plain values for a policy, where they help; else None.

    They help where, on held-out questions, their squared error is below that of the mean rate beyond the
    paired interval. None, too, for fewer than 100 questions, without their text or scikit-learn.
    `held_out` among the values says how good they are; `outthink.controller.router.artefact.of` reads them.
    """
    if source.questions is None or len(source.traces.problems) < _FEW:
        return None
    try:
        data = outcomes([source])
        recipe = replace(SAMPLED, reads="counts", folds=folds, seed=seed)
        corpus = Corpus(data.prompts)
        predicted = cross_fitted(data, recipe, folds=folds, corpus=corpus)
        counts = drawn(data.group)
        # The mean of the others, since the heads have not seen the question either.
        error = (predicted.right - data.right)[:, 0] ** 2 - _others_mean(data.right[:, 0], len(data)) ** 2
        gained = counts @ error / counts.sum(axis=1)
        if np.quantile(gained, 0.975) >= 0:
            return None
        heads, _ = fit(data, corpus, np.arange(len(data)), recipe)
    except BadInput:
        return None
    (figures,) = model_figures(data, predicted, counts)
    values = {**plain(heads), "held_out": figures}
    return {**values, "id": digest({key: value for key, value in values.items() if key != "id"})}


def _others_mean(truth: Floats, count: int) -> Floats:
    """Distance of each from the mean of all others."""
    return np.asarray((truth.sum() - truth) / (count - 1) - truth)
