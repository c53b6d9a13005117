"""Figures of routers and predictions: accuracy over the share of strong calls, calibration, and rank correlation.

Knows: RouteLLM's deciles, APGR, CPT and the area over cost; calibration error, Platt's scaling, areas under curves and
errors of token counts, with intervals over resampled questions. Does not know where scores come from. A quantity that
is not defined is None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outthink.core.errors import BadInput
from outthink.evaluation.routing.data import Floats, Ints, ModelOutcomes
from outthink.evaluation.rows import COVERAGE, resampled_means
from outthink.evaluation.sample_file import JsonObject

DECILES = np.linspace(0.0, 1.0, 11)
_POINTS = len(DECILES) + 2  # RouteLLM's eleven thresholds, and either model alone (docs/contracts.md)


@dataclass(frozen=True, slots=True)
class Curves:
    """Routing curves, one a resample: arrays (13, resamples), from no strong call to strong calls only.

    share: of requests that the strong model gets; cost: share of the extra cost that is paid; accuracy.
    """

    share: Floats
    cost: Floats
    accuracy: Floats

    def apgr(self) -> Floats:
        """Average performance gap recovered; NaN where the strong model is not better than the weak one."""
        weak, strong = self.accuracy[0], self.accuracy[-1]
        # RouteLLM's definition (arXiv 2406.18665); a single model's area is its accuracy, the shares going from 0 to 1.
        area = np.trapezoid(self.accuracy, self.share, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(strong > weak, (area - weak) / (strong - weak), np.nan))

    def cpt(self, share: float) -> Floats:
        """Per cent of requests sent to the strong model where `share` of the gap is first recovered; NaN if never."""
        weak, strong = self.accuracy[0], self.accuracy[-1]
        # Rounding in weighted sums must not move the last point below a target that it equals.
        target = weak + share * (strong - weak) - 1e-12
        reached = (self.accuracy >= target) & (strong > weak)
        first = np.maximum(reached.argmax(axis=0), 1)
        column = np.arange(self.share.shape[1])
        below, above = self.accuracy[first - 1, column], self.accuracy[first, column]
        left, right = self.share[first - 1, column], self.share[first, column]
        with np.errstate(divide="ignore", invalid="ignore"):
            way = np.clip((target - below) / (above - below), 0.0, 1.0)
        return np.asarray(np.where(reached.any(axis=0), 100 * (left + way * (right - left)), np.nan))

    def charged(self, router: float) -> Floats:
        """Share of the extra cost at each point with the router's own cost, `router`, added; the two ends need none."""
        cost = self.cost.copy()
        cost[1:-1] += router
        return cost

    def auc_cost(self, router: float = 0.0) -> Floats:
        """Mean accuracy over the share of the extra cost, 0 to 1.

        Args:
            router: what the router costs a request, as a share of the mean extra cost. A point that it
                makes dearer than the strong model alone gives way to that.
        """
        cost, accuracy = self.charged(router), self.accuracy
        late = cost > 1
        return np.asarray(np.trapezoid(np.where(late, accuracy[-1], accuracy), np.where(late, 1.0, cost), axis=0))


def curves(score: Floats, data: ModelOutcomes, *, resamples: int = 0, seed: int = 0) -> Curves:
    """The curve of a score, or with `resamples` those of bootstrap samples of the groups of prompts.

    Points: nothing strong; score >= each of its eleven deciles, ties together; everything strong. The
    deciles stay those of all rows: they are the thresholds in use, a resample changes the requests.
    """
    chosen = np.zeros((_POINTS, len(data)), dtype=bool)
    chosen[1:-1] = score >= np.quantile(score, DECILES)[::-1, None]
    chosen[-1] = True
    # One product gives all means of a resample: the row of ones counts its requests, the second sums their extra cost.
    table = np.concatenate(
        [
            np.ones((1, len(data))),
            data.extra[None],
            chosen,
            chosen * data.extra,
            np.where(chosen, data.right[:, 1], data.right[:, 0]),
        ]
    )
    if resamples:
        table = resampled_means(_summed(table, data.group), resamples=resamples, seed=seed)
    else:
        table = table.mean(axis=1, keepdims=True)
    share, cost, accuracy = table[2:].reshape(3, _POINTS, -1)
    return Curves(share / table[0], cost / table[1], accuracy / table[0])


