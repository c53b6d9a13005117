"""Fits what going on with a vote still gains by gradient-boosted trees: a contender of auto.py.

Knows: scikit-learn's histogram trees on the terms of outthink.controller.policy.rules. Does not know prices.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from outthink.evaluation.calibration.losses import Array, Mask
from outthink.evaluation.calibration.votes import Walk

_PATHS = 4000
"""Orders times problems that are fitted on: more took longer and won nothing."""


class Boosted:
    """The regression on any part of the problems; all orders are predicted, _PATHS of them fitted on."""

    def __init__(self, found: Walk, *, seed: int = 0) -> None:
        self._terms, self._gains = found.terms.astype(np.float32), found.gains
        self._orders, self._seed = max(1, _PATHS // len(found.terms)), seed

    def gains_without(self, train: Mask, problems: Mask) -> Array:
        """Gains of `problems` as Walk.gains, by a fit on `train`."""
        rows, wanted = self._terms[train][:, : self._orders], self._gains[train][:, : self._orders]
        fitted = _trees(self._seed).fit(rows.reshape(-1, rows.shape[-1]), wanted.ravel())
        asked = self._terms[problems]
        return np.asarray(fitted.predict(asked.reshape(-1, asked.shape[-1])).reshape(asked.shape[:-1]), dtype=float)


def _trees(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=80,
        learning_rate=0.06,
        max_leaf_nodes=8,
        min_samples_leaf=200,
        l2_regularization=10.0,
        early_stopping=False,
        random_state=seed,
    )
