"""Percentile bootstrap over problems.

Knows: how to resample problems and read 95 % intervals of means. Does not know what the values
are; seeds are averaged per problem before they come here, since only problems are independent.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from outthink.core.errors import BadInput

Array = npt.NDArray[np.float64]
RESAMPLES = 2000
COVERAGE = 0.95
_CHUNK = 4_000_000  # drawn problems at a time: about 100 MB with their weights


def _weights(problems: int, resamples: int, seed: int) -> Iterator[Array]:
    """Blocks (problems, k) whose columns say how often a resample drew each problem, over `problems`."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // problems)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = rng.integers(problems, size=(count, problems))
        drawn += np.arange(count)[:, None] * problems
        counts = np.bincount(drawn.ravel(), minlength=count * problems).reshape(count, problems)
        yield counts.T / problems


def resampled_means(values: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Means of every row under the same resamples of the problems.

    Args:
        values: (rows, problems), finite.
        resamples: bootstrap samples.
        seed: of the resampling; equal seeds and numbers of problems give equal resamples.

    Returns:
        (rows, resamples). BadInput for no problems or a value that is not finite.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] == 0:
        raise BadInput("values", table.shape, "has no problems", "give an array (rows, problems)")
    if not np.isfinite(table).all():
        raise BadInput("values", "NaN or infinity", "cannot be resampled", "leave out rows with unknown values")
    means = np.empty((table.shape[0], resamples))
    done = 0
    for weights in _weights(table.shape[1], resamples, seed):
        np.matmul(table, weights, out=means[:, done : done + weights.shape[1]])
        done += weights.shape[1]
    return means


def intervals(values: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[Array, Array]:
    """95 % percentile intervals of the means of many rows (rows, problems): low (rows,), high (rows,)."""
    means = resampled_means(values, resamples=resamples, seed=seed)
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=1)
    # One problem, or a constant, has no spread; rounding in the product must not invent one.
    table = np.asarray(values, dtype=np.float64)
    constant = table.min(axis=1) == table.max(axis=1)
    return np.where(constant, table[:, 0], low), np.where(constant, table[:, 0], high)


def interval(values: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a mean over problems; values (problems,)."""
    low, high = intervals(np.atleast_2d(np.asarray(values, dtype=np.float64)), resamples=resamples, seed=seed)
    return float(low[0]), float(high[0])


def paired_interval(differences: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean difference; differences (problems,), both sides on the same problem."""
    return interval(differences, resamples=resamples, seed=seed)
