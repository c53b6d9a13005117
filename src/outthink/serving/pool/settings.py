"""What an operator may say about backends and how they are watched. Knows numbers; does not know who sets them."""

from __future__ import annotations

from dataclasses import dataclass, field

from outthink.core.errors import BadInput
from outthink.economics.price import Pricing
from outthink.economics.tariff import Energy


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """One backend.

    Args:
        url: with or without `/v1`.
        key: bearer token that it wants, None for none. Never shown.
        weight: its share of the requests, relative to the other backends of the same model.
        limit: calls in flight at once, None for as many as come.
        models: names that it is asked for, empty for all that it lists.
        price: of its tokens, None for the published one, if there is any.
        energy: joules of its tokens, None where nobody knows.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    weight: float = 1.0
    limit: int | None = None
    models: tuple[str, ...] = ()
    price: Pricing | None = None
    energy: Energy | None = None

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1e6:
            raise BadInput("weight", self.weight, "is no share", "give a number above 0")
        if self.limit is not None and self.limit < 1:
            raise BadInput("limit", self.limit, "lets no call through", "give 1 or more, or leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How backends are watched and chosen. Times in seconds.

    Args:
        interval: between two health checks of a backend, 20 % more or less at random.
        timeout: of one check.
        down_after: failed checks in a row after which a backend is down.
        up_after: passed checks in a row after which it is up again; one is enough for its first time.
        failures: calls in a row that fail for the breaker to open.
        share: failed share of the last `window` calls for the breaker to open.
        window: calls that the share is taken over, at most 1,024; fewer than half of them open nothing.
        open_seconds: that an open breaker waits before one trial call; doubled with every failed trial.
        rest_seconds: the longest rest that a backend's Retry-After may ask for.
        affinity: equal prompts prefer one backend, whose cache then holds their prefix.
        overload: the preferred backend is left when its load is this many times the mean.
        slack: calls in flight up to which no backend is overloaded.
    """

    interval: float = 5.0
    timeout: float = 5.0
    down_after: int = 3
    up_after: int = 2
    failures: int = 5
    share: float = 0.5
    window: int = 40
    open_seconds: float = 5.0
    rest_seconds: float = 60.0
    affinity: bool = True
    overload: float = 1.25
    slack: int = 16

    def __post_init__(self) -> None:
        for name in ("interval", "timeout", "open_seconds", "rest_seconds"):
            if not 0 < getattr(self, name) <= 86_400:
                raise BadInput(name, getattr(self, name), "is no time", "give seconds above 0, at most 86400")
        for name in ("down_after", "up_after", "failures"):
            if getattr(self, name) < 1:
                raise BadInput(name, getattr(self, name), "is no count", "give 1 or more")
        if not 0 < self.share <= 1:
            raise BadInput("share", self.share, "is no share", "give a number above 0, at most 1")
        if not 2 <= self.window <= 1024:
            raise BadInput("window", self.window, "is no window", "give 2 to 1024 calls")
        if not 1 <= self.overload <= 100:
            raise BadInput("overload", self.overload, "is no factor", "give 1 to 100")
        if self.slack < 0:
            raise BadInput("slack", self.slack, "is no count", "give 0 or more")
