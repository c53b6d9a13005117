"""Health checks: every backend is asked for its models, again and again.

Knows two paths of a model server, thresholds and pauses. Does not know how backends are chosen.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable
from time import monotonic

from outthink.core.errors import OutthinkError
from outthink.http.transport import Timeouts, TransportFault
from outthink.serving.backend_protocols import Wire
from outthink.serving.pool.backend import Backend
from outthink.serving.pool.settings import PoolSettings

_log = logging.getLogger("outthink.serving")
_SOON = 1.0  # seconds until the next check while the verdict is about to change
_LONGEST_LIST = 4 << 20
_random = random.Random()  # of its own: nobody's seed is touched, and none makes replicas ask in step


class Unwell(OutthinkError):
    """A check that failed; says why in a few words."""


class Checks:
    """Watches one backend.

    Args:
        changed: called when its health or its models have changed.
    """

    def __init__(
        self, backend: Backend, wire: Wire, settings: PoolSettings, changed: Callable[[Backend], None]
    ) -> None:
        self._backend, self._wire, self._settings, self._changed = backend, wire, settings, changed
        self._timeouts = Timeouts(settings.timeout, settings.timeout)
        self._row = 0  # checks in a row that speak against the present verdict
        self._been_up = False  # one that is still starting is used as soon as it answers

    async def forever(self) -> None:
        """Check after every pause, until cancelled."""
        while True:
            settings = self._settings
            pause = min(settings.interval, _SOON) if self._row else settings.interval
            await asyncio.sleep(pause * _random.uniform(0.8, 1.2))
            try:
                await self.check()
            except Exception:  # noqa: BLE001 - the checks must go on
                _log.exception("a check of %s failed in an unforeseen way; it is repeated", self._backend.url)

    async def check(self) -> None:
        """Ask once, and draw the conclusion."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                names = await self._ask()
        except (TransportFault, TimeoutError, Unwell) as error:
            told = error.detail or error.kind if isinstance(error, TransportFault) else str(error)
            told = " ".join(told.split())[:200] or f"nothing came within {self._settings.timeout:g} s"
            self._concluded(None, told)
        else:
            self._concluded(names, None)

    async def _ask(self) -> tuple[str, ...]:
        """Models that the backend serves. Raises TransportFault or Unwell."""
        backend = self._backend
        reply = await self._wire.fetch("GET", backend.address.url("/models"), backend.headers, None, self._timeouts)
        if reply.status in (404, 405, 501) and backend.named:  # lists no models, but may tell that it is well
            address = backend.address.url("/health", root=True)
            reply = await self._wire.fetch("GET", address, backend.headers, None, self._timeouts)
            if reply.status < 400:
                return backend.named
        if reply.status >= 400:
            raise Unwell(f"GET /models was answered with status {reply.status}" + _hint(reply.status))
        try:
            rows = json.loads(reply.content[:_LONGEST_LIST])["data"]
            listed = tuple(dict.fromkeys(str(row["id"]) for row in rows))
        except (ValueError, LookupError, TypeError, RecursionError):
            raise Unwell("GET /models was answered with something else than a list of models") from None
        missing = [name for name in backend.named if name not in listed]
        if missing and listed:
            raise Unwell(f"it does not serve {', '.join(missing)} but {', '.join(listed)}"[:200])
        if not listed and not backend.named:
            raise Unwell("it lists no models")
        return backend.named or listed

    def _concluded(self, names: tuple[str, ...] | None, trouble: str | None) -> None:
        backend, settings, before = self._backend, self._settings, self._backend.health
        well = names is not None
        if before == "unknown":
            backend.health = "up" if well else "down"
        elif well == (before == "up"):
            self._row = 0
        else:
            self._row += 1
            needed = settings.down_after if not well else settings.up_after if self._been_up else 1
            if self._row >= needed:
                backend.health = "up" if well else "down"
        if backend.health != before:
            self._row = 0
            if well:
                self._been_up = True
                backend.breaker.try_now(monotonic())
        backend.trouble = trouble
        moved = names is not None and names != tuple(backend.models)
        if names is not None:
            backend.models = names
        if moved or backend.health != before:
            self._changed(backend)


def _hint(status: int) -> str:
    return "; give its key (key_env or --api-key-env)" if status in (401, 403) else ""
