"""Linear probes on hidden states: ridge regression, layer and penalty chosen on inner folds.

Knows: numpy alone. The design is PIKA's (arXiv 2602.09924): the state at the end of the prompt, before anything is
generated. Does not know the model whose states are read (`outthink.training.prompt_states` gathers them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from outthink.controller.router.probe import Probe
from outthink.core.errors import BadInput
from outthink.evaluation.routing.data import Floats, Ints, fold_of
from outthink.evaluation.routing.figures import platt

States = npt.NDArray[np.float32]
PENALTIES = (1e2, 1e3, 1e4, 1e5)


def fit_probe(
    states: States, share: Floats, group: Ints, layers: Sequence[int], about: Mapping[str, Any], *, folds: int = 5
) -> Probe:
    """One probe of a success rate on all questions.

    Args:
        share: of right samples, 0 to 1.
        about: `model`, `reader`, and `flops`, a function of the layer.
    """
    check_states(states, layers)
    targets = share[:, None]
    inner = inner_predictions(states, targets, group, layers, folds, 0)[..., 0]
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


def check_states(states: States, layers: Sequence[int]) -> None:
    if not layers or not all(0 <= layer < states.shape[1] for layer in layers):
        raise BadInput("layers", layers, f"are not all between 0 and {states.shape[1] - 1}", "give some of these")
    if not np.isfinite(states).all():
        raise BadInput("states", "NaN or infinity", "is no state", "read the prompts again")


def inner_predictions(
    states: States, targets: Floats, group: Ints, layers: Sequence[int], folds: int, seed: int
) -> Floats:
    """Held-out values of every layer and penalty, (layers, penalties, questions, targets)."""
    fold = fold_of(np.unique(group, return_inverse=True)[1], folds, seed + 1)
    held_out = np.empty((len(layers), len(PENALTIES), *targets.shape))
    for part in range(folds):
        inside, outside = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        for place, layer in enumerate(layers):
            held_out[place][:, outside] = ridge_paths(states[inside, layer], targets[inside], states[outside, layer])
    return held_out


def ridge_paths(known: States, targets: Floats, asked: States) -> Floats:
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
    values, vectors = np.linalg.eigh(matrix.T @ matrix)  # decomposed once, whatever the number of penalties
    return np.maximum(values, 0.0), vectors, vectors.T @ (matrix.T @ targets)
