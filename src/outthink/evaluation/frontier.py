"""Self-consistency as a curve of accuracy over tokens or FLOPs, and the distance of a strategy from it.

Knows: interpolation between the rungs of the ladder and paired differences. Does not know how the
accuracies were measured, or any strategy but the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outthink.core.errors import BadInput
from outthink.evaluation.bootstrap import RESAMPLES, Array, intervals

_NEAR = 1e-9  # relative: the same samples summed in another order are still the same tokens


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy of a row minus that of self-consistency at equal cost, with a 95 % interval."""

    value: float
    low: float
    high: float

    def columns(self, name: str = "difference") -> dict[str, float]:
        """The three columns of a row of `compare`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def columns(name: str, found: Difference | None) -> dict[str, float | None]:
    """The three columns of a row under a name, null where there is nothing to compare with."""
    if found is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {**found.columns(name)}


class Frontier:
    """Self-consistency over its ladder.

    Args:
        tokens: (rungs,) mean generated tokens (or whatever is to be equal) per problem, in any order.
        accuracy: (rungs, problems), each the mean over seeds; BadInput if the shapes disagree.
    """

    def __init__(self, tokens: npt.ArrayLike, accuracy: npt.ArrayLike) -> None:
        self.tokens: Array = np.asarray(tokens, dtype=np.float64)
        self.accuracy: Array = np.asarray(accuracy, dtype=np.float64)
        if self.accuracy.ndim != 2 or self.tokens.shape != self.accuracy.shape[:1] or not self.tokens.size:
            raise BadInput("rungs", self.accuracy.shape, "does not fit the tokens", "give one row a rung")
        order = np.argsort(self.tokens, kind="stable")
        self.tokens, self.accuracy = self.tokens[order], self.accuracy[order]

    def at(self, tokens: float) -> Array | None:
        """Accuracy per problem (problems,) at a number of tokens, linear between the two neighbouring
        rungs; None outside their range and for NaN, where there is nothing to compare with."""
        first, last = self.tokens[0], self.tokens[-1]
        if not first * (1 - _NEAR) <= tokens <= last * (1 + _NEAR):
            return None
        right = int(np.searchsorted(self.tokens, tokens))
        if right == 0 or right == len(self.tokens):
            edge: Array = self.accuracy[0 if right == 0 else -1]
            return edge
        left = right - 1
        share = (tokens - self.tokens[left]) / (self.tokens[right] - self.tokens[left])
        between: Array = (1 - share) * self.accuracy[left] + share * self.accuracy[right]
        return between

    def differences(
        self, tokens: Sequence[float], accuracy: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
    ) -> list[Difference | None]:
        """Paired differences of many rows, under the same resamples of the problems.

        Args:
            tokens: (rows,) mean generated tokens per problem.
            accuracy: (rows, problems), the problems in the order of the rungs'.

        Returns:
            One Difference a row, None for a row outside the token range of the ladder.
        """
        rows = np.asarray(accuracy, dtype=np.float64)
        if rows.shape != (len(tokens), self.accuracy.shape[1]):
            raise BadInput("rows", rows.shape, "does not fit the ladder", "give the same problems in the same order")
        baselines = [self.at(value) for value in tokens]
        inside = [index for index, baseline in enumerate(baselines) if baseline is not None]
        found: list[Difference | None] = [None] * len(tokens)
        if not inside:
            return found
        paired = np.stack([rows[index] - baselines[index] for index in inside])
        low, high = intervals(paired, resamples=resamples, seed=seed)
        for place, index in enumerate(inside):
            found[index] = Difference(float(paired[place].mean()), float(low[place]), float(high[place]))
        return found

    def difference(
        self, tokens: float, accuracy: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
    ) -> Difference | None:
        """Paired difference of one row; accuracy (problems,)."""
        return self.differences([tokens], np.atleast_2d(np.asarray(accuracy)), resamples=resamples, seed=seed)[0]
