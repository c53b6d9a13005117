"""The seam between the proxy's handlers and its accounts: who asks, what is reserved, and what was spent.

Knows: shapes, identifiers of requests, and secrets with their digests. The ledger (`serving.ledger`) fills them;
handlers know nothing else of it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypedDict, Unpack

from outthink.core.errors import BadInput, OutthinkError
from outthink.core.request import Budget

_LEGAL = re.compile(r"rcpt-[0-9a-f]{24,40}\Z")
_RANDOM = os.urandom(5).hex()
_COUNT = itertools.count(int.from_bytes(os.urandom(3), "big"))


def new_id() -> str:
    """A new identifier, sortable by time: milliseconds, a random number of this process, and a count."""
    return f"rcpt-{time.time_ns() // 1_000_000:012x}{_RANDOM}{next(_COUNT) & 0xFFFFFFFF:08x}"


def legal_id(text: str) -> bool:
    """Whether a text could be an identifier."""
    return _LEGAL.match(text) is not None


PREFIX = "ot-"
_NAME = re.compile(r"[\w][\w.@ +-]{0,99}\Z")
_BY_PERIOD = ("tokens", "usd")


def new_secret() -> str:
    """A new secret: 256 random bits behind a prefix that scanners for leaked keys can find."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is stored of a secret.

    A plain SHA-256 is right here and a slow, salted hash is not: those protect passwords that people
    choose and that can be guessed. 256 random bits cannot be, and a fast hash lets every request be checked.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a key may do.

    Args:
        admin: may see the dashboard, metrics, search and other keys' receipts.
        metrics: may read `/metrics`, and nothing else at all.
        day: tokens and dollars of a day (UTC); `month` those of a month.
        ceiling: of every single request.
        strategy: what `outthink/auto` runs, None for the policy's or the default.
        models: names it may ask for, empty for all.
        expires: seconds since the epoch, None for never.
    """

    admin: bool = False
    metrics: bool = False
    day: Budget = field(default_factory=Budget)
    month: Budget = field(default_factory=Budget)
    ceiling: Budget = field(default_factory=Budget)
    strategy: str | None = None
    models: tuple[str, ...] = ()
    expires: float | None = None

    def __post_init__(self) -> None:
        if self.metrics and (self.admin or self.limited or self.ceiling.limited or self.strategy or self.models):
            problem = "reads /metrics and does nothing else"
            raise BadInput("metrics", "true", problem, "leave the other rights and budgets out, or make two keys")
        for name, budget in (("budget-day", self.day), ("budget-month", self.month)):
            if wrong := [currency for currency in budget.limited if currency not in _BY_PERIOD]:
                raise BadInput(name, wrong[0], "is not summed over requests", "use tokens or usd")

    @property
    def limited(self) -> bool:
        """Whether there is a budget by day or month."""
        return bool(self.day.limited or self.month.limited)

    @property
    def priced(self) -> bool:
        """Whether such a budget is in dollars."""
        return self.day.usd is not None or self.month.usd is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A key as it is kept; times in seconds since the epoch."""

    id: str
    name: str
    terms: Terms
    created: float
    revoked: float | None = None
    last_used: float | None = None


def check_name(name: str) -> str:
    """A name that a key can have. Raises BadInput."""
    if not _NAME.match(name):
        raise BadInput("name", name, "is no name of a key", "use 1 to 100 letters, digits, spaces and . @ + - _")
    return name


class OverBudget(OutthinkError):
    """A key's budget by day or month does not cover the request.

    Args:
        currency: `tokens` or `usd`.
        period: `day` or `month` (UTC).
        retry_after: seconds until the period ends.
    """

    def __init__(self, message: str, *, currency: str, period: str, retry_after: float) -> None:
        super().__init__(message)
        self.currency, self.period, self.retry_after = currency, period, retry_after


class LedgerDown(OutthinkError):
    """The database does not answer. `why` is for operators: it may name the database; `public` is for clients."""

    def __init__(self, public: str, why: str = "") -> None:
        super().__init__(f"{public}: {why}" if why else public)
        self.public = public


