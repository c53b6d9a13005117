"""Votes of many requests counted side by side, sample by sample: the same leaders, and the same winners of ties, as
one request after another has them.

Knows: weights, the two largest of them, and how a tie is broken. Does not know what makes a weight, which answer is
right, or when a vote ends; of one request `strategies.votes` knows the same.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


class VoteCounts:
    """Votes over (problem, order) for so many answers; `leader` and `second` are the largest weights, 0 for none."""

    def __init__(self, shape: tuple[int, int], answers: int) -> None:
        rows = shape[0] * shape[1]
        self._shape = shape
        self._weights = np.zeros((rows, answers))
        self._leader, self._second = np.zeros(rows), np.zeros(rows)
        self._place = np.zeros(rows, dtype=np.int64)  # the answer that first had the leader's weight
        self._added = 0
        # Of each answer's samples: how many, the first of them, their tokens, and the sum of their certainties in two
        # parts, so that it is rounded once like fsum's; a certainty that is unknown makes the sum so.
        self._count, self._first = (np.zeros(self._weights.shape, dtype=np.int32) for _ in range(2))
        self._tokens, self._sum, self._rest = (np.zeros(self._weights.shape) for _ in range(3))

    @property
    def leader(self) -> Array:
        """The largest weight."""
        return self._leader.reshape(self._shape)

    @property
    def second(self) -> Array:
        """The largest weight but one."""
        return self._second.reshape(self._shape)

    def copy(self) -> VoteCounts:
        """The same votes, to go on from."""
        return deepcopy(self)

    def add(self, codes: Codes, weights: Array, certainty: Array, tokens: Array) -> None:
        """Count one sample of every request; arrays over (problem, order).

        Args:
            codes: the answer's number, -1 where none could be read, which is no vote.
            weights: above 0.
            certainty: `Sample.certainty`, NaN where unknown.
        """
        flat = codes.ravel()
        rows = np.flatnonzero(flat >= 0)
        code = flat[rows]
        at = rows, code
        weight, sure = weights.ravel()[rows], certainty.ravel()[rows]
        self._first[at] = np.where(self._count[at] > 0, self._first[at], self._added)
        self._count[at] += 1
        self._tokens[at] += tokens.ravel()[rows]
        before = self._sum[at]
        total = before + sure
        part = total - before
        self._rest[at] += (before - (total - part)) + (sure - part)
        self._sum[at] = total
        self._weights[at] += weight
        self._added += 1
        self._rank(rows, code, self._weights[at])

    def _rank(self, rows: NDArray[np.intp], code: Codes, weight: Array) -> None:
        """Weights only rise, so the answer that was voted for is all that can change the first two."""
        leader, second, same = self._leader[rows], self._second[rows], self._place[rows] == code
        over = weight > leader
        self._second[rows] = np.where(same, second, np.where(over, leader, np.maximum(second, weight)))
        self._leader[rows] = np.where(over, weight, leader)
        self._place[rows] = np.where(over, code, self._place[rows])

    def winner(self) -> Codes:
        """The answer with the most weight, ties broken as `Votes` does; any where there is no vote."""
        chosen = self._place.copy()
        # Sums of the same weights in another order differ in rounding, which must not decide.
        least = self._leader - 1e-12 * self._leader
        rows = np.flatnonzero((self._second >= least) & (self._leader > 0))
        count = np.maximum(self._count[rows], 1)
        known = (self._sum[rows] + self._rest[rows]) / count
        strength = np.where(np.isnan(known), -np.inf, known), -self._tokens[rows] / count, -1.0 * self._first[rows]
        tied = self._weights[rows] >= least[rows, None]
        for values in strength:
            most = np.where(tied, values, -np.inf).max(axis=1, keepdims=True)
            tied &= values == most
        chosen[rows] = tied.argmax(axis=1)
        return chosen.reshape(self._shape)
