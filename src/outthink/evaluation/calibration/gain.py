"""Votes over dealt samples, what going on with them still gains, and the choice of a price to stop at.

The gain is a ridge regression on the vote's shape; a ridge, because a few hundred problems do not bear much more.
Knows: the terms of `controller.policy.rules` over arrays, the regression, and the cheapest operating point that keeps
the accuracy. Does not know which rules compete, or cascades.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from outthink.controller.policy.rules import TERMS, Scale
from outthink.evaluation.calibration.dealt import Array, Dealt, Table

SWAY = (0.25, 0.25)
"""exp(0.5 z), shared between log-probability and confidence. It is not fitted. It was the first weight tried here,
and kept after others had been tried on the recorded sets (benchmarks/auto.py reports some of them)."""
_RIDGE = 0.2
"""Ridge penalty a row, on standardised terms."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Walk:
    """Votes sample by sample, over (problem, order, samples so far).

    Args:
        terms: after 1 ... depth - 1 samples, (..., TERMS).
        lead: the leader's lead, (weight1 - weight2) / sqrt(weight1 + weight2 + 1), after 0 ... depth samples.
        right: whether the leader is right, after 0 ... depth samples.
    """

    terms: Array
    lead: Array
    right: Array

    @property
    def gains(self) -> Array:
        """What drawing on to the end would change, after 1 ... depth - 1 samples."""
        return np.asarray(self.right[..., -1:] - self.right[..., 1:-1])


def scale_of(dealt: Dealt, problems: Mask, sway: tuple[float, float]) -> Scale:
    """Means and spreads over the samples of these problems."""
    logprob, confidence, tokens = (
        _spread(values[problems]) for values in (dealt.logprob, dealt.confidence, dealt.tokens)
    )
    scale = Scale(logprob, confidence, tokens)
    return replace(scale, weight=float(_weights(dealt, scale, sway)[problems].mean()))


def _spread(values: Array) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not known.size:
        return 0.0, 1.0
    return float(known.mean()), float(known.std()) or 1.0


def _standard(values: Array, of: tuple[float, float]) -> Array:
    return np.nan_to_num((values - of[0]) / of[1], nan=0.0)


def _weights(dealt: Dealt, scale: Scale, sway: tuple[float, float]) -> Array:
    logprob, confidence = _standard(dealt.logprob, scale.logprob), _standard(dealt.confidence, scale.confidence)
    return np.asarray(np.exp(sway[0] * logprob + sway[1] * confidence) / scale.weight)


def walk(
    table: Table, place: int, scale: Scale, sway: tuple[float, float], *, depth: int, carried: Array | None = None
) -> Walk:
    """Votes of the model at `place`.

    Args:
        carried: weight that answers have from elsewhere, (problem, order, answer).
    """
    dealt = table.models[place]
    codes, weights = dealt.codes, _weights(dealt, scale, sway)
    rows, columns = table.grid
    problems, orders = rows.shape
    votes = np.zeros((problems, orders, max(2, table.right.shape[1])))
    if carried is not None:
        votes[..., : carried.shape[2]] += carried
    seen = np.zeros(votes.shape, dtype=bool)
    z = [_standard(dealt.confidence, scale.confidence), _standard(dealt.logprob, scale.logprob)]
    means = [np.cumsum(values, axis=2) for values in (*z, _standard(dealt.tokens, scale.tokens))]
    unreadable = np.zeros((problems, orders))
    terms = np.zeros((problems, orders, depth - 1, TERMS))
    lead, right = np.zeros((problems, orders, depth + 1)), np.zeros((problems, orders, depth + 1))
    for k in range(depth + 1):
        if k:
            code = codes[:, :, k - 1]
            readable = code >= 0
            at = rows[readable], columns[readable], code[readable]
            votes[at] += weights[:, :, k - 1][readable]
            seen[at] = True
            unreadable += ~readable
        top = np.partition(votes, -2, axis=2)
        leader, second, winner = top[..., -1], top[..., -2], votes.argmax(axis=2)
        lead[..., k] = (leader - second) / np.sqrt(leader + second + 1)
        right[..., k] = table.right[rows, np.minimum(winner, table.right.shape[1] - 1)] & (leader > 0)
        if 0 < k < depth:
            left = np.sqrt(1 - k / (depth + 1))
            sure = lead[..., k] / left
            shape = [lead[..., k], sure, leader / k, second / k, leader, second]
            shape += [mean[..., k - 1] / k for mean in means]
            shape += [seen.sum(axis=2) / k, unreadable / k, np.full(sure.shape, 1 / k), np.full(sure.shape, left)]
            terms[:, :, k - 1] = np.stack([*shape, np.exp(-sure), np.exp(-2 * sure)], axis=2)
    return Walk(terms, lead, right)


def _expanded(terms: Array) -> NDArray[np.float32]:
    """The terms and their products in pairs, in the order of the coefficients."""
    first, second = np.triu_indices(terms.shape[-1])
    count = terms.shape[-1]
    table = np.empty((*terms.shape[:-1], count + len(first)), dtype=np.float32)
    table[..., :count] = terms
    np.multiply(table[..., first], table[..., second], out=table[..., count:])
    return table


