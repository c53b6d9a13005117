"""Thresholds whose risk on new problems is bounded: conformal risk control for a monotone loss of 0 or 1.

Knows: signals and losses of held-out problems, and a level. Does not know what is decided by the
threshold. Source: the least tau with (n * risk(tau) + 1) / (n + 1) <= alpha (Angelopoulos et al.,
arXiv 2208.02814, for losses up to 1); it bounds the mean risk over draws of the calibration problems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from outthink.core.errors import BadInput

NEVER = math.inf
"""A threshold that nothing passes."""


def least_threshold(signals: Sequence[float], losses: Sequence[bool], alpha: float) -> float:
    """The least threshold at which leaving early is safe enough; NEVER where none is.

    Args:
        signals: one a held-out problem; a problem is left early where its signal is at least the threshold.
        losses: whether leaving that problem early loses something (a wrong answer, or one that going
            on would have put right).
        alpha: share of all problems that may be lost so, on average.

    The threshold is 0 (always leave), one of the signals, or NEVER: between two signals nothing changes.
    Raises BadInput for an alpha that is no share, or signals that do not fit the losses.
    """
    if not 0 < alpha < 1:
        raise BadInput("alpha", alpha, "is no share of problems", "give a number between 0 and 1, for example 0.05")
    if len(signals) != len(losses) or not signals:
        raise BadInput("signals", len(signals), f"do not fit {len(losses)} losses", "give one of each a problem")
    if any(math.isnan(signal) for signal in signals):
        raise BadInput("signals", "nan", "is no signal", "leave that problem out")
    n = len(signals)
    allowed = alpha * (n + 1) - 1
    pairs = sorted(zip(signals, losses, strict=True), key=lambda pair: -pair[0])
    lost, threshold, i = 0, NEVER, 0
    if allowed < 0:
        return NEVER  # so few problems bound nothing
    while i < n:
        signal, j = pairs[i][0], i
        while j < n and pairs[j][0] == signal:
            lost += pairs[j][1]
            j += 1
        if lost > allowed + 1e-9:
            return threshold
        threshold, i = signal, j
    return min(0.0, threshold)


def risk(signals: Sequence[float], losses: Sequence[bool], threshold: float) -> float:
    """Share of all problems that are left at this threshold and lose by it."""
    return sum(loss for signal, loss in zip(signals, losses, strict=True) if signal >= threshold) / len(signals)
