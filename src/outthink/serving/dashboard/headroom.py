"""How much of the configured GPUs the last hour's requests use, for the dashboard and the metrics.

Knows: that the ledger is asked in pages and the figures are computed in a thread, once a minute at most and only while
somebody looks. Does not know a formula, or how figures are shown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict

from outthink.core.errors import OutthinkError
from outthink.economics.capacity.served import ServedLoad
from outthink.economics.capacity.server import CapacityServer
from outthink.http.fields import JsonDict
from outthink.serving.app import App
from outthink.serving.protocols import LedgerDown, SearchTerms

HOUR = 3600.0
MINUTE = 60.0
"""Seconds for which figures are kept, and of the span at the least."""
PAGE, PAGES = 1000, 20
"""Requests of a look at the ledger, and looks: beyond that many the newest are taken, with the time they cover."""


class HourlyHeadroom:
    """Of one proxy.

    Args:
        app: whose ledger is asked.
        server: the GPUs behind it.
        clock: seconds since the epoch.
    """

    def __init__(self, app: App, server: CapacityServer, clock: Callable[[], float] = time.time) -> None:
        self._app, self._server, self._clock = app, server, clock
        self._told: JsonDict | None = None
        self._looked = -MINUTE
        self._looking: asyncio.Task[None] | None = None

    def now(self) -> JsonDict | None:
        """The latest figures, None before the first; old ones are renewed for the next who asks. Never waits."""
        idle = self._looking is None or self._looking.done()
        fresh = 0 <= self._clock() - self._looked < MINUTE  # a clock may be set back
        if idle and not fresh and not self._app.stopping:
            self._looked = self._clock()
            self._looking = self._app.later(self._look())
        return self._told

    async def _look(self) -> None:
        until = self._clock()
        load = ServedLoad(until - HOUR, until)
        figures: JsonDict = dict.fromkeys(("used", "rate", "limit", "needed", "binding"))
        problem = None
        try:
            await self._read(load)
            figures["used"] = 0.0
            if load:
                found = await asyncio.to_thread(lambda: self._server.headroom(load.workload(), load.rate))
                figures = {**asdict(found), "used": found.used}
        except LedgerDown as error:
            problem = error.public
        except OutthinkError as error:  # a request that the configured server could not take
            figures["used"], problem = None, str(error)
        self._told = {
            "at": until,
            "seconds": load.seconds,
            "requests": len(load),
            "unknown": load.unknown,
            "gpus": self._server.gpus,
            "gpu": None if self._server.gpu is None else self._server.gpu.name,
            "utilisation": self._server.settings.utilisation,
            **figures,
            "problem": problem,
        }

    async def _read(self, load: ServedLoad) -> None:
        """Fill the load from the ledger."""
        ledger = self._app.ledger
        terms: SearchTerms = {"since": load.since, "until": load.until, "limit": PAGE}
        for _ in range(PAGES):
            page = await ledger.search(**terms)
            # Records of strategies hold a hundred calls each: they are counted away from the loop, and let go.
            await asyncio.to_thread(load.add, page)
            if len(page) < PAGE:
                if not await ledger.search(until=load.since, limit=1):
                    load.begin_at_first(MINUTE)
                return
            terms["before"] = page[-1].id
        load.begin_at_first(MINUTE)
