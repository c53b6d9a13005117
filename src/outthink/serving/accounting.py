"""The account of one request: reserved before it, settled after it, whoever leaves in between.

Knows: upper bounds, the record that takes their place, and the reply that a repetition under the same `Idempotency-Key`
gets again. Does not know protocols or strategies.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from aiohttp import web

from outthink.core.receipt import Receipt
from outthink.economics.tariff import Tariff
from outthink.http.fields import JsonDict
from outthink.http.usage import Usage
from outthink.serving.pool.transport import paced
from outthink.serving.protocols import AdmittedRequest, Idempotency, Key, Ledger, RequestRecord, Reservation, new_id
from outthink.serving.watch import Watchers

PASS = "pass-through"  # noqa: S105 - the name of a strategy


@dataclass(slots=True)
class Account:
    """One request's. `settle` may be called once; what is not settled is charged as reserved."""

    ledger: Ledger
    key: Key
    endpoint: str
    model: str
    stream: bool
    reservation: Reservation | None = None
    content: bytes = b""
    """The request as it was sent."""
    keep: bool = False
    """The reply is kept for an idempotency key."""
    id: str = field(default_factory=new_id)
    began: float = field(default_factory=time.time)
    _clock: float = field(default_factory=time.perf_counter)  # the wall clock may be set back meanwhile
    settled: bool = False
    first: float | None = None
    watchers: Watchers = field(default_factory=Watchers)

    @property
    def keeps(self) -> bool:
        """Whether the reply is kept, for an idempotency key or because content is logged."""
        return self.keep or self.ledger.logs_content

    def admitted(self, strategy: str, traceparent: str | None = None, bound: int | None = None) -> str | None:
        """Let ledger and watchers know that the request is going to be answered; `settle` does when it was.

        Returns the `traceparent` for its calls: the client's, or that of a watcher that follows it.

        Args:
            bound: tokens that it cannot exceed, where no reservation says so.
        """
        held = self.reservation
        tokens, usd = (bound, None) if held is None else (held.tokens, held.usd)
        request = AdmittedRequest(
            self.id,
            self.key.id,
            self.endpoint,
            self.model,
            strategy,
            self.stream,
            self.began,
            tokens,
            usd,
            traceparent,
        )
        if held is None or not held.held:
            self.ledger.note(request)
        if self.watchers:
            self.watchers.began(request)
        return request.traceparent

    def first_token(self) -> None:
        """The first token goes to the client; later ones change nothing."""
        if self.first is None:
            self.first = time.perf_counter() - self._clock

    async def reserve(self, tokens: int | None, usd: float | None, idempotency: Idempotency | None) -> None:
        """Set upper bounds aside. Raises OverBudget, LedgerDown, Repeated or Unsupported."""
        self.keep = idempotency is not None
        if not self.key.limited and idempotency is None:
            self.reservation = Reservation(self.id, self.key.id, tokens, usd)
            return
        self.reservation = await self.ledger.reserve(self.key, tokens, usd, self.id, idempotency)

    def _record(self, backend_model: str, strategy: str, stopped: str, status: int) -> RequestRecord:
        """The record of what happened, without what it cost."""
        return RequestRecord(
            self.id,
            self.key.id,
            self.endpoint,
            self.model,
            backend_model,
            strategy,
            stopped,
            self.began,
            time.perf_counter() - self._clock,
            status,
            self.stream,
            first_seconds=self.first,
            content=self.content if self.ledger.logs_content else None,
        )

    async def settle(self, record: RequestRecord) -> None:
        """Write the record; returns when it is durable."""
        if self.settled:
            return
        # Before anything is awaited: a client that leaves meanwhile would have it settled again.
        self.settled = True
        reservation = self.reservation or Reservation(self.id, self.key.id)
        try:
            await self.ledger.settle(reservation, record)
        finally:
            self.watchers.finished(record)

    def passed(
        self,
        usage: Usage,
        tariff: Tariff,
        stopped: str,
        status: int,
        *,
        error: str | None = None,
        body: bytes | None = None,
    ) -> RequestRecord:
        """The record of a request that was passed through."""
        record = self._record(tariff.model, PASS, stopped, status)
        record.error = error
        record.body = body if self.keeps else None
        prompt, completion = usage.prompt, usage.completion
        if prompt is not None and completion is not None:
            record.prompt_tokens, record.completion_tokens = prompt, completion
            record.tokens = record.at_most_tokens = prompt + completion
            record.flops, record.usd, record.joules = tariff.charge(prompt, usage.cached or 0, completion)
            record.at_most_usd = record.usd
        elif status >= 400 and stopped == "error":  # a refusal costs nothing
            record.prompt_tokens = record.completion_tokens = record.tokens = record.at_most_tokens = 0
            record.usd = record.at_most_usd = 0.0
        else:
            record.estimated = True
            record.cancelled_tokens = None if stopped == "interrupted" else 0
            if self.reservation is not None:
                record.at_most_tokens, record.at_most_usd = self.reservation.tokens, self.reservation.usd
        return record

    def spent(
        self, receipt: Receipt, backend_model: str, strategy: str, status: int, client_receipt: JsonDict
    ) -> RequestRecord:
        """The record of a strategy's request."""
        record = self._record(backend_model, strategy, str(client_receipt["stopped"]), status)
        entries = receipt.entries
        record.prompt_tokens = known_sum(entry.prompt_tokens for entry in entries)
        record.completion_tokens = known_sum(entry.completion_tokens for entry in entries)
        record.cancelled_tokens = known_sum(entry.cancelled_tokens for entry in entries)
        totals = receipt.totals
        tokens, record.at_most_usd = totals["tokens"], totals["usd"].at_most
        record.tokens = None if tokens.value is None else int(tokens.value)
        record.at_most_tokens = None if tokens.at_most is None else int(tokens.at_most)
        record.usd, record.joules, record.flops = (totals[name].value for name in ("usd", "joules", "flops"))
        record.samples = sum(entry.role == "policy" for entry in entries)
        record.estimated = any(entry.estimated for entry in entries)
        record.receipt = client_receipt
        return record


def known_sum(values: Iterable[int | None]) -> int | None:
    """A sum in which one unknown part makes the whole unknown."""
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


RECEIPT = "x-outthink-receipt"
_SHAPING = ("x-outthink-", "accept", "openai-beta")
"""How headers begin that change the reply."""


def idempotency_of(headers: Mapping[str, str], endpoint: str, content: bytes) -> Idempotency | None:
    """A request's `Idempotency-Key`, with a digest of all that shapes the reply; None without one, or for an empty one.

    Args:
        endpoint: its path: the same body sent to another one is another request.
        content: its body as it was sent.
    """
    if not (key := headers.get("Idempotency-Key", "").strip()):
        return None
    shaping = sorted((name.lower(), value) for name, value in headers.items() if name.lower().startswith(_SHAPING))
    head = [endpoint, *(f"{name}: {value}" for name, value in shaping), "", ""]
    hashed = sha256("\n".join(head).encode(errors="surrogateescape"))
    hashed.update(content)
    return Idempotency(key, hashed.hexdigest())


def replayed(account: Account) -> web.Response | None:
    """The same reply again, with the receipt of the first; None where this is the first."""
    before = account.reservation
    if before is None or before.replay is None:
        return None
    kind = "text/event-stream" if account.stream else "application/json"
    return web.Response(
        body=paced(before.replay), status=before.status, headers={"content-type": kind, RECEIPT: before.request_id}
    )
