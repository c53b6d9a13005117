"""The first stage of a cascade over dealt samples: who leaves it at which threshold, and what it spent.

Knows: agreement, a lone sample's confidence, and which votes go along. Does not know second stages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outthink.evaluation.calibration.dealt import Array, Table
from outthink.evaluation.calibration.gain import Mask, scale_of, walk

NEVER = math.inf
TIES = (1e-6, 0.0)
"""Sway that does no more than break ties by confidence."""


@dataclass(frozen=True, slots=True)
class Exit:
    """A first stage at one threshold, over (problem, order): who leaves, whether rightly, and what it spent."""

    tau: float
    left: Mask
    right: Array
    spent: Array

    @classmethod
    def never(cls, shape: tuple[int, ...]) -> Exit:
        """No first stage."""
        return cls(NEVER, np.zeros(shape, dtype=bool), np.zeros(shape), np.zeros(shape))


def first_exits(table: Table, first: int, keep: float) -> list[Exit]:
    """The first stage's thresholds: every agreement it can have, or quantiles of one sample's confidence."""
    dealt = table.models[0]
    everyone = np.ones(len(table.names), dtype=bool)
    found = walk(table, 0, scale_of(dealt, everyone, TIES), TIES, depth=max(2, first))
    counts = leaders(table, 0, first)
    right, spent = found.right[..., first], dealt.spent()
    exits = []
    if first == 1:
        sure = np.where(dealt.codes[..., 0] >= 0, np.exp(np.nan_to_num(dealt.logprob[..., 0], nan=-np.inf)), 0.0)
        for tau in (float(np.quantile(sure, share)) for share in (0.5, 0.7, 0.8, 0.9, 0.95)):
            exits.append(Exit(tau, sure >= tau, right, spent[..., 1]))
    else:
        for votes in range(first // 2 + 1, first + 1):
            tau, stop = votes / first, np.full(right.shape, first)
            if not keep:  # what cannot agree any more is left at once, as Stage.lost says
                possible = counts + (first - np.arange(1, first + 1))
                lost = possible < votes
                stop = np.where(lost.any(axis=2), lost.argmax(axis=2) + 1, first)
            leaves = counts[..., -1] >= votes
            exits.append(Exit(tau, leaves, right, np.take_along_axis(spent, stop[..., None], 2)[..., 0]))
    if keep:
        exits.append(Exit(NEVER, np.zeros(right.shape, dtype=bool), right, spent[..., first]))
    return exits


def leaders(table: Table, place: int, n: int) -> NDArray[np.intp]:
    """Votes of the leading answer after 1 ... n samples, over (problem, order)."""
    codes = table.models[place].codes[..., :n]
    same = (codes[..., :, None] == codes[..., None, :]) & (codes >= 0)[..., :, None]
    return np.stack([same[..., : k + 1, : k + 1].sum(axis=-1).max(axis=-1) for k in range(n)], axis=-1)


def carried_votes(table: Table, first: int, keep: float) -> Array | None:
    """Weight that the first stage's answers take along, over (problem, order, answer); None for none."""
    if not first or not keep:
        return None
    rows, columns = table.grid
    votes = np.zeros((*rows.shape, table.right.shape[1]))
    for k in range(first):
        code = table.models[0].codes[:, :, k]
        readable = code >= 0
        votes[rows[readable], columns[readable], code[readable]] += keep
    return votes
