"""Fits difficulty heads: a logistic regression of the success rate and a ridge regression of log tokens.

Knows: scikit-learn's solvers (the `calibrate` extra, imported here and only when used), the inner folds
that choose the penalty and calibrate. Does not know metrics or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from outthink.controller.difficulty import Difficulty, Probe, heads
from outthink.controller.router.text import KINDS, NAMES
from outthink.core.errors import BadInput
from outthink.evaluation.dataset import Source
from outthink.evaluation.routing.data import Floats, Ints, fold_of
from outthink.evaluation.routing.figures import platt
from outthink.evaluation.routing.training import Corpus, Space, logistic_regression

# Outcomes of several models on the same questions: how often each was right, and how much it wrote.
#
# Knows: recorded samples with the problems beside them. Does not know what is predicted from the questions.


@dataclass(frozen=True, slots=True)
class ModelOutcomes:
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


def outcomes(sources: Sequence[Source]) -> ModelOutcomes:
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
    return ModelOutcomes(name, models, tuple(kept), table[..., 0], table[..., 1], len(found) - len(kept))


Reads = Literal["length", "counts", "terms", "all"]
"""What of a prompt: its length alone, the hand features, TF-IDF terms, or both of these."""
_SPREAD = (0.1, 0.9)


@dataclass(frozen=True, slots=True)
class DifficultyRecipe:
    """How heads are trained.

    Args:
        reads: what of a prompt they see.
        strengths: inverse penalties to choose from on inner folds, for each head.
        hand_weight: of standardised hand features beside TF-IDF vectors of length 1.
        folds, seed: of the cross-fitting that chooses and calibrates.
    """

    reads: Reads = "all"
    strengths: tuple[float, ...] = (0.1, 0.3, 1.0)
    hand_weight: float = 0.3
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True, slots=True)
class FittedDifficulty:
    """Heads, with their held-out values on their own training rows: (rows, models) of right and of tokens."""

    difficulty: Difficulty
    right: Floats
    tokens: Floats


@dataclass(frozen=True, slots=True)
class _Head:
    """One fitted regression with its scaling and what it says of held-out rows."""

    coefficients: Floats
    bias: float
    scaling: tuple[float, float]
    held_out: Floats


def fit(data: ModelOutcomes, corpus: Corpus, rows: Ints, group: Ints, recipe: DifficultyRecipe) -> FittedDifficulty:
    """Train on some rows; `corpus` and `group` are of all of them.

    Raises BadInput for too few questions, or where scikit-learn is missing.
    """
    from threadpoolctl import threadpool_limits

    logistic_regression()
    fold = fold_of(np.unique(group[rows], return_inverse=True)[1], recipe.folds, recipe.seed)
    space = space_of(corpus, rows, recipe)
    matrix = space.matrix()
    found: list[_Head] = []
    with threadpool_limits(1):
        for place in range(len(data.models)):
            found.append(_right(matrix, data.right[rows, place], fold, recipe.strengths))
            found.append(_tokens(matrix, data.tokens[rows, place], fold, recipe.strengths))
    text = space.model(
        heads(data.models),
        np.stack([one.coefficients for one in found]),
        [one.bias for one in found],
        tuple(one.scaling for one in found),
    )
    expected = np.stack([np.exp(one.held_out) for one in found[1::2]], axis=1)
    ratio = np.quantile(data.tokens[rows] / expected, _SPREAD, axis=0).T
    sizes = [len(data.questions[row]) for row in rows]
    difficulty = Difficulty(
        id="unsaved",
        models=data.models,
        text=text,
        spread=tuple((float(low), float(high)) for low, high in ratio),
        shortest=min(sizes),
        longest=max(sizes),
    )
    right = 1 / (1 + np.exp(-np.stack([one.held_out for one in found[::2]], axis=1)))
    return FittedDifficulty(difficulty, right, expected)


def space_of(corpus: Corpus, rows: Ints, recipe: DifficultyRecipe) -> Space:
    """The columns that a recipe reads."""
    hand = {"length": ("log_characters",), "terms": ()}.get(recipe.reads, NAMES)
    kinds = KINDS if recipe.reads in ("terms", "all") else ()
    # Alone, the hand features need no weight below that of terms: the penalty is the same for either.
    weight = recipe.hand_weight if recipe.reads == "all" else 1.0
    return Space(corpus, rows, weight, kinds=kinds, hand=hand)


def _right(matrix: Any, share: Floats, fold: Ints, strengths: Sequence[float]) -> _Head:
    """Every question counts once as right and once as wrong, weighted by how often it was either."""
    from scipy.sparse import vstack

    def solve(rows: Ints, strength: float) -> tuple[Floats, float]:
        one, both = np.ones(len(rows)), vstack([matrix[rows], matrix[rows]])
        weight = np.concatenate([share[rows], 1 - share[rows]])
        model = logistic_regression()(C=strength, max_iter=1000)
        model.fit(both, np.concatenate([one, 0 * one]), sample_weight=weight)
        return model.coef_[0], float(model.intercept_[0])

    best: tuple[float, float, tuple[float, float], Floats] | None = None
    for strength in strengths:
        logits = _crossed(matrix, fold, strength, solve)
        slope, shift = platt(logits, share)
        scaled = slope * logits + shift
        loss = float((np.logaddexp(0.0, scaled) - share * scaled).sum())
        if best is None or loss < best[0]:
            best = loss, strength, (slope, shift), scaled
    assert best is not None
    return _Head(*solve(np.arange(len(share)), best[1]), best[2], best[3])


def _tokens(matrix: Any, tokens: Floats, fold: Ints, strengths: Sequence[float]) -> _Head:
    """Of the logarithm; its shift is such that the expected tokens of held-out rows add up to the true ones."""
    from sklearn.linear_model import Ridge

    target = np.log(tokens)

    def solve(rows: Ints, strength: float) -> tuple[Floats, float]:
        model = Ridge(alpha=1 / strength, tol=1e-8).fit(matrix[rows], target[rows])
        return model.coef_, float(model.intercept_)

    best: tuple[float, float, Floats] | None = None
    for strength in strengths:
        values = _crossed(matrix, fold, strength, solve)
        loss = float(((values - target) ** 2).sum())
        if best is None or loss < best[0]:
            best = loss, strength, values
    assert best is not None
    values = best[2]
    spread = float(values.var())
    slope = float(np.cov(values, target)[0, 1] / spread) if spread > 1e-12 else 0.0
    slope = max(slope, 0.0)
    shift = float(np.log(tokens.sum() / np.exp(slope * values).sum()))
    return _Head(*solve(np.arange(len(tokens)), best[1]), (slope, shift), slope * values + shift)


def _crossed(matrix: Any, fold: Ints, strength: float, solve: Any) -> Floats:
    """What a regression says of each row when it was fitted without that row's fold."""
    found = np.empty(len(fold))
    for part in range(int(fold.max()) + 1):
        inside, outside = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        coefficients, bias = solve(inside, strength)
        found[outside] = matrix[outside] @ coefficients + bias
    return found


# Linear probes on hidden states: fitted by ridge regression, their layer chosen on inner folds.
#
# Knows: how a layer and a penalty are chosen without the questions that they are judged on. Does not know
# the model whose states it reads (`outthink.training.prompt_states` gathers them). Needs numpy only.

States = npt.NDArray[np.float32]
PENALTIES = (1e2, 1e3, 1e4, 1e5)


def fit_probe(
    states: States, share: Floats, group: Ints, layers: Sequence[int], about: dict[str, Any], *, folds: int = 5
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
    found = np.empty((len(layers), len(PENALTIES), *targets.shape))
    for part in range(folds):
        inside, outside = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        for place, layer in enumerate(layers):
            found[place][:, outside] = ridge_paths(states[inside, layer], targets[inside], states[outside, layer])
    return found


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
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    return np.maximum(values, 0.0), vectors, vectors.T @ (matrix.T @ targets)
