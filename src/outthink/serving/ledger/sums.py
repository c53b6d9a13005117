"""Sums over requests in which unknown parts are counted. Knows addition; does not know what is grouped or why."""

from __future__ import annotations

from typing import NamedTuple

from outthink.serving.ledger.amounts import Amounts, dollars
from outthink.serving.protocols import RequestRecord, Spend


class Sums:
    """A growing sum; as a row of the `spend` table by `row`."""

    __slots__ = ("estimated", "joules", "nanousd", "requests", "seconds", "tokens", "unknown")

    def __init__(self) -> None:
        self.requests = self.estimated = self.tokens = self.nanousd = 0
        self.seconds = self.joules = 0.0
        self.unknown = [0, 0, 0]

    def add(self, record: RequestRecord, sign: int = 1) -> None:
        """Count a request; with sign -1 take it out again."""
        self.requests += sign
        self.estimated += sign * record.estimated
        self.seconds += sign * record.seconds
        known = Amounts.of(record.tokens, record.usd)
        self.tokens += sign * known.tokens
        self.nanousd += sign * known.nanousd
        self.unknown[0] += sign * (record.tokens is None)
        self.unknown[1] += sign * (record.usd is None)
        if record.joules is None:
            self.unknown[2] += sign
        else:
            self.joules += sign * record.joules

    def row(self) -> SumsRow:
        """The columns of the `spend` table, in its order."""
        return SumsRow(
            self.requests, self.estimated, self.seconds, self.tokens, self.nanousd, self.joules, *self.unknown
        )

    def spend(self, group: str) -> Spend:
        """What the group spent."""
        return self.row().spend(group)


class SumsRow(NamedTuple):
    """The sums as they are stored."""

    requests: int
    estimated: int
    seconds: float
    tokens: int
    nanousd: int
    joules: float
    unknown_tokens: int
    unknown_usd: int
    unknown_joules: int

    def spend(self, group: str) -> Spend:
        """What the group spent."""
        usd = dollars(self.nanousd)
        return Spend(
            group,
            self.requests,
            self.estimated,
            self.seconds,
            None if self.unknown_tokens else self.tokens,
            self.tokens,
            self.unknown_tokens,
            None if self.unknown_usd else usd,
            usd,
            self.unknown_usd,
            None if self.unknown_joules else self.joules,
            self.joules,
            self.unknown_joules,
        )
