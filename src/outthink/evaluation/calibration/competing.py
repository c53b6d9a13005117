"""The stopping rules that compete at one size, each with where it stops in every order of every problem.

Thresholds on equal votes learn nothing. The linear gain (`controller.policy.rules`) is learned for several vote
weights, and stands at several prices; a problem's own gold answers never decide where it stops there. Knows: what
competes, and folds. Does not know how one is chosen, what a margin is, or what a policy says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from outthink.controller.cascade import StageRule
from outthink.controller.policy.judging import Judging
from outthink.controller.policy.rules import Adaptive, Fixed, LinearGain, Sway
from outthink.evaluation.calibration.losses import Array, Mask
from outthink.evaluation.calibration.votes import (
    EQUAL,
    SWAYS,
    Ridge,
    Table,
    after,
    below,
    certainty,
    reached,
    walk,
)

THRESHOLDS = (0.6, 0.7, 0.75, 0.8, *(share / 100 for share in range(84, 99)), 0.99, 0.995, 0.999)
"""Of adaptive-consistency, close together around 0.88, which loses 0.3 to 0.4 points on all recorded sets."""
PRICES = tuple(float(price) for price in np.geomspace(2e-3, 0.15, 32))
"""Of the linear gain: from nearly the whole vote's accuracy to what a few samples give."""
FEW = 100
"""Problems below which nothing is learned."""
LEAST = 4
"""Sizes below this are settled before anything can be learned."""
Part = TypeVar("Part")
Result = TypeVar("Result")


def on_all_cores(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """What comes of each part, in order, by threads: nearly all of the work is on arrays, which need no lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, parts))


@dataclass(frozen=True, slots=True, eq=False)
class RuleOutcome:
    """A rule on some problems, over (problem, order): the samples it stops after, and whether it is right then."""

    rule: StageRule
    stop: NDArray[np.intp]
    right: Array

    @classmethod
    def of(cls, rule: StageRule, votes: Array, stop: NDArray[np.intp]) -> RuleOutcome:
        """From whether the winner is right after 0, 1, ... samples."""
        return cls(rule, stop, after(votes, stop))


class CompetingRules:
    """All rules of at most n samples on a table's first model.

    They come in the same order for all problems and for any part of them, so that one is known by its place.

    Args:
        judged: how a verifier's scores may weigh; rules that are learned on such votes come last.
    """

    def __init__(self, table: Table, n: int, judged: Sequence[tuple[Sway, Judging]] = ()) -> None:
        self._n = n
        self.plain = walk(table, 0, EQUAL, depth=max(n, 2))
        self.learns = n >= LEAST and len(table.names) >= FEW
        weights = [*((sway, None) for sway in SWAYS), *judged] if self.learns else []
        walks = on_all_cores(lambda way: walk(table, 0, way[0], depth=n, judging=way[1]), weights)
        self._learned = list(zip(walks, on_all_cores(Ridge, walks), strict=True))

    @property
    def aim(self) -> Array:
        """Accuracy of the whole vote on each problem: that of self-consistency."""
        return np.asarray(self.plain.right[..., self._n].mean(axis=1))

    def crossed(self, problems: Mask, fold: NDArray[np.int64], *, judged: bool = False) -> Iterator[RuleOutcome]:
        """Rules for these problems: fitted on all of them, but stopping in each of them as fitted on the other folds.

        Args:
            fold: of each of these problems, from 0.
            judged: with those that a verifier is needed for.
        """
        return self._outcomes(problems, problems, fold, judged)

    def held_out(self, problems: Mask, others: Mask, *, judged: bool = False) -> Iterator[RuleOutcome]:
        """Rules fitted on some problems, stopping in others."""
        return self._outcomes(problems, others, None, judged)

    def _outcomes(
        self, fitted: Mask, problems: Mask, fold: NDArray[np.int64] | None, judged: bool
    ) -> Iterator[RuleOutcome]:
        right = self.plain.right[problems]
        yield RuleOutcome.of(Fixed(), right, np.full(right.shape[:2], self._n))
        certain = certainty(self.plain)[problems][..., : self._n]
        for limit in THRESHOLDS if self._n > 1 else ():
            yield RuleOutcome.of(Adaptive(limit), right, reached(certain, limit))
        for found, ridge in self._learned:
            if found.judging is not None and not judged:
                continue
            if fold is None:
                known = ridge.fit(fitted)
                gains = ridge.gains(known, problems)
            else:
                known, gains = ridge.crossed(problems, fold)
            right = found.right[problems]
            rule = LinearGain(found.scale, self._n, found.sway, tuple(known.tolist()), PRICES[0], found.judging)
            for price in PRICES:
                yield RuleOutcome.of(replace(rule, price=price), right, below(gains, price))
