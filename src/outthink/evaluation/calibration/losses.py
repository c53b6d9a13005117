"""What every arm loses and costs on each problem.

An arm is any way to answer: a fixed vote, a threshold, a learned rule at one price, a cascade. All of them are compared
in one matrix, paired problem by problem against what they are to match. Knows: the matrix, and parts of it. Does not
know what an arm is, how it was fitted, where its outcomes come from, or how one is chosen (`guarded`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Arm = TypeVar("Arm")


@dataclass(frozen=True, slots=True, eq=False)
class LossMatrix(Generic[Arm]):
    """What each arm loses and costs on each problem.

    Args:
        arms: what competes; the earlier of equals is chosen.
        problems: their names.
        losses: accuracy of what is to be matched minus the arm's, on the same problem: (arm, problem).
        costs: in one currency: (arm, problem).
    """

    arms: tuple[Arm, ...]
    problems: tuple[str, ...]
    losses: Array
    costs: Array

    @classmethod
    def of(cls, problems: Sequence[str], aim: Array, outcomes: Sequence[tuple[Arm, Array, Array]]) -> LossMatrix[Arm]:
        """From arms with their accuracy and cost on each problem.

        Args:
            aim: accuracy on each problem of what is to be matched.
        """
        arms, accuracy, costs = zip(*outcomes, strict=True)
        return cls(arms, tuple(problems), aim - np.array(accuracy), np.array(costs))

    def on(self, problems: Mask) -> LossMatrix[Arm]:
        """Some of the problems."""
        names = tuple(name for name, taken in zip(self.problems, problems, strict=True) if taken)
        return LossMatrix(self.arms, names, self.losses[:, problems], self.costs[:, problems])

    def only(self, places: Sequence[int]) -> LossMatrix[Arm]:
        """Some of the arms."""
        arms = tuple(self.arms[place] for place in places)
        return LossMatrix(arms, self.problems, self.losses[places], self.costs[places])

    @staticmethod
    def joined(parts: Sequence[LossMatrix[Any]]) -> LossMatrix[Any]:
        """The arms of several matrices of the same problems and the same aim."""
        arms = tuple(arm for part in parts for arm in part.arms)
        losses = np.concatenate([part.losses for part in parts])
        costs = np.concatenate([part.costs for part in parts])
        return LossMatrix(arms, parts[0].problems, losses, costs)

    def charged(self, price: float) -> LossMatrix[Arm]:
        """The same with costs in another currency, at so much a unit."""
        return LossMatrix(self.arms, self.problems, self.losses, self.costs * price)
