"""How good predictions of difficulty are on questions that had no part in them: heads on texts, probes on states.

Knows: cross-fitting, the baselines, and paired intervals against them. Does not know solvers, files or result tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from outthink.evaluation.routing.corpus import Corpus
from outthink.evaluation.routing.data import Floats, Ints, ModelOutcomes, fold_of
from outthink.evaluation.routing.figures import drawn, interval_columns, ordering, platt
from outthink.evaluation.routing.probes import States, check_states, inner_predictions, ridge_paths
from outthink.evaluation.routing.report import model_figures
from outthink.evaluation.routing.training import Predicted, PredictorRecipe, Reads, cross_fitted

BASELINES: tuple[Reads, ...] = ("length", "terms", "counts")


def judged(
    data: ModelOutcomes, recipe: PredictorRecipe, *, folds: int = 5, resamples: int = 1000
) -> list[dict[str, Any]]:
    """Figures of a recipe and of the baselines, one row for each model and what is read.

    Keys: `model`, `reads`, `n`, `right` (`auc`, `spearman`, `ece`, each of the first two with `_low` and
    `_high`), `tokens` (`spearman`, `median_error`, `total`, `inside`), and, for the recipe, `over`: 95 %
    intervals of its AUC, and of the rank correlation of its tokens, minus each baseline's.
    """
    corpus = Corpus(data.prompts)
    counts = drawn(data.group, resamples=resamples)
    found = {
        reads: cross_fitted(data, replace(recipe, reads=reads), folds=folds, corpus=corpus)
        for reads in dict.fromkeys((*BASELINES, recipe.reads))
    }
    rows = []
    for reads, predicted in found.items():
        for row, one in enumerate(model_figures(data, predicted, counts)):
            over = {} if reads != recipe.reads else _over(data, found, recipe.reads, row, counts)
            rows.append({"reads": reads, **one, **({"over": over} if over else {})})
    return rows


def _over(
    data: ModelOutcomes, found: dict[Reads, Predicted], mine: Reads, place: int, counts: Floats
) -> dict[str, Any]:
    """Paired intervals against each baseline, for one model."""
    right, tokens = data.right[:, place], data.tokens[:, place]
    order = {reads: ordering(one.right[:, place], right, counts, right) for reads, one in found.items()}
    lengths = {reads: ordering(one.tokens[:, place], tokens, counts) for reads, one in found.items()}
    return {
        reads: {
            "auc": difference(order[mine].auc_drawn, order[reads].auc_drawn),
            "tokens_spearman": difference(lengths[mine].spearman_drawn, lengths[reads].spearman_drawn),
        }
        for reads in found
        if reads != mine
    }


def difference(mine: Floats, other: Floats) -> dict[str, float | None]:
    """95 % interval of what one prediction has over another on the same bootstrap samples."""
    return interval_columns("paired", mine - other)


@dataclass(frozen=True, slots=True)
class JudgedProbe:
    """What probes said of questions that they were not fitted on.

    Args:
        by_layer: (layers, questions, targets), each layer's probe, its penalty chosen on inner folds.
        chosen: (questions, targets), the probe of the layer that inner folds chose.
        right: (questions, targets), the same as calibrated probabilities; meaningless for other targets.
        layers: (folds, targets), the layers chosen.
    """

    by_layer: Floats
    chosen: Floats
    right: Floats
    layers: Ints


def judged_probe(
    states: States, targets: Floats, group: Ints, layers: Sequence[int], *, folds: int = 5, seed: int = 0
) -> JudgedProbe:
    """Cross-fit probes; layer, penalty and calibration come from folds inside of each training part.

    Args:
        states: (questions, all layers, width).
        targets: (questions, targets), for example success rates and logarithms of tokens.
        layers: those to choose from.
    """
    check_states(states, layers)
    fold = fold_of(group, folds, seed)
    count, wide = targets.shape
    by_layer, chosen, right = np.empty((len(layers), count, wide)), np.empty((count, wide)), np.empty((count, wide))
    picked = np.empty((folds, wide), dtype=np.int64)
    for part in range(folds):
        inside, outside = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        inner = inner_predictions(states[inside], targets[inside], group[inside], layers, folds, seed)
        outer = np.stack([ridge_paths(states[inside, at], targets[inside], states[outside, at]) for at in layers])
        error = ((inner - targets[inside][None, None]) ** 2).mean(axis=2)
        for target in range(wide):
            penalty = error[..., target].argmin(axis=1)
            for place in range(len(layers)):
                by_layer[place, outside, target] = outer[place, penalty[place], :, target]
            best = int(error[..., target].min(axis=1).argmin())
            picked[part, target] = layers[best]
            chosen[outside, target] = by_layer[best, outside, target]
            share = np.clip(targets[inside, target], 0.0, 1.0)
            slope, shift = platt(inner[best, penalty[best], :, target], share)
            right[outside, target] = 1 / (1 + np.exp(-(slope * chosen[outside, target] + shift)))
    return JudgedProbe(by_layer, chosen, right, picked)
