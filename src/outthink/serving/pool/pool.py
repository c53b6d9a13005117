"""The pool of backends: finds the one to ask for a model now, in a few microseconds.

Knows who serves what and who is able. How well they are is found by `health`, who comes first by `choice`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

from outthink.core.errors import BadInput
from outthink.economics.price import Pricing
from outthink.economics.tariff import Energy
from outthink.serving.backend_protocols import Full, NoBackend, Resting, Wire
from outthink.serving.pool.backend import ENDLESS, Backend, BackendLease
from outthink.serving.pool.choice import least_busy, preferred
from outthink.serving.pool.health import Checks
from outthink.serving.pool.settings import BackendSettings, PoolSettings

Heard = Callable[[str, bool], None]
"""Hears a backend's URL and whether it is well, whenever that changes."""


class BackendPool:
    """Backends by the models they serve.

    Args:
        heard: told of every change of a backend's health.
    """

    def __init__(
        self,
        wire: Wire,
        backends: Sequence[BackendSettings],
        settings: PoolSettings | None = None,
        heard: Heard | None = None,
    ) -> None:
        self._settings, self.heard = settings or PoolSettings(), heard
        self.backends = [Backend(told, self._settings) for told in backends]
        self._limited = any(backend.limit < ENDLESS for backend in self.backends)
        urls = [backend.url for backend in self.backends]
        if twice := next((url for at, url in enumerate(urls) if url in urls[:at]), None):
            raise BadInput("backends", twice, "is named twice", "name it once, with a larger weight")
        self._checks = [Checks(backend, wire, self._settings, self._changed) for backend in self.backends]
        self._tasks: list[asyncio.Task[None]] = []
        self._by_model: dict[str, list[Backend]] = {}
        self._stated = {one.url: (told.price, told.energy) for one, told in zip(self.backends, backends, strict=True)}
        self._urls: dict[str, tuple[str, ...]] = {}
        self._names: tuple[str, ...] = ()
        self._well: dict[str, bool] = {}

    async def start(self) -> None:
        """Ask every backend for its models and begin the health checks. Those that do not answer may come later."""
        self._sort()
        await asyncio.gather(*(checks.check() for checks in self._checks))
        self._tasks = [asyncio.create_task(checks.forever()) for checks in self._checks]

    async def stop(self) -> None:
        """End the health checks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def names(self) -> Sequence[str]:
        """Models in the order of the backends; those of a backend that is down stay, as far as they are known."""
        return self._names

    @property
    def ready(self) -> bool:
        """Whether any backend is well."""
        return any(backend.health == "up" for backend in self.backends)

    def health(self) -> Sequence[tuple[str, bool]]:
        """Base URLs and whether they are well."""
        return [(backend.url, backend.health == "up") for backend in self.backends]

    def urls(self, model: str) -> tuple[str, ...]:
        """Base URLs of a model's backends, well or not."""
        return self._urls.get(model, ())

    def stated(self, url: str) -> tuple[Pricing | None, Energy | None]:
        """What a backend's operator has said that its tokens cost."""
        return self._stated.get(url, (None, None))

    def places(self, model: str) -> int | None:
        """Calls that the backends of a model take at once now, None for as many as come."""
        if not self._limited:
            return None
        now = monotonic()
        limits = [backend.limit for backend in self._by_model.get(model, ()) if backend.well(now)]
        return None if ENDLESS in limits or not limits else sum(limits)

    def choose(
        self, model: str, prefix: int | None = None, avoid: Sequence[str] = (), *, brief: bool = False
    ) -> BackendLease:
        """A place on the backend to use now. Raises NoBackend, or Resting or Full where waiting is all it takes."""
        serving = self._by_model.get(model)
        if serving is None:
            raise NoBackend(f"no backend serves {model}")
        now = monotonic()
        if len(serving) == 1:
            only = serving[0]
            if (only.well(now) if brief else only.able(now)) and only.url not in avoid:
                return BackendLease(only)
            raise self._nobody(model, serving, avoid, now)
        able = [one for one in serving if (one.well(now) if brief else one.able(now)) and one.url not in avoid]
        if not able:
            raise self._nobody(model, serving, avoid, now)
        if prefix is None or not self._settings.affinity:
            return BackendLease(least_busy(able))
        return BackendLease(preferred(able, prefix, self._settings.overload, self._settings.slack))

    @staticmethod
    def _nobody(model: str, serving: Sequence[Backend], avoid: Sequence[str], now: float) -> NoBackend:
        """Why there is none, and when there may be."""
        others = [backend for backend in serving if backend.url not in avoid and backend.health == "up"]
        if not others:
            return NoBackend(f"no backend for {model} is healthy now")
        closed = [backend for backend in others if backend.breaker.passes(now)]
        if not closed:
            waits = [(backend.breaker.opened_until or now) - now for backend in others]
            return NoBackend(f"calls of every backend for {model} fail", retry_after=max(1.0, min(waits)))
        rests = [backend.rests_until - now for backend in closed if backend.rests_until > now]
        if len(rests) == len(closed):
            return Resting(f"every backend for {model} has asked to be left alone for a while", retry_after=min(rests))
        return Full(f"every backend for {model} has all the calls that it takes", retry_after=1.0)

    async def room(self, model: str) -> None:
        """Wait until a place has been given back on a backend of a model, or the health of one has changed."""
        serving = self._by_model.get(model, [])
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for backend in serving:
            backend.waiting.append(given)
        try:
            await given
        finally:
            for backend in serving:
                if given in backend.waiting:
                    backend.waiting.remove(given)

    def _changed(self, backend: Backend) -> None:
        self._sort()
        well = backend.health == "up"
        if well and self._well.get(backend.url) is not True:  # who comes back must not get every call at first
            peers = [one.passed for one in self.backends if one is not backend and one.health == "up"]
            backend.passed = max(backend.passed, min(peers, default=0.0))
        if self._well.get(backend.url) is not well:
            self._well[backend.url] = well
            backend.wake()
            if self.heard is not None:
                self.heard(backend.url, well)

    def _sort(self) -> None:
        table: dict[str, list[Backend]] = {}
        for backend in self.backends:
            for name in backend.models:
                table.setdefault(name, []).append(backend)
        self._by_model, self._names = table, tuple(table)
        self._urls = {name: tuple(backend.url for backend in serving) for name, serving in table.items()}
