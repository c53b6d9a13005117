"""Which examples make up each optimiser step.

Knows: token budgets, sorting by length and problems that must stay together; the same seed gives
the same plan, so that a killed run goes on in the middle of it. Does not know what a token means.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from outthink.core.errors import BadInput

Ints = npt.NDArray[np.int64]


def micro_batches(lengths: Ints, budget: int, groups: Ints | None = None, order: Ints | None = None) -> list[Ints]:
    """Examples in batches of at most `budget` padded tokens, sorted by length so that little is padding.

    Args:
        groups: examples with the same number stay in one batch, which then may exceed the budget alone.
        order: breaks ties of length; a random one makes batches differ from epoch to epoch.
    """
    if budget < 1:
        raise BadInput("--batch-tokens", budget, "is below 1", "give the tokens of a batch")
    count = len(lengths)
    names = np.arange(count) if groups is None else groups
    order = np.arange(count) if order is None else order
    longest = np.zeros(int(names.max()) + 1 if count else 0, np.int64)
    np.maximum.at(longest, names, lengths)
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    first = np.full(len(longest), count, np.int64)
    np.minimum.at(first, names, rank)
    ordered = np.lexsort((rank, first[names], longest[names]))
    batches: list[Ints] = []
    start = 0
    cuts = np.flatnonzero(np.diff(names[ordered])) + 1
    edge = 0
    for stop in [*cuts.tolist(), count]:  # whole groups join the batch while it fits; the last one is the longest
        width = int(longest[names[ordered[stop - 1]]]) if stop else 0
        if edge > start and (stop - start) * width > budget:
            batches.append(ordered[start:edge])
            start = edge
        edge = stop
    if count > start:
        batches.append(ordered[start:])
    return batches


def epoch_plan(
    lengths: Ints, *, tokens: int, micro: int, seed: int, epoch: int, groups: Ints | None = None
) -> list[list[Ints]]:
    """Optimiser steps of one epoch, each a list of micro-batches: about `tokens` padded tokens a step.

    Args:
        tokens: of one optimiser step.
        micro: of one forward pass, at most `tokens`.
    """
    rng = np.random.default_rng([seed, epoch])
    parts = micro_batches(lengths, min(micro, tokens), groups, rng.permutation(len(lengths)))
    sizes = [int(lengths[part].max()) * len(part) for part in parts]
    steps: list[list[Ints]] = []
    filled = tokens
    for place in rng.permutation(len(parts)).tolist():
        if filled + sizes[place] > tokens and (filled >= tokens or filled > tokens - sizes[place] // 2):
            steps.append([])
            filled = 0
        steps[-1].append(parts[place])
        filled += sizes[place]
    return steps