class Idempotency(NamedTuple):
    """A client's `Idempotency-Key`, and a digest of what it was sent with."""

    key: str
    digest: str


class Repeated(OutthinkError):
    """The same `Idempotency-Key` is being served now, or was served with another body."""


class Busy(OutthinkError):
    """The queue is full; try again after so many seconds."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Key:
    """Who asks. Never holds the secret itself.

    Args:
        id: stands in ledger rows and logs.
        name: what its owner calls it.
        admin: may see the dashboard, metrics, search and other keys' receipts.
        limited: has a budget by day or month, so nothing is served without a reservation.
        budget: ceilings of every single request; they win over what a request asks for.
        strategy: what `outthink/auto` runs for this key, None for the policy's or the default.
        models: names it may ask for, empty for all.
        priced: the budget by day or month is in dollars, too.
        metrics: may read `/metrics`, and nothing else at all.
    """

    id: str
    name: str = ""
    admin: bool = False
    limited: bool = False
    budget: Budget = field(default_factory=Budget)
    strategy: str | None = None
    models: tuple[str, ...] = ()
    priced: bool = False
    metrics: bool = False

    @property
    def counted(self) -> bool:
        """Whether anything but time is limited, so that a request must show what it may cost."""
        return self.limited or any(currency != "seconds" for currency in self.budget.limited)


ANYONE = Key("anyone", admin=True)
"""Who asks where there are no keys."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Upper bounds set aside for one request; None in a currency without a budget.

    `replay` is the body served before under the same idempotency key (with `status`), else None.
    `held`: the ledger keeps it, and charges it should nobody settle it.
    """

    request_id: str
    key_id: str
    tokens: int | None = None
    usd: float | None = None
    replay: bytes | None = None
    status: int = 200
    held: bool = False
    idempotency: Idempotency | None = None


@dataclass(slots=True)
class RequestRecord:
    """What one request did and cost, as the ledger keeps it. None is unknown, which is not zero.

    Args:
        id: of the receipt, `rcpt-...`.
        model: as the client asked for it; `backend_model` as the backend calls it.
        strategy: canonical name with parameters, `pass-through` for none.
        stopped: as in the receipt; `error`, `interrupted` (the client left) included.
        started: seconds since the epoch; `seconds` it took.
        status: HTTP status of the reply, 499 where the client left before it.
        tokens: prompt + completion + cancelled. `at_most_tokens` bounds it where it is unknown.
        estimated: some part is charged at its upper bound.
        first_seconds: to the first token, for streams.
        receipt: the full receipt, None where the sums above are all there is.
        body: the reply, kept only for an idempotency key, or where content is logged.
        content: the request as it was sent; kept only where content is logged.
    """

    id: str
    key_id: str
    endpoint: str
    model: str
    backend_model: str
    strategy: str
    stopped: str
    started: float
    seconds: float
    status: int
    stream: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cancelled_tokens: int | None = 0
    tokens: int | None = None
    at_most_tokens: int | None = None
    usd: float | None = None
    at_most_usd: float | None = None
    joules: float | None = None
    flops: float | None = None
    samples: int = 1
    estimated: bool = False
    error: str | None = None
    receipt: Mapping[str, Any] | None = None
    body: bytes | None = None
    content: bytes | None = None
    first_seconds: float | None = None


LOST = "lost"
"""`stopped` of a request whose process ended, or lost touch, before it was settled."""


@dataclass(slots=True)
class AdmittedRequest:
    """A request that is being served, as far as it is known before its reply.

    Args:
        started: seconds since the epoch.
        tokens: upper bound, None where nobody knows one; so is `usd`, in dollars.
        traceparent: the client's trace (W3C); a watcher that follows the request puts its own here, for its calls.
    """

    id: str
    key_id: str
    endpoint: str
    model: str
    strategy: str
    stream: bool
    started: float
    tokens: int | None = None
    usd: float | None = None
    traceparent: str | None = None


class SearchTerms(TypedDict, total=False):
    """What records are looked for; whatever is left out or None fits.

    Args:
        text: part of an id, model, strategy, error or stored content; case does not matter.
        key: id of a key.
        since: seconds since the epoch, included; `until` is not.
        limit: records at most, 100 if left out.
        before: id of a record: only older ones, for the next page.
    """

    text: str | None
    key: str | None
    model: str | None
    strategy: str | None
    stopped: str | None
    since: float | None
    until: float | None
    limit: int
    before: str | None


GroupBy = Literal["key", "model", "strategy", "day"]


@dataclass(frozen=True, slots=True)
class Spend:
    """What a group of requests spent.

    A sum with an unknown part is None; beside it stands what is known, and how many requests did not tell.

    Args:
        group: key id, model, strategy or day (UTC, 2026-11-24).
        seconds: summed over requests, however many ran at once.
        estimated: requests of which some part is charged at its upper bound.
    """

    group: str
    requests: int
    estimated: int
    seconds: float
    tokens: int | None
    known_tokens: int
    unknown_tokens: int
    usd: float | None
    known_usd: float
    unknown_usd: int
    joules: float | None
    known_joules: float
    unknown_joules: int


class Ledger(Protocol):
    """Who may ask, what is reserved and what was spent. One that keeps no keys and no content has defaults for them."""

    async def open(self) -> None:
        """Connect and migrate. Raises LedgerDown."""
        return

    async def close(self) -> None:
        """Write what is queued and disconnect."""
        return

    @property
    def guarded(self) -> bool:
        """Whether a request needs a key."""
        return False

    async def authorise(self, bearer: str | None) -> Key | None:
        """The key of a bearer token (None: the request came without), None if it has no rights here."""

    def owner(self, bearer: str | None) -> str:
        """The id of the key that a bearer token was, though it is revoked or has expired; empty where it was none."""
        return ""

    async def reserve(
        self,
        key: Key,
        tokens: int | None,
        usd: float | None,
        request_id: str,
        idempotency: Idempotency | None = None,
    ) -> Reservation:
        """Set aside upper bounds.

        Raises OverBudget, LedgerDown (limited keys only), Repeated, or Unsupported where the key has a
        budget in a currency for which the request has no bound: unknown is never zero.
        """

    def note(self, request: AdmittedRequest) -> None:
        """Note a request that is served without a reservation of this ledger: should the process be killed, it is
        recorded as lost. `settle` takes the note away."""
        return

    async def settle(self, reservation: Reservation, record: RequestRecord) -> None:
        """Replace the reservation by what was spent; returns when that is durable. Never raises LedgerDown."""

    @property
    def logs_content(self) -> bool:
        """Whether requests and replies are stored."""
        return False

    @property
    def problem(self) -> str | None:
        """What keeps records from the database now, in one line; None if nothing does."""
        return None

    async def receipt(self, request_id: str) -> RequestRecord | None:
        """A request's record, None if it is not known."""

    async def content(self, request_id: str) -> tuple[str | None, str | None] | None:
        """A request as it was sent and its reply; None where nothing is stored."""
        return None

    async def forget(self, request_id: str) -> bool:
        """Delete them, and the reply kept for an `Idempotency-Key`; whether there was anything."""
        return False

    async def search(self, **terms: Unpack[SearchTerms]) -> Sequence[RequestRecord]:
        """Records that fit, newest first."""

    async def spend(self, group_by: GroupBy, since: float | None = None, until: float | None = None) -> Sequence[Spend]:
        """Sums over whole days (UTC), from that of `since` to that of `until`. Most tokens first; days in order."""

    async def add_key(self, name: str, terms: Terms) -> tuple[StoredKey, str]:
        """Make a key; returns it and its secret, which is shown this once. Raises BadInput or LedgerDown."""

    async def revoke_key(self, name: str) -> StoredKey:
        """Revoke a key by its id or name; it is refused within seconds everywhere. Raises BadInput or LedgerDown."""

    async def list_keys(self) -> Sequence[StoredKey]:
        """All keys, revoked ones included, oldest first."""
        return ()
