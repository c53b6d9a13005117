"""Everything that one request spent. Derived from ledger entries; unknown parts stay unknown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from outthink.core.entry import Entry

_SUMS = ("tokens", "seconds", "usd", "joules", "flops")


@dataclass(frozen=True, slots=True)
class Total:
    """A sum over entries: `value` is None where a part is unknown, between `known` and `at_most`."""

    value: float | None
    known: float
    at_most: float | None


def total(
    entries: Sequence[Entry],
    exact: Callable[[Entry], float | None],
    lower: Callable[[Entry], float],
    upper: Callable[[Entry], float | None],
) -> Total:
    """Add up one quantity; one unknown entry makes the value unknown, never zero."""
    known, at_most, complete = 0.0, 0.0, True
    bounded = True
    for entry in entries:
        value = exact(entry)
        if value is not None:
            known += value
            at_most += value
            continue
        complete = False
        known += lower(entry)
        bound = upper(entry)
        if bound is None:
            bounded = False
        else:
            at_most += bound
    return Total(known if complete else None, known, at_most if bounded else None)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The ledger of one request, its wall-clock `seconds` and a note of what was unusual."""

    entries: tuple[Entry, ...]
    elapsed: float
    notes: tuple[str, ...] = ()

    def total(self, currency: str) -> Total:
        """Sum of `tokens`, `usd`, `joules` or `flops`; `seconds` is the elapsed wall-clock."""
        if currency == "seconds":
            return Total(self.elapsed, self.elapsed, self.elapsed)
        if currency == "tokens":
            return total(self.entries, lambda e: e.tokens, lambda e: e.known_tokens, lambda e: e.reserved_tokens)
        if currency == "flops":
            return total(self.entries, lambda e: e.flops, lambda e: 0.0, lambda e: None)
        if currency == "usd":
            return total(self.entries, lambda e: e.usd, lambda e: 0.0, lambda e: e.reserved_usd)
        return total(self.entries, lambda e: e.joules, lambda e: 0.0, lambda e: e.reserved_joules)

    @property
    def tokens(self) -> int | None:
        """Prompt + completion + cancelled tokens over all entries; None if any is unknown."""
        value = self.total("tokens").value
        return None if value is None else int(value)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds from the start of the request to its answer."""
        return self.elapsed

    @property
    def usd(self) -> float | None:
        """Dollars over all entries; None without a price."""
        return self.total("usd").value

    @property
    def joules(self) -> float | None:
        """Joules over all entries; None without a meter."""
        return self.total("joules").value

    @property
    def flops(self) -> float | None:
        """Floating-point operations at active parameters; None for an unknown model."""
        return self.total("flops").value

    @property
    def known(self) -> dict[str, float]:
        """What was spent at least, by currency (the parts that are known)."""
        return {name: self.total(name).known for name in _SUMS} | {"tokens": int(self.total("tokens").known)}

    @property
    def at_most(self) -> dict[str, float | None]:
        """What was spent at most, by currency; None where a part has no bound."""
        return {name: _shown(name, self.total(name).at_most) for name in _SUMS}

    def json(self) -> dict[str, Any]:
        """The shape of docs/contracts.md: sums, `known`, `at_most` and the entries."""
        return {
            **{name: _shown(name, self.total(name).value) for name in _SUMS},
            "known": self.known,
            "at_most": self.at_most,
            "entries": [entry.json() for entry in self.entries],
            "notes": list(self.notes),
        }


def _shown(name: str, value: float | None) -> float | None:
    return int(value) if name == "tokens" and value is not None else value
