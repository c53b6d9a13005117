"""The append-only account of one request.

Knows: how counts become a priced entry. Does not know budgets or why a call was made.
"""

from __future__ import annotations

from outthink.core.receipt import Entry, Status
from outthink.economics.tariff import Tariff
from outthink.session.bounds import byte_bound
from outthink.session.running import Running


class Ledger:
    """Entries in the order in which their calls ended."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.notes: list[str] = []
        self.succeeded = 0
        self.failed = 0

    def note(self, text: str) -> None:
        """Remember something unusual for the receipt, once."""
        if text not in self.notes:
            self.notes.append(text)

    def cached(self, running: Running, model: str) -> None:
        """A response from the cache: an entry, and nothing spent."""
        self.entries.append(
            Entry(running.role, model, "cached", cached=True, seconds=0.0, flops=0.0, usd=0.0, joules=0.0)
        )

    def record(
        self,
        running: Running,
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
