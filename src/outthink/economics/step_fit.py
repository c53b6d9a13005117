"""Fits the cost of a server's step to measured ones: non-negative least squares on relative errors.

Knows which columns a table of steps has, that timings have a heavy tail, and that what did not vary cannot be told
apart from what is always there. Does not know where the steps were measured, or what becomes of the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.core.errors import BadInput

Floats = NDArray[np.float64]
COLUMNS = ("sequences", "contexts", "prefill", "cost")
_ROUNDS = 30
_HUBER = 1.345
"""Spreads beyond which a row counts less: 95 % as exact as least squares where errors are normal (Huber)."""
_NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedSteps:
    """What a fit says: a step profile's fields of these names, and the median relative error."""

    base: tuple[tuple[float, float], ...]
    per_sequence: float
    per_context: float
    per_prefill: float
    error: float


def fit_steps(rows: ArrayLike, buckets: Sequence[float] = ()) -> FittedSteps:
    """The costs of a step's parts, none below 0.

    Args:
        rows: one a measured step, its columns `COLUMNS`.
        buckets: tokens at which the fixed part of the cost may rise, ascending: sizes up to which a server pads a
            batch (CUDA graphs). None: it is the same in every step.

    A column that does not vary gets 0, and so does a bucket at whose edge nothing was measured on both sides. Errors
    are relative to the larger of fitted and measured cost, and rows far off count less. Raises BadInput for a table of
    another shape, for numbers that are not finite or below 0, a cost of 0, and fewer rows than unknowns.
    """
    table = _checked(rows)
    edges = np.asarray(buckets, float)
    if not np.all(np.isfinite(edges)) or np.any(np.diff(edges) <= 0):
        raise BadInput("buckets", list(buckets), "do not ascend", "give sizes of batches, smallest first")
    features, cost = table[:, :3], table[:, 3]
    tokens = features[:, 0] + features[:, 2]
    # A rise at each edge instead of a level between two: then a larger batch never costs less.
    rises = (tokens[:, None] > edges).astype(float)
    parts = np.hstack([np.ones((len(table), 1)), rises, features])
    varies = np.ptp(parts, axis=0) > 0
    varies[0] = True
    if len(table) < varies.sum():
        problem = f"are fewer than the {varies.sum()} unknowns"
        raise BadInput("rows", len(table), problem, "measure more steps, or give fewer buckets")
    found = np.zeros(parts.shape[1])
    found[varies] = _robust(parts[:, varies], cost)
    levels = np.cumsum(found[: 1 + len(edges)])
    slopes = [float(value) for value in found[1 + len(edges) :]]
    base = [(0.0, float(levels[0]))]
    for edge, below, above in zip(edges, levels, levels[1:], strict=False):
        if above > below:
            base += [(float(edge), float(below)), (float(edge), float(above))]
    return FittedSteps(
        base=tuple(base),
        per_sequence=slopes[0],
        per_context=slopes[1],
        per_prefill=slopes[2],
        error=float(np.median(np.abs(parts @ found / cost - 1))),
    )


def _checked(rows: ArrayLike) -> Floats:
    try:
        table = np.asarray(rows, float)
    except (TypeError, ValueError):
        raise BadInput("rows", type(rows).__name__, "are no table of numbers", f"give {', '.join(COLUMNS)}") from None
    if table.ndim != 2 or table.shape[1] != len(COLUMNS):
        raise BadInput("rows", list(table.shape), "are no table of four columns", f"give {', '.join(COLUMNS)}")
    wrong = ~np.isfinite(table) | (table < 0)
    wrong[:, 3] |= table[:, 3] == 0
    for row, column in np.argwhere(wrong)[:1]:
        value = float(table[row, column])
        raise BadInput(f"rows[{row}] {COLUMNS[column]}", value, "cannot be", "give what was measured, or drop the row")
    return table


def _robust(parts: Floats, cost: Floats) -> Floats:
    """Costs of the parts: least squares of relative errors, again and again with rows far off weighing less."""
    weights, scale = np.ones(len(cost)), cost
    found = np.zeros(parts.shape[1])
    for _ in range(_ROUNDS):
        root = np.sqrt(weights) / scale
        before, found = found, nonnegative(parts * root[:, None], cost * root)
        if np.allclose(before, found, rtol=1e-9, atol=0):
            break
        # Relative to the larger of the two: over a cost near 0 alone, one row would outweigh all the others.
        scale = np.maximum(cost, parts @ found)
        off = np.abs(parts @ found - cost) / scale
        limit = _HUBER * _NORMAL * float(np.median(off)) + 1e-12
        weights = limit / np.maximum(off, limit)
    return found


def nonnegative(matrix: Floats, wanted: Floats) -> Floats:
    """The x >= 0 that makes |matrix x - wanted| least (Lawson and Hanson's active set)."""
    size = np.linalg.norm(matrix, axis=0)
    size[size == 0] = 1
    scaled = matrix / size
    x: Floats = np.zeros(matrix.shape[1])
    free = np.zeros(len(x), bool)
    for _ in range(3 * len(x)):
        gradient = scaled.T @ (wanted - scaled @ x)
        gradient[free] = -np.inf
        best = int(np.argmax(gradient))
        if gradient[best] <= 1e-12 * float(np.linalg.norm(wanted)):
            break
        free[best] = True
        while free.any():
            trial = np.zeros(len(x))
            trial[free] = np.linalg.lstsq(scaled[:, free], wanted)[0]
            below = free & (trial <= 0)
            if not below.any():
                x = trial
                break
            # As far towards the trial as none falls below 0; what comes to 0 stays there.
            x += float(np.min(x[below] / (x[below] - trial[below]))) * (trial - x)
            free &= ~(below & (x <= 1e-15))
            x[~free] = 0
    answer: Floats = x / size
    return answer
