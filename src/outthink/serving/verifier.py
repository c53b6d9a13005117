"""The verifier of a proxy: opened before it listens, shared by all requests, opened again when it was away.

Knows: that its scores count for policies that were calibrated with it alone, and when it is at hand. Does not know how
it judges, which requests want it, or what they do without.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from outthink.controller.verifier import open_beside
from outthink.core.errors import BadInput, EngineError, OutthinkError
from outthink.http.errors import masked_url
from outthink.verifiers.protocol import Verifier

_log = logging.getLogger("outthink.serving")
_EVERY = 0.25
"""Seconds between two looks at whether it is there."""
_LONGEST = 60.0
"""Seconds of a pause at most; one that was there for so long has the first pause again."""


class ServedVerifier:
    """One proxy's.

    Args:
        source: what `--verifier` says. Raises BadInput for what needs gold answers, or a request's own model.
        check: raises BadInput for the id of a verifier that a policy was not calibrated with.
        pause: seconds until it is opened again, twice as long each time.
    """

    def __init__(self, source: str, check: Callable[[str], None], *, pause: float = 1.0) -> None:
        self.verifier = open_beside(source)
        self.source, self._check, self._pause = masked_url(source), check, pause
        self.without = 0
        """Requests that would have used it, and went without."""
        self._id: str | None = None
        self._problem: str | None = "it is not ready"
        self._task: asyncio.Task[None] | None = None

    @property
    def at_hand(self) -> Verifier | None:
        """The verifier, None while it cannot judge."""
        return None if self.problem is not None else self.verifier

    @property
    def problem(self) -> str | None:
        """Why it cannot judge now, in one line; None where it can."""
        return self._problem or (None if self.verifier.ready else "it has ended or failed, and is opened again")

    async def start(self) -> None:
        """Open it, and keep it at hand from now on; a server that does not answer yet may come later.

        Raises BadInput where it cannot be used, or is not that of a policy; EngineError where its process fails.
        """
        try:
            await self._open()
        except EngineError as error:
            if error.fatal:
                remedy = "name a reward model's folder or hub name, or the URL of its server"
                raise BadInput("verifier", self.source, f"cannot be used ({error})", remedy) from None
            self._problem = str(error)
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End what it runs in."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.verifier.aclose()

    async def _open(self) -> None:
        await self.verifier.prepare()
        told = self.verifier.id
        if self._id not in (None, told):
            await self.verifier.aclose()
            raise BadInput("verifier", told, f"is not what was served before ({self._id})", "start the proxy again")
        self._check(told)
        self._id, self._problem = told, None

    async def _keep(self) -> None:
        pause, since = self._pause, monotonic()
        while True:
            if self.at_hand is not None:
                await asyncio.sleep(_EVERY)
                continue
            if monotonic() - since > _LONGEST:
                pause = self._pause
            _log.error("the verifier %s is away: %s", self.source, self.problem)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)
            try:
                await self._open()
            except OutthinkError as error:
                self._problem = str(error)
            else:
                since = monotonic()
                _log.info("the verifier %s is at hand", self.source)
