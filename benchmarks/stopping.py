"""What a fitted stopping rule must be compared with: rules as published, trees on the same terms, chance, an oracle.

Knows: how each stops on dealt samples, and what it then loses and spends. Does not know how reliable a choice is
(`promised`), files, sets or targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outthink.core.sample import Sample
from outthink.engines.recorded import Recorded
from outthink.evaluation.calibration.competing import PRICES
from outthink.evaluation.calibration.losses import Array, LossMatrix, Mask
from outthink.evaluation.calibration.votes import EQUAL, SWAYS, Table, Walk, after, below, certainty, reached, walk
from promised import TestedMatrix

PUBLISHED = 0.95
"""Adaptive-consistency's threshold as published (Aggarwal et al. 2023)."""
WINDOW = 5
"""ESC's window (Li et al. 2024)."""
_PATHS = 4000
"""Orders times problems that trees are fitted on: more took longer and won nothing."""
Fold = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Totals:
    """Generated tokens, and those with prompts, after 0, 1, ... samples: (problem, order, samples + 1)."""

    tokens: Array
    charged: Array

    @classmethod
    def of(cls, samples: Table) -> Totals:
        """Of a table's first model."""
        model = samples.models[0]
        prompts = model.prompt[:, None, None] * np.arange(model.tokens.shape[2] + 1)
        tokens = np.concatenate([np.zeros((*model.tokens.shape[:2], 1)), np.cumsum(model.tokens, axis=2)], axis=2)
        return cls(tokens, tokens + prompts)


def esc_after(codes: NDArray[np.int64]) -> NDArray[np.intp]:
    """Samples after which a whole window of ESC agrees."""
    problems, orders, n = codes.shape
    stop = np.full((problems, orders), n)
    for end in range(WINDOW * (n // WINDOW), 0, -WINDOW):
        window = codes[..., end - WINDOW : end]
        agreed = (window == window[..., :1]).all(axis=2) & (window[..., 0] >= 0)
        stop[agreed] = end
    return stop


def first_right(right: Array) -> NDArray[np.intp]:
    """Where one who knows the answers stops: at the first sample after which the leader is right, at once where it
    never is.

    Args:
        right: whether the winner is right after 0, 1, ... samples.
    """
    hits = right[..., 1:] > 0
    return np.where(hits.any(axis=2), hits.argmax(axis=2) + 1, 1)


def at_random(right: Array, tokens: Array, spent: float) -> tuple[Array, Array]:
    """Stops after each sample with the same chance, at this mean of tokens: accuracy and tokens in expectation over
    (problem, order). A mean outside of what one and all samples take is the nearer of the two."""
    depth = right.shape[2] - 1

    def mean(values: Array, chance: float) -> Array:
        still = (1 - chance) ** np.arange(depth)
        share = still * chance
        share[-1] = still[-1]
        return np.asarray((values[..., 1:] * share).sum(axis=2))

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(tokens, middle).mean() > spent else (low, middle)
    return mean(right, high), mean(tokens, high)


def unlearned(samples: Table, share: float) -> Iterator[dict[str, Any]]:
    """Rows of what nothing is fitted for: share of the whole vote's generated tokens, and mean loss.

    Args:
        share: at which chance stops.
    """
    votes, totals = walk(samples, 0, EQUAL, depth=samples.models[0].tokens.shape[2]), Totals.of(samples)
    aim, whole = votes.right[..., -1].mean(), totals.tokens[..., -1].mean()
    ways = {
        f"adaptive-consistency at {PUBLISHED}": reached(certainty(votes), PUBLISHED),
        "ESC": esc_after(samples.models[0].codes),
        "oracle: stops when right": first_right(votes.right),
    }
    found = {way: (after(votes.right, stop), after(totals.tokens, stop)) for way, stop in ways.items()}
    found["random stopping at that share"] = at_random(votes.right, totals.tokens, share * whole)
    for way, (accuracy, tokens) in found.items():
        yield {"way": way, "share": float(tokens.mean() / whole), "loss": float(aim - accuracy.mean())}


class Learner(Protocol):
    """A regression of what going on still gains, on any part of the problems."""

    def gains_without(self, train: Mask, problems: Mask) -> Array:
        """Gains of `problems` as Walk.gains, predicted by a fit on `train`."""
        ...


class BoostedTrees:
    """Gradient-boosted trees on the terms of the linear gain (`controller.policy.rules`)."""

    def __init__(self, votes: Walk, *, seed: int = 0) -> None:
        self._terms, self._gains = votes.terms.astype(np.float32), votes.gains
        self._orders, self._seed = max(1, _PATHS // len(votes.terms)), seed

    def gains_without(self, train: Mask, problems: Mask) -> Array:
        """Of `problems` by trees that are fitted on some orders of `train`."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        trees = HistGradientBoostingRegressor(
            max_iter=80,
            learning_rate=0.06,
            max_leaf_nodes=8,
            min_samples_leaf=200,
            l2_regularization=10.0,
            early_stopping=False,
            random_state=self._seed,
        )
        rows, wanted = self._terms[train][:, : self._orders], self._gains[train][:, : self._orders]
        trees.fit(rows.reshape(-1, rows.shape[-1]), wanted.ravel())
        asked = self._terms[problems]
        return np.asarray(trees.predict(asked.reshape(-1, asked.shape[-1])).reshape(asked.shape[:-1]), dtype=float)


def crossed(learner: Learner, fold: Fold) -> Array:
    """Gains of all problems, each by a fit on the other folds."""
    parts = [(fold == k, learner.gains_without(fold != k, fold == k)) for k in range(int(fold.max()) + 1)]
    gains = np.zeros((len(fold), *parts[0][1].shape[1:]))
    for mask, part in parts:
        gains[mask] = part
    return gains


def with_trees(samples: Table, whole: TestedMatrix, folds: int) -> TestedMatrix:
    """Trees in the place of the linear gain: the same votes, terms, prices and folds."""
    fold, totals = np.random.default_rng(1).permutation(len(samples.names)) % folds, Totals.of(samples)
    tried, shown = [], []
    for sway in SWAYS:
        votes = walk(samples, 0, sway, depth=samples.models[0].tokens.shape[2])
        gains = crossed(BoostedTrees(votes), fold)
        for price in PRICES:
            stop = below(gains, price)
            accuracy, cost = (after(values, stop).mean(axis=1) for values in (votes.right, totals.charged))
            tried.append(((sway, price), accuracy, cost))
            shown.append(after(totals.tokens, stop).mean(axis=1))
    base = whole.only(lambda arm: False)
    aim = walk(samples, 0, EQUAL, depth=samples.models[0].tokens.shape[2]).right[..., -1].mean(axis=1)
    matrix = LossMatrix.joined([base.matrix, LossMatrix.of(samples.names, aim, tried)])
    return TestedMatrix(matrix, 0, np.concatenate([base.shown, np.array(shown)]), whole.allowed)


def in_orders(problem: Recorded, orders: int) -> list[list[Sample]]:
    """The problem's samples in the orders of replay."""
    return [[problem.sampled[place] for place in problem.order(seed)] for seed in range(orders)]
