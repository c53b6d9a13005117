"""What happens in the proxy, for whoever looks: the dashboard, metrics, logs and traces.

Knows: which events there are, and that a watcher that fails is dropped, not the request. Does not know what a watcher
makes of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from outthink.serving.protocols import AdmittedRequest, RequestRecord

_log = logging.getLogger("outthink.serving")


class RefusedRequest(NamedTuple):
    """A request that got an error object instead of being admitted.

    Args:
        at: seconds since the epoch.
        key_id: None where no key is known.
        path: as it was asked for, without its query; empty where it could not be read. So is `method`.
    """

    at: float
    status: int
    code: str
    key_id: str | None
    method: str
    path: str


class Watcher:
    """Is called in the event loop, so it must not wait; what it does not override does nothing."""

    def began(self, request: AdmittedRequest) -> None:
        """A request is admitted and reserved; `finished` follows, whatever happens."""

    def sampled(self, id: str, index: int, state: str, answer: str | None, tokens: int | None, backend: str) -> None:
        """A call of a strategy: `started`, then `finished`, `cancelled` or `failed`. `backend` names its model."""

    def voted(self, id: str, votes: Mapping[str, float], leader: str | None) -> None:
        """The votes after a sample."""

    def finished(self, record: RequestRecord) -> None:
        """A request is settled: the record stands in the ledger."""

    def forgotten(self, id: str) -> None:
        """The content of a request that has ended is to be forgotten."""

    def refused(self, request: RefusedRequest) -> None:
        """A request was refused before it was admitted: no other event is about it."""

    def backend(self, url: str, healthy: bool) -> None:
        """A backend's health has changed."""


W = TypeVar("W", bound=Watcher)


class Watchers(Watcher):
    """All of them; empty and false until one is added. One that fails is dropped, and the request goes on."""

    def __init__(self) -> None:
        self._all: tuple[Watcher, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, watcher: W) -> W:
        """From now on call this one, too; returns it."""
        self._all = (*self._all, watcher)
        return watcher

    def began(self, request: AdmittedRequest) -> None:
        for watcher in self._all:  # no call in between: these two are told of every request
            try:
                watcher.began(request)
            except Exception:  # noqa: BLE001 - as in `_call`
                self._drop(watcher)

    def sampled(self, id: str, index: int, state: str, answer: str | None, tokens: int | None, backend: str) -> None:
        self._call(lambda watcher: watcher.sampled(id, index, state, answer, tokens, backend))

    def voted(self, id: str, votes: Mapping[str, float], leader: str | None) -> None:
        self._call(lambda watcher: watcher.voted(id, votes, leader))

    def finished(self, record: RequestRecord) -> None:
        for watcher in self._all:
            try:
                watcher.finished(record)
            except Exception:  # noqa: BLE001 - as in `_call`
                self._drop(watcher)

    def forgotten(self, id: str) -> None:
        self._call(lambda watcher: watcher.forgotten(id))

    def refused(self, request: RefusedRequest) -> None:
        self._call(lambda watcher: watcher.refused(request))

    def backend(self, url: str, healthy: bool) -> None:
        self._call(lambda watcher: watcher.backend(url, healthy))

    def _call(self, event: Callable[[Watcher], None]) -> None:
        for watcher in self._all:
            try:
                event(watcher)
            except Exception:  # noqa: BLE001 - whatever a watcher does, the request goes on
                self._drop(watcher)

    def _drop(self, watcher: Watcher) -> None:
        """Tell one that has failed nothing any more."""
        # A new tuple: whoever goes through the old one leaves nobody out.
        self._all = tuple(other for other in self._all if other is not watcher)
        _log.exception("%s failed and is told nothing any more", type(watcher).__name__)
