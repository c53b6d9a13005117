"""What one request spent, by ledger entry and in sum, and the result that carries it.

Knows quantities, of which any may be unknown (None), and that a sum with an unknown part is unknown: beside it stand
what is known and an upper bound. Does not know budgets, prices, or why a call was made.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Literal, Protocol

from outthink.core.display import Displayed, Rows

Role = Literal["policy", "verifier", "probe", "router"]
Status = Literal["finished", "stopped", "cancelled", "failed", "cached"]


@dataclass(slots=True)
class Entry:
    """One call. Token counts are exact where given; None means that the server did not tell.

    Args:
        completion_tokens: generated tokens of a call that ran to its end (or was stopped by watch).
        cancelled_tokens: generated tokens of a call that was cancelled or failed on the way.
        cached_tokens: the part of prompt_tokens that the server read from its prefix cache.
        reserved_tokens: upper bound on all tokens of the call, used where counts are unknown.
        seen_tokens: lower bound on generated tokens, used where counts are unknown.
        seconds: from sending the request to its end.
        flops: 2 x active parameters x tokens processed, None for an unknown model.
        estimated: True where the budget was settled at the reservation for want of counts.
        cached: True for an answer from the response cache, which costs nothing.
        router: id of the router that chose the model; with the role `router` alone.
        chances: that each of its models is right, as that router believed.
    """

    role: Role
    model: str
    status: Status
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    cancelled_tokens: int | None = 0
    cached_tokens: int | None = 0
    seconds: float | None = None
    flops: float | None = None
    usd: float | None = None
    joules: float | None = None
    estimated: bool = False
    cached: bool = False
    reserved_tokens: int | None = None
    reserved_usd: float | None = None
    reserved_joules: float | None = None
    seen_tokens: int = 0
    finish_reason: str | None = None
    error: str | None = None
    router: str | None = None
    chances: dict[str, float] | None = None

    @property
    def tokens(self) -> int | None:
        """Prompt + completion + cancelled, None if any of them is unknown."""
        prompt, completion, cancelled = self.prompt_tokens, self.completion_tokens, self.cancelled_tokens
        if prompt is None or completion is None or cancelled is None:
            return None
        return prompt + completion + cancelled

    @property
    def known_tokens(self) -> int:
        """A lower bound on the tokens: what is known, or what was seen to arrive."""
        generated = (self.completion_tokens or 0) + (self.cancelled_tokens or 0)
        return (self.prompt_tokens or 0) + max(generated, self.seen_tokens)

    def amounts(self, currency: str) -> tuple[float | None, float, float | None]:
        """What it took of one currency: exactly, at least and at most; None where that is unknown."""
        if currency == "tokens":
            return self.tokens, self.known_tokens, self.reserved_tokens
        if currency == "usd":
            return self.usd, 0.0, self.reserved_usd
        if currency == "joules":
            return self.joules, 0.0, self.reserved_joules
        return self.flops, 0.0, None  # no budget is kept in FLOPs, so nothing was reserved

    def json(self) -> dict[str, Any]:
        """All fields as plain values; those of a router where there is one."""
        values = {
            name: getattr(self, name) for name in self.__slots__
        }  # all are plain: `asdict` takes 50 times as long
        if self.router is None:
            del values["router"], values["chances"]
        return values


_SUMS = ("tokens", "seconds", "usd", "joules", "flops")


@dataclass(frozen=True, slots=True)
class Total:
    """A sum over entries: `value` is None where a part is unknown, between `known` and `at_most`."""

    value: float | None
    known: float
    at_most: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Receipt(Displayed):
    """The ledger of one request, its wall-clock `seconds` and a note of what was unusual."""

    entries: tuple[Entry, ...]
    elapsed: float
    notes: tuple[str, ...] = ()

    def total(self, currency: str) -> Total:
        """Sum of `tokens`, `usd`, `joules` or `flops`; `seconds` is the elapsed wall-clock."""
        if currency == "seconds":
            return Total(self.elapsed, self.elapsed, self.elapsed)
        known, complete = 0.0, True
        at_most: float | None = 0.0
        for entry in self.entries:
            exact, lower, upper = entry.amounts(currency)
            if exact is None:
                complete = False
            else:
                lower = upper = exact
            known += lower
            at_most = None if at_most is None or upper is None else at_most + upper
        return Total(known if complete else None, known, at_most)

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
    def totals(self) -> dict[str, Total]:
        """All of them, by currency."""
        return {name: self.total(name) for name in _SUMS}

    @property
    def known(self) -> dict[str, float]:
        """What was spent at least, by currency (the parts that are known)."""
        return _known(self.totals)

    @property
    def at_most(self) -> dict[str, float | None]:
        """What was spent at most, by currency; None where a part has no bound."""
        return {name: _shown(name, total.at_most) for name, total in self.totals.items()}

    def json(self) -> dict[str, Any]:
        """The shape of docs/contracts.md: sums, `known`, `at_most` and the entries."""
        totals = self.totals
        return {
            **{name: _shown(name, total.value) for name, total in totals.items()},
            "known": _known(totals),
            "at_most": {name: _shown(name, total.at_most) for name, total in totals.items()},
            "entries": [entry.json() for entry in self.entries],
            "notes": list(self.notes),
        }

    def display(self) -> tuple[str, Rows]:
        """Calls, tokens, seconds, dollars, joules, FLOPs and notes; what is unknown says so."""
        counts = Counter(entry.status for entry in self.entries if entry.role != "router")
        rows = [
            ("calls", ", ".join(f"{count} {status}" for status, count in counts.items()) or "none"),
            ("tokens", f"{self._amount('tokens', ',.0f')}  ({self._split()})"),
            ("seconds", f"{self.seconds:.2f}"),
            ("dollars", self._amount("usd", ".6f")),
            ("joules", self._amount("joules", ".1f")),
            ("FLOPs", self._amount("flops", ".3g")),
        ]
        return "receipt", [*rows, *(("note", note) for note in self.notes)]

    def _split(self) -> str:
        parts = {
            "prompt": [entry.prompt_tokens for entry in self.entries],
            "completion": [entry.completion_tokens for entry in self.entries],
            "cancelled": [entry.cancelled_tokens for entry in self.entries],
        }
        text = " + ".join(
            f"{name} {'unknown' if None in values else format(sum(v or 0 for v in values), ',')}"
            for name, values in parts.items()
        )
        cached = sum(entry.cached_tokens or 0 for entry in self.entries)
        return text + (f"; {cached:,} of the prompt from the server's cache" if cached else "")

    def _amount(self, name: str, form: str) -> str:
        total = self.total(name)
        if total.value is not None:
            return format(total.value, form)
        if total.known == 0 and total.at_most is None:
            return "unknown"
        upper = "unknown" if total.at_most is None else format(total.at_most, form)
        return f"unknown (at least {format(total.known, form)}, at most {upper})"


def _known(totals: dict[str, Total]) -> dict[str, float]:
    return {name: total.known for name, total in totals.items()} | {"tokens": int(totals["tokens"].known)}


def _shown(name: str, value: float | None) -> float | None:
    return int(value) if name == "tokens" and value is not None else value


Stopped = Literal[
    "finished",
    "consensus",
    "first-m",
    "gave-up",
    "budget:tokens",
    "budget:seconds",
    "budget:usd",
    "budget:joules",
    "interrupted",
    "error",
]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a strategy decided: a canonical answer, the text that carries it, and why it stopped."""

    answer: str | None
    text: str
    stopped: Stopped = "finished"


