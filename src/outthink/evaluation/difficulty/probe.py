"""Linear probes on hidden states: fitted by ridge regression, their layer chosen on inner folds.

Knows: how a layer and a penalty are chosen without the questions that they are judged on. Does not know
the model whose states it reads (`outthink.training.prompt_states` gathers them). Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from outthink.controller.difficulty import Probe
from outthink.core.errors import BadInput
from outthink.evaluation.routing.data import Floats, Ints
from outthink.evaluation.routing.folds import fold_of
from outthink.evaluation.routing.reliability import platt

States = npt.NDArray[np.float32]
PENALTIES = (1e2, 1e3, 1e4, 1e5)


@dataclass(frozen=True, slots=True)
class Judged:
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


def judged(
    states: States, targets: Floats, group: Ints, layers: Sequence[int], *, folds: int = 5, seed: int = 0
) -> Judged:
    """Cross-fit probes; layer, penalty and calibration come from folds inside of each training part.

    Args:
        states: (questions, all layers, width).
        targets: (questions, targets), for example success rates and logarithms of tokens.
        layers: those to choose from.
    """
    _check(states, layers)
    fold = fold_of(group, folds, seed)
    count, wide = targets.shape
    by_layer, chosen, right = np.empty((len(layers), count, wide)), np.empty((count, wide)), np.empty((count, wide))
    picked = np.empty((folds, wide), dtype=np.int64)
    for part in range(folds):
        inside, outside = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        inner = _inner(states[inside], targets[inside], group[inside], layers, folds, seed)
        outer = np.stack([_paths(states[inside, at], targets[inside], states[outside, at]) for at in layers])
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
    return Judged(by_layer, chosen, right, picked)


def fit_probe(
    states: States, share: Floats, group: Ints, layers: Sequence[int], about: dict[str, Any], *, folds: int = 5
) -> Probe:
    """One probe of a success rate on all questions.

    Args:
        share: of right samples, 0 to 1.
        about: `model`, `reader`, and `flops`, a function of the layer.
    """
    _check(states, layers)
    targets = share[:, None]
    inner = _inner(states, targets, group, layers, folds, 0)[..., 0]
    error = ((inner - share) ** 2).mean(axis=2)
    place, penalty = (int(at) for at in np.unravel_index(error.argmin(), error.shape))
    slope, shift = platt(inner[place, penalty], share)
    matrix = states[:, layers[place]].astype(np.float64)
    mean, scale = _scaling(matrix)
    values, vectors, mixed = _eigen((matrix - mean) / scale, targets - targets.mean(axis=0))
    direction = vectors @ (mixed[:, 0] / (values + PENALTIES[penalty])) / scale
    return Probe(
        model=str(about["model"]),
        reader=str(about["reader"]),
        layer=layers[place],
        direction=tuple((slope * direction).tolist()),
        bias=float(slope * (targets.mean() - mean @ direction) + shift),
        flops=float(about["flops"](layers[place])),
    )


def _check(states: States, layers: Sequence[int]) -> None:
    if not layers or not all(0 <= layer < states.shape[1] for layer in layers):
        raise BadInput("layers", layers, f"are not all between 0 and {states.shape[1] - 1}", "give some of these")
    if not np.isfinite(states).all():
        raise BadInput("states", "NaN or infinity", "is no state", "read the prompts again")


def _inner(states: States, targets: Floats, group: Ints, layers: Sequence[int], folds: int, seed: int) -> Floats:
    """Held-out values of every layer and penalty, (layers, penalties, questions, targets)."""
    fold = fold_of(np.unique(group, return_inverse=True)[1], folds, seed + 1)
    found = np.empty((len(layers), len(PENALTIES), *targets.shape))
    for part in range(folds):
        inside, outside = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        for place, layer in enumerate(layers):
            found[place][:, outside] = _paths(states[inside, layer], targets[inside], states[outside, layer])
    return found


def _paths(known: States, targets: Floats, asked: States) -> Floats:
    """Ridge predictions of the asked rows for each penalty, (penalties, asked, targets)."""
    matrix, new = known.astype(np.float64), asked.astype(np.float64)
    mean, scale = _scaling(matrix)
    centre = targets.mean(axis=0)
    values, vectors, mixed = _eigen((matrix - mean) / scale, targets - centre)
    turned = ((new - mean) / scale) @ vectors
    return np.stack([turned @ (mixed / (values + penalty)[:, None]) + centre for penalty in PENALTIES])


def _scaling(matrix: Floats) -> tuple[Floats, Floats]:
    scale = matrix.std(axis=0)
    return matrix.mean(axis=0), np.where(scale > 1e-6, scale, 1.0)


def _eigen(matrix: Floats, targets: Floats) -> tuple[Floats, Floats, Floats]:
    """Eigenvalues and vectors of the features' products, and the targets' products turned into them."""
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    return np.maximum(values, 0.0), vectors, vectors.T @ (matrix.T @ targets)
