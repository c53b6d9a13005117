"""Amounts that are charged, as whole numbers.

Knows: how dollars become billionths, so that sums are exact in every order and in every database, and
what a request is charged where its spend is not known.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from outthink.core.request import Budget
from outthink.serving.protocols import RequestRecord

_NANO = 1_000_000_000
_MOST_TOKENS, _MOST_NANO = 1 << 50, 1 << 58
"""No request is charged more (10^15 tokens, 288 million dollars), so that sums stay within 64 bits."""
_UNLIMITED = 1 << 62


class Amounts(NamedTuple):
    """Tokens and billionths of a dollar."""

    tokens: int
    nanousd: int

    @classmethod
    def of(cls, tokens: int | None, usd: float | None) -> Amounts:
        """Of one request; what is not known takes nothing."""
        return cls(
            0 if tokens is None else min(max(tokens, 0), _MOST_TOKENS),
            0 if usd is None else min(math.ceil(_nano(usd)), _MOST_NANO),
        )

    @classmethod
    def limits(cls, budget: Budget) -> Amounts:
        """A budget. Amounts are rounded up and limits down, so what was granted is never exceeded."""
        return cls(
            _UNLIMITED if budget.tokens is None else min(budget.tokens, _MOST_TOKENS - 1),
            _UNLIMITED if budget.usd is None else min(math.floor(_nano(budget.usd)), _MOST_NANO - 1),
        )


def _nano(usd: float) -> float:
    return round(min(max(usd, 0.0), 1e9) * _NANO, 3)  # 0.1 * 3 is three times 0.1, not a little more


def dollars(amount: int) -> float:
    """Billionths in dollars."""
    return amount / _NANO


def charged(record: RequestRecord, reserved: Amounts | None) -> Amounts:
    """What a request is charged: its spend, else its upper bound, else what was reserved for it."""
    tokens = record.tokens if record.tokens is not None else record.at_most_tokens
    usd = record.usd if record.usd is not None else record.at_most_usd
    known = Amounts.of(tokens, usd)
    if reserved is None:
        return known
    return Amounts(
        known.tokens if tokens is not None else reserved.tokens, known.nanousd if usd is not None else reserved.nanousd
    )