class ResultSource(Protocol):
    """What a result needs of the session that it comes from."""

    @property
    def model(self) -> str:
        """Models that could be drawn from."""

    @property
    def stopped(self) -> Stopped | None:
        """Why the session was ended, None where the strategy has come to its own end."""

    def receipt(self) -> Receipt:
        """Everything that was spent."""


@dataclass(frozen=True, slots=True, repr=False)
class Result(Displayed):
    """The outcome of `ask`; `answer` is None where none could be read."""

    answer: str | None
    text: str
    strategy: str
    model: str
    stopped: Stopped
    receipt: Receipt

    @classmethod
    def of(cls, verdict: Verdict, strategy: str, session: ResultSource) -> Result:
        """What a strategy has decided, with what its session has to say about it."""
        # A strategy whose stream the budget has ended takes that for its own end: the session's reason goes first.
        stopped = session.stopped or verdict.stopped
        return cls(verdict.answer, verdict.text, strategy, session.model, stopped, session.receipt())

    def json(self) -> dict[str, Any]:
        """The object that `outthink ask --json` prints."""
        return {
            "answer": self.answer,
            "text": self.text,
            "strategy": self.strategy,
            "model": self.model,
            "stopped": self.stopped,
            "receipt": self.receipt.json(),
        }

    def display(self) -> tuple[str, Rows]:
        """The answer, who gave it, and the receipt."""
        answer = "no answer could be read" if self.answer is None else self.answer
        _, rows = self.receipt.display()
        return shorten(answer, 400), [("by", f"{self.strategy} · {self.model}"), ("stopped", self.stopped), *rows]