class Ridge:
    """Sums over each problem, from which the regression on any subset of problems follows at once."""

    def __init__(self, votes: Walk) -> None:
        rows = _expanded(votes.terms)
        problems = rows.shape[0]
        rows = rows.reshape(problems, -1, rows.shape[-1])
        self._shape = votes.gains.shape
        self.centre, self.spread = rows.mean(axis=(0, 1)), rows.std(axis=(0, 1)) + 1e-6
        design = np.ones((*rows.shape[:2], rows.shape[2] + 1), dtype=np.float32)
        np.subtract(rows, self.centre, out=design[..., :-1])
        design[..., :-1] /= self.spread
        self._design, gains = design, votes.gains.reshape(problems, -1).astype(np.float32)
        self._squares = np.matmul(design.transpose(0, 2, 1), design).astype(np.float64)
        self._products = np.matmul(design.transpose(0, 2, 1), gains[:, :, None])[..., 0].astype(np.float64)

    def fit(self, problems: Mask) -> Array:
        """Coefficients of the standardised terms and, last, of 1, from these problems."""
        size = self._squares.shape[1]
        penalty = _RIDGE * problems.sum() * self._design.shape[1] * np.eye(size)
        penalty[-1, -1] = 0  # the mean gain is not drawn towards zero
        squares, products = self._squares[problems].sum(axis=0), self._products[problems].sum(axis=0)
        return np.asarray(np.linalg.solve(squares + penalty, products))

    def gains(self, coefficients: Array, problems: Mask) -> Array:
        """Predicted gains of these problems, as Walk.gains."""
        gains = self._design[problems] @ coefficients.astype(np.float32)
        return np.asarray(gains.reshape(-1, *self._shape[1:]), dtype=float)

    def gains_without(self, train: Mask, problems: Mask) -> Array:
        """Gains of `problems` by a fit on `train`."""
        return self.gains(self.fit(train), problems)

    def crossed(self, members: NDArray[np.intp], fold: NDArray[np.int64]) -> Array:
        """Gains of these problems, each by a fit on those of the other folds."""
        problems = np.zeros(len(self._design), dtype=bool)
        gains = np.zeros((len(members), *self._shape[1:]))
        for k in range(int(fold.max()) + 1):
            inside, rest = problems.copy(), problems.copy()
            inside[members[fold == k]], rest[members[fold != k]] = True, True
            gains[fold == k] = self.gains_without(rest, inside)
        return gains

    def plain(self, coefficients: Array) -> tuple[float, ...]:
        """The same coefficients for terms that are not standardised, that of 1 first."""
        slopes = coefficients[:-1] / self.spread
        constant = coefficients[-1] - float((slopes * self.centre).sum())
        return (float(constant), *(float(slope) for slope in slopes))


# Stopping rules over the votes, and the choice among their operating points.


@dataclass(frozen=True, slots=True)
class Spent:
    """Totals after 0, 1, ... samples, over (problem, order, samples): all that is charged, generated tokens."""

    cost: Array
    tokens: Array


def outcome(right: Array, spent: Spent, stop: NDArray[np.intp]) -> tuple[Array, Array, Array]:
    """Accuracy, cost and tokens over (problem, order) of stopping after `stop` samples."""
    at = stop[..., None]
    accuracy, cost, tokens = (np.take_along_axis(total, at, 2)[..., 0] for total in (right, spent.cost, spent.tokens))
    return accuracy, cost, tokens


def below(gains: Array, price: float) -> NDArray[np.intp]:
    """Samples after which what is left to gain is not worth the price; gains after 1, 2, ... samples."""
    enough = np.concatenate([gains <= price, np.ones((*gains.shape[:2], 1), dtype=bool)], axis=2)
    return np.asarray(enough.argmax(axis=2) + 1)


def cheapest_kept(lost: Array, cost: Array, margin: float, seed: int, *, folds: int, partitions: int) -> int:
    """The cheapest operating point within the margin, aimed high enough that the choice itself holds up.

    Choosing the cheapest of many that seem to keep the accuracy favours lucky ones. So the aim is raised
    until what was chosen on some of the problems is within the margin on the others, on average.

    Args:
        lost, cost: accuracy minus that of the aim, and cost, over (point, problem).
    """
    count = lost.shape[1]
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(count) % folds for _ in range(partitions)]
    masks = np.array([part == k for part in parts for k in range(folds)])
    sums, costs, sizes = lost @ masks.T, cost @ masks.T, masks.sum(axis=1)
    kept = (lost.sum(axis=1)[:, None] - sums) / (count - sizes)
    rest = cost.sum(axis=1)[:, None] - costs
    slack = margin
    for slack in np.arange(margin, -2 * margin - 1e-9, -max(margin, 1e-4) / 5):
        chosen = _cheapest(kept, rest, float(slack))
        if sums[chosen, np.arange(len(masks))].sum() / sizes.sum() >= -margin:
            break
    return int(_cheapest(lost.mean(axis=1)[:, None], cost.mean(axis=1)[:, None], float(slack))[0])


def _cheapest(lost: Array, cost: Array, slack: float) -> NDArray[np.intp]:
    """Of the points (rows), for each column: the cheapest that loses at most `slack`, else the most accurate."""
    enough = lost >= -slack
    cheapest = np.where(enough, cost, np.inf).argmin(axis=0)
    return np.asarray(np.where(enough.any(axis=0), cheapest, lost.argmax(axis=0)))
