"""Difficulty: heads on texts (a logistic regression of the success rate, a ridge regression of log tokens), and linear
probes on hidden states; trained and written to a folder, or put into a policy where they help.

Knows: how often each model was right on a question and how much it wrote, scikit-learn's solvers (the `calibrate`
extra, imported only when used), inner folds that choose penalty and layer and calibrate, and cross-fitting: every
question by heads that were trained, chosen and calibrated without its fold. Does not know figures, or the model whose
states a probe reads (`outthink.training.prompt_states` gathers them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from outthink.controller.difficulty import Difficulty, Probe, heads, load, plain, save
from outthink.controller.policy.artefact import digest
from outthink.controller.router.folder import prompt_hash
from outthink.controller.router.text import KINDS, NAMES
from outthink.core.errors import BadInput
from outthink.evaluation.dataset import SampleSet
from outthink.evaluation.routing.data import Floats, Ints, fold_of, groups, provenance
from outthink.evaluation.routing.figures import drawn, ordering, platt, success_figures, token_figures
from outthink.evaluation.routing.training import Corpus, Matrix, Solve, Space, cross_predicted, logistic_regression
from outthink.evaluation.sample_file import JsonObject


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
    name = ", ".join(dict.fromkeys(source.traces.dataset for source in sources))
    return ModelOutcomes(name, models, tuple(kept), table[..., 0], table[..., 1], len(by_question) - len(kept))


Judged = tuple[float, tuple[float, float], Floats]
"""Loss of held-out values, their scaling, and the scaled values."""
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
class Predicted:
    """What heads said of questions that they were not trained on, (questions, models)."""

    right: Floats
    tokens: Floats
    inside: Floats | None
    """Whether the true mean tokens lay within the stated spread, 1.0 or 0.0; None where that was fitted on them."""


@dataclass(frozen=True, slots=True)
class _Head:
    """One fitted regression with its scaling and what it says of held-out rows."""

    coefficients: Floats
    bias: float
    scaling: tuple[float, float]
    held_out: Floats


def fit(
    data: ModelOutcomes, corpus: Corpus, rows: Ints, group: Ints, recipe: DifficultyRecipe
) -> tuple[Difficulty, Predicted]:
    """Train on some rows, and what is held out of them was told; `corpus` and `group` are of all rows.

    Raises BadInput for too few questions, or where scikit-learn is missing.
    """
    logistic_regression()
    from threadpoolctl import threadpool_limits

    # Numbered anew: `fold_of` takes the highest number for the count of groups, and these are some of them.
    fold = fold_of(np.unique(group[rows], return_inverse=True)[1], recipe.folds, recipe.seed)
    space = _space_of(corpus, rows, recipe)
    matrix = space.matrix()
    fitted: list[_Head] = []  # of each model the success rate, then the tokens
    with threadpool_limits(1):
        for place in range(len(data.models)):
            fitted.append(_fit_right(matrix, data.right[rows, place], fold, recipe.strengths))
            fitted.append(_fit_tokens(matrix, data.tokens[rows, place], fold, recipe.strengths))
    text = space.model(
        heads(data.models),
        np.stack([head.coefficients for head in fitted]),
        [head.bias for head in fitted],
        tuple(head.scaling for head in fitted),
    )
    expected = np.stack([np.exp(head.held_out) for head in fitted[1::2]], axis=1)
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
    right = 1 / (1 + np.exp(-np.stack([head.held_out for head in fitted[::2]], axis=1)))
    return difficulty, Predicted(right, expected, None)


def _space_of(corpus: Corpus, rows: Ints, recipe: DifficultyRecipe) -> Space:
    """The columns that a recipe reads."""
    hand = {"length": ("log_characters",), "terms": ()}.get(recipe.reads, NAMES)
    kinds = KINDS if recipe.reads in ("terms", "all") else ()
    # Alone, the hand features need no weight below that of terms: the penalty is the same for either.
    weight = recipe.hand_weight if recipe.reads == "all" else 1.0
    return Space(corpus, rows, weight, kinds=kinds, hand=hand)


def _fit_right(matrix: Matrix, share: Floats, fold: Ints, strengths: Sequence[float]) -> _Head:
    """Every question counts once as right and once as wrong, weighted by how often it was either."""
    from scipy.sparse import vstack

    def solve(rows: Ints, *, strength: float) -> tuple[Floats, float]:
        labels = np.repeat([1.0, 0.0], len(rows))
        weight = np.concatenate([share[rows], 1 - share[rows]])
        model = logistic_regression()(C=strength, max_iter=1000)
        model.fit(vstack([matrix[rows], matrix[rows]]), labels, sample_weight=weight)
        return model.coef_[0], float(model.intercept_[0])

    def judge(logits: Floats) -> Judged:
        slope, shift = platt(logits, share)
        scaled = slope * logits + shift
        return float((np.logaddexp(0.0, scaled) - share * scaled).sum()), (slope, shift), scaled

    return _least_loss(matrix, fold, {strength: partial(solve, strength=strength) for strength in strengths}, judge)


def _fit_tokens(matrix: Matrix, tokens: Floats, fold: Ints, strengths: Sequence[float]) -> _Head:
    """Of the logarithm; its shift is such that the expected tokens of held-out rows add up to the true ones."""
    from sklearn.linear_model import Ridge

    target = np.log(tokens)

    def solve(rows: Ints, *, strength: float) -> tuple[Floats, float]:
        model = Ridge(alpha=1 / strength, tol=1e-8).fit(matrix[rows], target[rows])
        return model.coef_, float(model.intercept_)

    def judge(values: Floats) -> Judged:
        spread = float(values.var())
        slope = float(np.cov(values, target)[0, 1] / spread) if spread > 1e-12 else 0.0
        slope = max(slope, 0.0)  # as in `platt`: a negative one would turn the order round
        shift = float(np.log(tokens.sum() / np.exp(slope * values).sum()))
        return float(((values - target) ** 2).sum()), (slope, shift), slope * values + shift

    return _least_loss(matrix, fold, {strength: partial(solve, strength=strength) for strength in strengths}, judge)


def _least_loss(matrix: Matrix, fold: Ints, solvers: Mapping[float, Solve], judge: Callable[[Floats], Judged]) -> _Head:
    """The regression of the strength that loses least on held-out rows, on all rows."""
    judged = {strength: judge(cross_predicted(matrix, fold, solve)) for strength, solve in solvers.items()}
    best = min(judged, key=lambda strength: judged[strength][0])
    _, scaling, held_out = judged[best]
    return _Head(*solvers[best](np.arange(len(fold))), scaling, held_out)


# Linear probes on hidden states: ridge regression, layer and penalty chosen on inner folds. They need numpy only.
# The design is PIKA's (arXiv 2602.09924): the state at the end of the prompt, before anything is generated.

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


_FEW = 100
"""Questions below which a policy gets no difficulty head."""


def train(data: ModelOutcomes, out: Path, recipe: DifficultyRecipe | None = None) -> Difficulty:
    """Train on all questions and write the heads to a folder; as they are loaded from it.

    Raises BadInput for too few questions, a folder that cannot be written, or where scikit-learn is missing.
    """
    recipe = recipe or DifficultyRecipe()
    group = groups(data.questions)
    difficulty, predicted = fit(data, Corpus(data.questions), np.arange(len(data)), group, recipe)
    about: JsonObject = {
        **provenance(asdict(recipe)),
        "data": {"name": data.name, "n": len(data), "dropped": data.dropped},
        "held_out": model_figures(data, predicted, drawn(group)),
    }
    save(out, difficulty, about, map(prompt_hash, data.questions))
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
        heads, _ = fit(data, corpus, np.flatnonzero(fold != part), group, recipe)
        for row in np.flatnonzero(fold == part):
            for place, forecast in enumerate(heads.forecast(data.questions[row]).models):
                right[row, place], tokens[row, place] = forecast.right, forecast.tokens
                inside[row, place] = forecast.tokens_low <= data.tokens[row, place] <= forecast.tokens_high
    return Predicted(right, tokens, inside)


def for_policy(source: SampleSet, *, folds: int = 5, seed: int = 0) -> JsonObject | None:
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
        # The mean of the others, since the heads have not seen the question either.
        error = (predicted.right - data.right)[:, 0] ** 2 - _others_mean(data.right[:, 0], len(data)) ** 2
        gained = counts @ error / counts.sum(axis=1)
        if np.quantile(gained, 0.975) >= 0:
            return None
        heads, _ = fit(data, corpus, np.arange(len(data)), group, recipe)
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
