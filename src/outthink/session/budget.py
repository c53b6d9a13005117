"""Reserves before a call, settles after it, so that parallel calls cannot overspend together.

Knows: one budget, the accounts that enclose it, what is reserved and spent, how long a prompt can be at
most, and how a call's counts become a priced entry. Does not know time (seconds are a deadline, kept by
the session) or what a call is for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from outthink.core.errors import Unsupported
from outthink.core.receipt import Entry, Status
from outthink.core.request import Budget, Currency
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call
from outthink.session.calls import CallReservation, RunningCall

SPENT: tuple[Currency, ...] = ("tokens", "usd", "joules")


class BudgetAccount:
    """A budget's account. A call is charged to it and to every account around it."""

    def __init__(self, budget: Budget, parent: BudgetAccount | None = None) -> None:
        self.budget = budget
        self.parent = parent
        self.spent = dict.fromkeys(SPENT, 0.0)
        self.reserved = dict.fromkeys(SPENT, 0.0)
        self.outstanding = 0
        self.refusal: tuple[Currency, BudgetAccount] | None = None
        limited = budget.tokens is not None or budget.usd is not None or budget.joules is not None
        self.unlimited: bool = not limited and (parent is None or parent.unlimited)

    def chain(self) -> Iterator[BudgetAccount]:
        """This account and those around it, innermost first."""
        account: BudgetAccount | None = self
        while account is not None:
            yield account
            account = account.parent

    def left(self, currency: Currency) -> float | None:
        """What this account alone still allows, None if unlimited."""
        limit = self.budget.get(currency)
        return None if limit is None else limit - self.spent[currency] - self.reserved[currency]

    def admit(self, wanted: int, prompt: int, cap: int, floor: int, tariff: Tariff) -> tuple[int, int]:
        """How many of `wanted` calls may start now, and the max_tokens of each.

        Args:
            prompt: upper bound on a call's prompt tokens.
            cap: the most tokens a call may generate.
            floor: the least a call is worth starting with (min_tokens, docs/contracts.md).

        Returns (0, 0) and sets `refusal` (currency, account) where not even one fits.
        """
        floor = min(floor, cap)
        limits = [
            (name, account, left, *_linear(name, prompt, tariff))
            for account in self.chain()
            for name in SPENT
            if (left := account.left(name)) is not None
        ]
        for count in range(wanted, 0, -1):
            tokens = cap
            for name, account, left, fixed, slope in limits:
                fits = cap if slope <= 0 else int((left / count - fixed) / slope)
                if left < fixed * count:
                    fits = -1  # not even the prompt
                if fits < floor:
                    self.refusal = name, account
                tokens = min(tokens, fits)
            if tokens >= floor:
                return count, tokens
        return 0, 0

    def reserve(self, prompt: int, generated: int, tariff: Tariff) -> CallReservation:
        """Set aside the upper bound of one call on this account and all around it."""
        reservation = CallReservation(
            prompt + generated, tariff.usd_bound(prompt, generated), tariff.joules_bound(prompt, generated)
        )
        for account in self.chain():
            account.outstanding += 1
            account.reserved["tokens"] += reservation.tokens
            account.reserved["usd"] += reservation.usd or 0.0
            account.reserved["joules"] += reservation.joules or 0.0
        return reservation

    def settle(self, reservation: CallReservation, entry: Entry | None) -> None:
        """Replace a reservation by what the entry says; unknown amounts are charged as reserved."""
        tokens: float = 0.0
        usd: float | None = 0.0
        joules: float | None = 0.0
        if entry is not None:
            tokens = reservation.tokens if entry.tokens is None else entry.tokens
            usd = reservation.usd if entry.usd is None else entry.usd
            joules = reservation.joules if entry.joules is None else entry.joules
        for account in self.chain():
            account.outstanding -= 1
            account.reserved["tokens"] -= reservation.tokens
            account.reserved["usd"] -= reservation.usd or 0.0
            account.reserved["joules"] -= reservation.joules or 0.0
            account.spent["tokens"] += tokens
            account.spent["usd"] += usd or 0.0
            account.spent["joules"] += joules or 0.0
            if account.outstanding == 0:  # rounding must not accumulate over thousands of calls
                account.reserved = dict.fromkeys(SPENT, 0.0)


def _linear(name: Currency, prompt: int, tariff: Tariff) -> tuple[float, float]:
    """Cost of a prompt and of each generated token in one currency, both from above."""
    if name == "tokens":
        return float(prompt), 1.0
    bound = tariff.usd_bound if name == "usd" else tariff.joules_bound
    fixed, more = bound(prompt, 0), bound(prompt, 1000)
    if fixed is None or more is None:
        raise Unsupported(f"budget {name}: model {tariff.model!r} cannot be bounded in it")  # see check_budget
    return fixed, (more - fixed) / 1000


def check_budget(budget: Budget, tariff: Tariff) -> None:
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


def byte_bound(call: Call) -> int:
    """UTF-8 bytes + 16 a message + 64 (docs/contracts.md, Budgets): no common tokeniser needs more."""
    size = len((call.prefix or "").encode())
    for message in call.messages:
        text = message.content if isinstance(message.content, str) else json.dumps(message.content, default=str)
        extra = json.dumps(dict(message.extra), default=str) if message.extra else ""
        size += len(text.encode()) + len(extra.encode()) + 16
    return size + 64


class EntryLog:
    """The append-only ledger of one request: entries in the order in which their calls ended."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.notes: list[str] = []
        self.succeeded = 0
        self.failed = 0

    def note(self, text: str) -> None:
        """Remember something unusual for the receipt, once."""
        if text not in self.notes:
            self.notes.append(text)

    def cached(self, running: RunningCall, model: str) -> None:
        """A response from the cache: an entry, and nothing spent."""
        self.entries.append(
            Entry(running.role, model, "cached", cached=True, seconds=0.0, flops=0.0, usd=0.0, joules=0.0)
        )

    def record(
        self,
        running: RunningCall,
        status: Status,
        tariff: Tariff,
        seconds: float,
        prompt: int | None,
        generated: int | None,
        prefix_cached: int | None = None,
        finish_reason: str | None = None,
        error: str | None = None,
    ) -> Entry:
        """Append what one call consumed; None counts stay None and mark the entry `estimated`."""
        whole = status in ("finished", "stopped")
        entry = Entry(
            running.role,
            tariff.model,
            status,
            prompt,
            generated if whole else 0,
            0 if whole else generated,
            prefix_cached,
            seconds,
        )
        if prompt is None or generated is None:
            entry.estimated = True
            read, cap = running.prompt_bound or byte_bound(running.call), running.call.sampling.max_tokens
            entry.reserved_tokens = read + cap
            entry.reserved_usd = tariff.usd_bound(read, cap)
            entry.reserved_joules = tariff.joules_bound(read, cap)
            entry.seen_tokens = running.seen
        else:
            entry.flops, entry.usd, entry.joules = tariff.charge(prompt, prefix_cached or 0, generated)
        entry.finish_reason = finish_reason
        entry.error = error
        self.entries.append(entry)
        return entry
