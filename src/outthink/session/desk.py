"""Reserves before a call, settles after it, so that parallel calls cannot overspend together.

Knows: one budget, the desks that enclose it, and what is reserved and spent. Does not know time
(seconds are a deadline, kept by the session) or what a call is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from outthink.core.errors import Unsupported
from outthink.core.receipt import Entry
from outthink.core.request import Budget, Currency
from outthink.economics.tariff import Tariff

SPENT: tuple[Currency, ...] = ("tokens", "usd", "joules")


@dataclass(slots=True)
class Reservation:
    """Upper bounds of one call; None where a currency is not bounded by anything known."""

    tokens: int
    usd: float | None
    joules: float | None


class Desk:
    """A budget's account. A call is charged to its desk and to every desk around it."""

    def __init__(self, budget: Budget, parent: Desk | None = None) -> None:
        self.budget = budget
        self.parent = parent
        self.spent = dict.fromkeys(SPENT, 0.0)
        self.reserved = dict.fromkeys(SPENT, 0.0)
        self.outstanding = 0
        self.refusal: tuple[Currency, Desk] | None = None
        limited = budget.tokens is not None or budget.usd is not None or budget.joules is not None
        self.unlimited: bool = not limited and (parent is None or parent.unlimited)

    def chain(self) -> Iterator[Desk]:
        """This desk and those around it, innermost first."""
        desk: Desk | None = self
        while desk is not None:
            yield desk
            desk = desk.parent

    def left(self, currency: Currency) -> float | None:
        """What this desk alone still allows, None if unlimited."""
        limit = self.budget.get(currency)
        return None if limit is None else limit - self.spent[currency] - self.reserved[currency]

    def admit(self, wanted: int, prompt: int, cap: int, floor: int, tariff: Tariff) -> tuple[int, int]:
        """How many of `wanted` calls may start now, and the max_tokens of each.

        Args:
            prompt: upper bound on a call's prompt tokens.
            cap: the most tokens a call may generate.
            floor: the least a call is worth starting with (min_tokens, docs/contracts.md).

        Returns (0, 0) and sets `refusal` (currency, desk) where not even one fits.
        """
        floor = min(floor, cap)
        limits = [
            (name, desk, left, *_linear(name, prompt, tariff))
            for desk in self.chain()
            for name in SPENT
            if (left := desk.left(name)) is not None
        ]
        for count in range(wanted, 0, -1):
            tokens = cap
            for name, desk, left, fixed, slope in limits:
                fits = cap if slope <= 0 else int((left / count - fixed) / slope)
                if left < fixed * count:
                    fits = -1  # not even the prompt
                if fits < floor:
                    self.refusal = name, desk
                tokens = min(tokens, fits)
            if tokens >= floor:
                return count, tokens
        return 0, 0

    def reserve(self, prompt: int, generated: int, tariff: Tariff) -> Reservation:
        """Set aside the upper bound of one call on this desk and all around it."""
        reservation = Reservation(
            prompt + generated, tariff.usd_bound(prompt, generated), tariff.joules_bound(prompt, generated)
        )
        for desk in self.chain():
            desk.outstanding += 1
            desk.reserved["tokens"] += reservation.tokens
            desk.reserved["usd"] += reservation.usd or 0.0
            desk.reserved["joules"] += reservation.joules or 0.0
        return reservation

    def settle(self, reservation: Reservation, entry: Entry | None) -> None:
        """Replace a reservation by what the entry says; unknown amounts are charged as reserved."""
        tokens: float = 0.0
        usd: float | None = 0.0
        joules: float | None = 0.0
        if entry is not None:
            tokens = reservation.tokens if entry.tokens is None else entry.tokens
            usd = reservation.usd if entry.usd is None else entry.usd
            joules = reservation.joules if entry.joules is None else entry.joules
        for desk in self.chain():
            desk.outstanding -= 1
            desk.reserved["tokens"] -= reservation.tokens
            desk.reserved["usd"] -= reservation.usd or 0.0
            desk.reserved["joules"] -= reservation.joules or 0.0
            desk.spent["tokens"] += tokens
            desk.spent["usd"] += usd or 0.0
            desk.spent["joules"] += joules or 0.0
            if desk.outstanding == 0:  # rounding must not accumulate over thousands of calls
                desk.reserved = dict.fromkeys(SPENT, 0.0)


def _linear(name: Currency, prompt: int, tariff: Tariff) -> tuple[float, float]:
    """Cost of a prompt and of each generated token in one currency, both from above."""
    if name == "tokens":
        return float(prompt), 1.0
    bound = tariff.usd_bound if name == "usd" else tariff.joules_bound
    fixed, more = bound(prompt, 0), bound(prompt, 1000)
    if fixed is None or more is None:
        raise Unsupported(f"budget {name}: model {tariff.model!r} cannot be bounded in it")  # `check` comes first
    return fixed, (more - fixed) / 1000


def check(budget: Budget, tariff: Tariff) -> None:
    """Refuse a budget in a currency that cannot be accounted for; Unsupported names the remedy."""
    if budget.usd is not None and tariff.usd_bound(1, 1) is None:
        raise Unsupported(
            f"budget usd: no price is known for model {tariff.model!r}; give one with --price IN,OUT "
            "(dollars per million tokens) or drop the dollar budget"
        )
    if budget.joules is not None and tariff.joules_bound(1, 1) is None:
        raise Unsupported(
            f"budget joules: model {tariff.model!r} has no energy meter and no bound on joules a token; "
            "give joules a token with --energy PROMPT,COMPLETION or drop the joule budget"
        )
