"""API keys: what one may do, and the secret that proves it.

Knows: secrets, their digests and a key's terms. Does not know where keys are kept.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field

from outthink.core.errors import BadInput
from outthink.core.request import Budget

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
        day: tokens and dollars of a day (UTC); `month` those of a month.
        ceiling: of every single request.
        strategy: what `outthink/auto` runs, None for the policy's or the default.
        models: names it may ask for, empty for all.
        expires: seconds since the epoch, None for never.
    """

    admin: bool = False
    day: Budget = field(default_factory=Budget)
    month: Budget = field(default_factory=Budget)
    ceiling: Budget = field(default_factory=Budget)
    strategy: str | None = None
    models: tuple[str, ...] = ()
    expires: float | None = None

    def __post_init__(self) -> None:
        for name, budget in (("budget-day", self.day), ("budget-month", self.month)):
            if wrong := [currency for currency in budget.limited if currency not in _BY_PERIOD]:
                raise BadInput(name, wrong[0], "is not summed over requests", "use tokens or usd")

    @property
    def limited(self) -> bool:
        """Whether there is a budget by day or month."""
        return bool(self.day.limited or self.month.limited)


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
