"""What happens in the proxy, told to whoever looks: the dashboard, metrics, logs and traces.

Knows: which moments are told, and that a watcher that fails is dropped, not the request. Does not know
what a watcher makes of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from outthink.serving.protocols import RequestRecord

_log = logging.getLogger("outthink.serving")


@dataclass(slots=True)
class LiveRequest:
    """A request that is being answered.

    Args:
        started: seconds since the epoch.
        traceparent: the client's trace (W3C); a watcher that follows the request puts its own here, for its calls.
    """

    id: str
    key_id: str
    endpoint: str
    model: str
    stream: bool
    started: float
    strategy: str
    traceparent: str | None = None


class Watcher(Protocol):
    """Hears what happens, in the event loop: it must not wait."""

    def began(self, running: LiveRequest) -> None:
        """A request is admitted and reserved; `finished` follows, whatever happens."""
        ...

    def sampled(self, id: str, index: int, state: str, answer: str | None, tokens: int | None, backend: str) -> None:
        """A call of a strategy: `started`, then `finished`, `cancelled` or `failed`. `backend` names its model."""
        ...

    def voted(self, id: str, votes: Mapping[str, float], leader: str | None) -> None:
        """The votes after a sample."""
        ...

    def finished(self, record: RequestRecord) -> None:
        """A request is settled: the record stands in the ledger."""
        ...

    def backend(self, url: str, healthy: bool) -> None:
        """A backend's health has changed."""
        ...


class Quiet:
    """A watcher that does nothing, for those that look at a few moments only."""

    def began(self, running: LiveRequest) -> None:
        """Nothing."""

    def sampled(self, id: str, index: int, state: str, answer: str | None, tokens: int | None, backend: str) -> None:
        """Nothing."""

    def voted(self, id: str, votes: Mapping[str, float], leader: str | None) -> None:
        """Nothing."""

    def finished(self, record: RequestRecord) -> None:
        """Nothing."""

    def backend(self, url: str, healthy: bool) -> None:
        """Nothing."""


_MOMENTS = ("began", "sampled", "voted", "finished", "backend")


class Watchers:
    """All of them; empty and false until one is added. Who has nothing to do at a moment is not called."""

    def __init__(self) -> None:
        self._all: tuple[Watcher, ...] = ()
        self._called: dict[str, tuple[Callable[..., None], ...]] = dict.fromkeys(_MOMENTS, ())

    def __bool__(self) -> bool:
        return bool(self._all)

    def __iter__(self) -> Iterator[Watcher]:
        return iter(self._all)

    def add(self, watcher: Watcher) -> None:
        """Tell this one, too."""
        self._keep((*self._all, watcher))

    def began(self, running: LiveRequest) -> None:
        """Tell all."""
        self._tell("began", running)

    def sampled(self, id: str, index: int, state: str, answer: str | None, tokens: int | None, backend: str) -> None:
        """Tell all."""
        self._tell("sampled", id, index, state, answer, tokens, backend)

    def voted(self, id: str, votes: Mapping[str, float], leader: str | None) -> None:
        """Tell all."""
        self._tell("voted", id, votes, leader)

    def finished(self, record: RequestRecord) -> None:
        """Tell all."""
        self._tell("finished", record)

    def backend(self, url: str, healthy: bool) -> None:
        """Tell all."""
        self._tell("backend", url, healthy)

    def _keep(self, watchers: tuple[Watcher, ...]) -> None:
        self._all = watchers
        for moment in _MOMENTS:
            idle = getattr(Quiet, moment)
            busy = [one for one in watchers if getattr(type(one), moment, None) is not idle]
            self._called[moment] = tuple(getattr(one, moment) for one in busy)

    def _tell(self, moment: str, *told: object) -> None:
        for call in self._called[moment]:
            try:
                call(*told)
            except Exception:  # noqa: BLE001 - whatever a watcher does, the request goes on
                failed = getattr(call, "__self__", call)
                self._keep(tuple(one for one in self._all if one is not failed))
                _log.exception("%s failed and is told nothing any more", type(failed).__name__)
