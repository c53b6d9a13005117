"""Folds and groups by the text of the prompt.

Knows: that equal prompts must lie on one side of every split. Does not know what is trained on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from outthink.controller.router.folder import prompt_hash
from outthink.core.errors import BadInput
from outthink.evaluation.routing.data import Ints


def groups(prompts: Sequence[str]) -> Ints:
    """Number of the group of each prompt, from 0 in order of appearance; equal prompts share one.

    Prompts are equal when they differ in case and spaces only, as everywhere in routers.
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(prompt_hash(prompt), len(numbers)) for prompt in prompts], dtype=np.int64)


def fold_of(group: Ints, folds: int, seed: int) -> Ints:
    """Fold of each row: groups are shuffled and dealt out, so folds differ by one group at most.

    Raises BadInput for fewer than two folds or fewer groups than folds.
    """
    count = int(group.max()) + 1
    if folds < 2:
        raise BadInput("--folds", folds, "is below 2", "give at least 2")
    if count < folds:
        raise BadInput("data", count, f"different prompts cannot fill {folds} folds", "give more rows")
    dealt = np.random.default_rng(seed).permutation(count) % folds
    return np.asarray(dealt[group], dtype=np.int64)
