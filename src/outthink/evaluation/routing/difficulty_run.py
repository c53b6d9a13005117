"""Difficulty heads from recorded outcomes: trained and written to a folder, or put into a policy where they help.

Knows: the order of training, writing and measuring, and cross-fitting: every question by heads that were trained,
chosen and calibrated without its fold. Does not know solvers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from outthink.controller.difficulty import Difficulty, load, plain, save
from outthink.controller.policy.artefact import digest
from outthink.controller.router.folder import prompt_hash
from outthink.core.errors import BadInput
from outthink.evaluation.dataset import Source
from outthink.evaluation.routing.data import Floats, fold_of, groups, provenance
from outthink.evaluation.routing.difficulty import DifficultyRecipe, ModelOutcomes, fit, outcomes
from outthink.evaluation.routing.figures import drawn, ordering, success_figures, token_figures
from outthink.evaluation.routing.training import Corpus
from outthink.evaluation.sample_file import JsonObject

_FEW = 100
"""Questions below which a policy gets no difficulty head."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """What heads said of questions that they were not trained on, (questions, models)."""

    right: Floats
    tokens: Floats
    inside: Floats | None
    """Whether the true mean tokens lay within the stated spread, 1.0 or 0.0; None where that was fitted on them."""


def train(data: ModelOutcomes, out: Path, recipe: DifficultyRecipe | None = None) -> Difficulty:
    """Train on all questions and write the heads to a folder; as they are loaded from it.

    Raises BadInput for too few questions, a folder that cannot be written, or where scikit-learn is missing.
    """
    recipe = recipe or DifficultyRecipe()
    group = groups(data.questions)
    fitted = fit(data, Corpus(data.questions), np.arange(len(data)), group, recipe)
    about: JsonObject = {
        **provenance(asdict(recipe)),
        "data": {"name": data.name, "n": len(data), "dropped": data.dropped},
        "held_out": model_figures(data, Predicted(fitted.right, fitted.tokens, None), drawn(group)),
    }
    save(out, fitted.difficulty, about, map(prompt_hash, data.questions))
    return load(out)


def cross_fitted(
    data: ModelOutcomes, recipe: DifficultyRecipe, *, folds: int = 5, corpus: Corpus | None = None
) -> Predicted:
    """Every question by heads that were trained, chosen and calibrated without its fold."""
    group = groups(data.questions)
    fold = fold_of(group, folds, recipe.seed)
    corpus = corpus or Corpus(data.questions)
    right, tokens, inside = (np.empty_like(data.right) for _ in range(3))
    for part in range(folds):
        heads = fit(data, corpus, np.flatnonzero(fold != part), group, recipe).difficulty
        for row in np.flatnonzero(fold == part):
            for place, forecast in enumerate(heads.forecast(data.questions[row]).models):
                right[row, place], tokens[row, place] = forecast.right, forecast.tokens
                inside[row, place] = forecast.tokens_low <= data.tokens[row, place] <= forecast.tokens_high
    return Predicted(right, tokens, inside)


def for_policy(source: Source, *, folds: int = 5, seed: int = 0) -> JsonObject | None:
    """Heads on the hand features alone, as plain values for a policy, where they help; else None.

    They help where, on held-out questions, their squared error is below that of the mean rate beyond the
    paired interval. None, too, for fewer than 100 questions, without their text or scikit-learn.
    `held_out` among the values says how good they are; `outthink.controller.difficulty.of` reads them.
    """
    if source.questions is None or len(source.traces.problems) < _FEW:
        return None
    try:
        data = outcomes([source])
        recipe = DifficultyRecipe(reads="counts", folds=folds, seed=seed)
        group, corpus = groups(data.questions), Corpus(data.questions)
        predicted = cross_fitted(data, recipe, folds=folds, corpus=corpus)
        counts = drawn(group)
        error = (predicted.right - data.right)[:, 0] ** 2 - _others_mean(data.right[:, 0], len(data)) ** 2
        gained = counts @ error / counts.sum(axis=1)
        if np.quantile(gained, 0.975) >= 0:
            return None
        heads = fit(data, corpus, np.arange(len(data)), group, recipe).difficulty
    except BadInput:
        return None
    (figures,) = model_figures(data, predicted, counts)
    values = {**plain(heads), "held_out": figures}
    return {**values, "id": digest({key: value for key, value in values.items() if key != "id"})}


def _others_mean(truth: Floats, count: int) -> Floats:
    """Distance of each from the mean of all others."""
    return np.asarray((truth.sum() - truth) / (count - 1) - truth)


def model_figures(data: ModelOutcomes, predicted: Predicted, counts: Floats) -> list[JsonObject]:
    """Figures of each model on questions that the heads were not trained on."""
    rows, inside = [], predicted.inside
    for place, model in enumerate(data.models):
        right, truth = predicted.right[:, place], data.right[:, place]
        tokens = token_figures(predicted.tokens[:, place], data.tokens[:, place], counts)
        order = ordering(right, truth, counts, truth)
        rows.append(
            {
                "model": model,
                "n": len(data),
                "right": success_figures(right, truth, order),
                "tokens": tokens | ({} if inside is None else {"inside": float(inside[:, place].mean())}),
            }
        )
    return rows