def _summed(table: Floats, group: Ints) -> Floats:
    """Sums over the rows of each group: groups are what is resampled, whole."""
    count = int(group.max()) + 1
    return np.stack([np.bincount(group, weights=row, minlength=count) for row in table])


def defined(value: float) -> float | None:
    """A number, or None for NaN."""
    return None if np.isnan(value) else float(value)


def interval(values: Floats) -> tuple[float | None, float | None]:
    """95 % percentile interval of resampled values; None where any of them is undefined."""
    if np.isnan(values).any():
        return None, None
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


# Calibration: whether probabilities mean what they say.

BINS = 10


def reliability(probability: Floats, right: Floats, bins: int = BINS) -> list[JsonObject]:
    """Bins of (nearly) equal size, by probability: `n`, mean `predicted`, share that is `right`."""
    parts = np.array_split(np.argsort(probability, kind="stable"), min(bins, len(probability)))
    return [
        {"n": len(part), "predicted": float(probability[part].mean()), "right": float(right[part].mean())}
        for part in parts
    ]


def ece(probability: Floats, right: Floats, bins: int = BINS) -> float:
    """Expected calibration error: mean distance of predicted and right over the bins, weighted by size."""
    rows = reliability(probability, right, bins)
    return float(sum(row["n"] * abs(row["predicted"] - row["right"]) for row in rows) / len(probability))


