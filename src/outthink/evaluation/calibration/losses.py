"""What every arm loses and costs on each problem, and the operating point that is chosen from it.

An arm is any way to answer: a fixed vote, a threshold, a learned rule at one price, a cascade. All of them are compared
in one matrix, paired problem by problem against what they are to match, and one rule chooses among them. Knows: the
matrix, the cheapest arm within a margin, and when an arm may take another one's place. Does not know what an arm is,
how it was fitted, or where its outcomes come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from outthink.evaluation.rows import RESAMPLES, Difference, interval

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

    def beside(self, other: LossMatrix[Arm]) -> LossMatrix[Arm]:
        """These arms and those of another matrix of the same problems and the same aim."""
        losses, costs = np.concatenate([self.losses, other.losses]), np.concatenate([self.costs, other.costs])
        return LossMatrix((*self.arms, *other.arms), self.problems, losses, costs)

    def saving(self, place: int, other: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
        """Cost of an arm minus another one's, as a share of that one's mean, with its paired 95 % interval."""
        differences = (self.costs[place] - self.costs[other]) / self.costs[other].mean()
        return Difference(float(differences.mean()), *interval(differences, resamples=resamples, seed=seed))


def takes_place(matrix: LossMatrix[Arm], place: int, margin: float, saving: Difference) -> bool:
    """Whether an arm that costs more to have (a regression, a second model) takes a plainer one's place: it keeps the
    accuracy, and its saving over the other is beyond the paired interval."""
    return bool(matrix.losses[place].mean() <= margin and saving.high < 0)


def operating_point(
    matrix: LossMatrix[Arm], margin: float, seed: int = 0, *, folds: int = 0, partitions: int = 0
) -> int:
    """Place of the cheapest arm that loses at most the margin on average, else of the one that loses least.

    Choosing the cheapest of many that seem to keep the accuracy favours lucky ones. So where losses and choice are of
    the same problems the aim is raised until what was chosen on some of them is within the margin on the others, on
    average over so many random partitions into folds.
    """
    losses, costs, slack = matrix.losses, matrix.costs, margin
    if partitions:
        slack = _raised(losses, costs, margin, seed, folds, partitions)
    return int(_cheapest(losses.mean(axis=1)[:, None], costs.mean(axis=1)[:, None], slack)[0])


def _raised(losses: Array, costs: Array, margin: float, seed: int, folds: int, partitions: int) -> float:
    """What an arm may seem to lose, so that the chosen one loses at most the margin on other problems."""
    count = losses.shape[1]
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(count) % folds for _ in range(partitions)]
    masks = np.array([part == k for part in parts for k in range(folds)])
    lost, cost, sizes = losses @ masks.T, costs @ masks.T, masks.sum(axis=1)
    kept = (losses.sum(axis=1)[:, None] - lost) / (count - sizes)
    rest = costs.sum(axis=1)[:, None] - cost
    slack = margin
    # From the margin down to a gain of twice as much. A margin of 0 leaves nothing to step through: it stays alone.
    for step in np.arange(margin, -2 * margin - 1e-9, -max(margin, 1e-4) / 5):
        slack = float(step)
        chosen = _cheapest(kept, rest, slack)
        if lost[chosen, np.arange(len(masks))].sum() / sizes.sum() <= margin:
            break
    return slack


def _cheapest(losses: Array, costs: Array, slack: float) -> NDArray[np.intp]:
    """Of the arms (rows), for each column: the cheapest that loses at most `slack`, else the one that loses least."""
    enough = losses <= slack
    cheapest = np.where(enough, costs, np.inf).argmin(axis=0)
    return np.asarray(np.where(enough.any(axis=0), cheapest, losses.argmin(axis=0)))
