"""Test-time compute against a larger model. Knows Snell et al.'s exchange (arXiv 2408.03314, section 7)."""

from __future__ import annotations

import math

from outthink.core.errors import BadInput


def exchange_value(larger: float, ratio: float) -> float:
    """How many times its inference compute a model may spend to cost what one M times larger costs.

    Pre-training takes 6 N D_pre FLOPs and inference 2 N D_inf; both models are trained on the same
    tokens, so the small one has 6 (M - 1) N D_pre to spare: M + 3 (M - 1) / R.

    Args:
        larger: M, parameters of the large model over those of the small one; at least 1.
        ratio: R, inference tokens over pre-training tokens.
    """
    if not (math.isfinite(larger) and larger >= 1):
        raise BadInput("larger", larger, "is below 1", "give the ratio of parameters, large over small")
    if not (math.isfinite(ratio) and ratio > 0):
        raise BadInput("ratio", ratio, "is not positive", "give inference tokens over pre-training tokens")
    return larger + 3 * (larger - 1) / ratio