def pair(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Scores and labels as flat arrays; BadInput where they do not fit, or one is not finite."""
    first, second = np.asarray(scores, np.float64).ravel(), np.asarray(labels, np.float64).ravel()
    if first.shape != second.shape:
        raise BadInput("scores", first.shape, f"do not match labels {second.shape}", "give one label a score")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise BadInput("scores", "NaN or infinity", "cannot be ranked", "leave out what has no score")
    return first, second


def auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a right one scores above a wrong one, ties one half.

    Labels may be shares between 0 and 1: a step with label 0.25 then counts as a quarter right and three
    quarters wrong. None where all are right or all wrong.
    """
    value, right = pair(scores, labels)
    order = np.argsort(value, kind="stable")
    _, start, place = np.unique(value[order], return_index=True, return_inverse=True)
    positive = np.bincount(place, right[order], len(start))
    negative = np.bincount(place, 1 - right[order], len(start))
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs > 0 else None


def platt(logit: Floats, right: Floats, rounds: int = 50) -> tuple[float, float]:
    """(slope, intercept) that make sigmoid(slope * logit + intercept) likeliest, by Newton's method.

    A slope that is not positive would turn the order round: then the logits say nothing, and the
    result is (0, log-odds of the mean).
    """
    design = np.stack([logit, np.ones_like(logit)], axis=1)
    mean = float(np.clip(right.mean(), 1e-6, 1 - 1e-6))  # the log-odds of 0 and 1 are infinite
    constant = 0.0, float(np.log(mean / (1 - mean)))
    fitted = np.array(constant)
    for _ in range(rounds):
        chance = 1 / (1 + np.exp(-np.clip(design @ fitted, -30, 30)))
        # The last term keeps it solvable where all logits are equal: then slope and intercept are one unknown.
        hessian = (design * (chance * (1 - chance))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, design.T @ (right - chance))
        # A full step may overshoot where the logits are large: halve it until the likelihood does not fall.
        while _loss(design @ (fitted + step), right) > _loss(design @ fitted, right) and np.abs(step).max() > 1e-10:
            step = step / 2
        fitted = fitted + step
        if np.abs(step).max() < 1e-10:
            break
    return (float(fitted[0]), float(fitted[1])) if fitted[0] > 0 else constant


def _loss(logit: Floats, right: Floats) -> float:
    """Minus the log-likelihood."""
    return float((np.logaddexp(0.0, logit) - right * logit).sum())


# How well a prediction orders questions, with intervals over questions.

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Ordering:
    """One score of all questions: `auc` and `spearman` on all of them, and on each bootstrap sample."""

    auc: float | None
    spearman: float | None
    auc_drawn: Floats
    spearman_drawn: Floats


def drawn(group: Ints, *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """How often each question occurs in each bootstrap sample of whole groups, (resamples, questions)."""
    count = int(group.max()) + 1
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.asarray(times[:, group], dtype=np.float64)


def ordering(score: Floats, truth: Floats, counts: Floats, right: Floats | None = None) -> Ordering:
    """How a score orders questions.

    Args:
        truth: what it should order: the success rate, or the mean tokens.
        right: success rate, for the area under the curve: the probability that a right sample's question
            scores above a wrong sample's, ties half, samples of one question included. None without one.
        counts: of `drawn`.
    """
    everyone = np.ones((1, len(score)))
    ranks = _ranks(score), _ranks(truth)
    rho, rhos = (_correlation(*ranks, weight) for weight in (everyone, counts))
    if right is None:
        return Ordering(None, defined(rho[0]), np.full(len(counts), np.nan), rhos)
    above = (score[:, None] > score[None]) + 0.5 * (score[:, None] == score[None])
    table = right[:, None] * above * (1 - right)[None]
    areas = [
        np.einsum("rq,rq->r", weight @ table, weight) / ((weight @ right) * (weight @ (1 - right)))
        for weight in (everyone, counts)
    ]
    return Ordering(defined(areas[0][0]), defined(rho[0]), areas[1], rhos)


def success_figures(right: Floats, truth: Floats, order: Ordering) -> JsonObject:
    """Of predicted success rates: order with intervals, calibration error with its bins."""
    return {
        "auc": order.auc,
        **interval_columns("auc", order.auc_drawn),
        "spearman": order.spearman,
        **interval_columns("spearman", order.spearman_drawn),
        "ece": ece(right, truth),
        "ece_by_chance": _chance(right, truth),
        "brier": float(((right - truth) ** 2).mean()),
        "reliability": reliability(right, truth),
    }


def _chance(right: Floats, truth: Floats) -> float:
    """Calibration error that a perfectly calibrated prediction would show on so few questions."""
    parts = np.array_split(np.argsort(right, kind="stable"), min(BINS, len(right)))
    spread = [len(part) * truth[part].std() / np.sqrt(len(part)) for part in parts]
    # A normal variable is sqrt(2 / pi) of its spread away from its mean, on average.
    return float(np.sqrt(2 / np.pi) * sum(spread) / len(right))


def token_figures(tokens: Floats, truth: Floats, counts: Floats) -> JsonObject:
    """Of expected tokens: order, the median error as a share, and the total against the true one."""
    order = ordering(tokens, truth, counts)
    return {
        "spearman": order.spearman,
        **interval_columns("spearman", order.spearman_drawn),
        "median_error": float(np.median(np.abs(tokens / truth - 1))),
        "total": float(tokens.sum() / truth.sum()),
    }


def interval_columns(name: str, values: Floats) -> dict[str, float | None]:
    low, high = interval(values)
    return {f"{name}_low": low, f"{name}_high": high}


def _ranks(values: Floats) -> Floats:
    """Ranks from 0, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse])


def _correlation(a: Floats, b: Floats, weight: Floats) -> Floats:
    """Weighted correlation for each row of weights; NaN where one side is constant.

    On a bootstrap sample the ranks stay those of all questions, as the usual shortcut has it.
    """
    total = weight.sum(axis=1)
    mean_a, mean_b = weight @ a / total, weight @ b / total
    both = weight @ (a * b) / total - mean_a * mean_b
    spread = (weight @ (a * a) / total - mean_a**2) * (weight @ (b * b) / total - mean_b**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(spread > 1e-12, both / np.sqrt(np.maximum(spread, 1e-300)), np.nan))
