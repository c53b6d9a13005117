"""Whose call runs next where a backend takes only so many. Knows requests by number; no calls, no clocks.

Requests take turns: one that wants thirty-two samples gets one place in each round, like one that wants
a single sample. Nobody starves, and many small requests are not held up by a large one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque


class Turns:
    """Places on one backend model.

    Args:
        limit: calls in flight.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.active = limit, 0
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, who: str) -> None:
        """Wait for a place; cancelling gives the turn up."""
        if self.active < self.limit and not self._waiting:
            self.active += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give()  # the place had come at that very moment
            else:
                self._forget(who, place)
            raise

    def give(self) -> None:
        """Give a place back; the next request in the round gets it."""
        while self._waiting:
            who, places = self._waiting.popitem(last=False)
            place = places.popleft()
            if places:
                self._waiting[who] = places  # at the end of the round
            if not place.done():
                place.set_result(None)
                return
        self.active -= 1

    def _forget(self, who: str, place: asyncio.Future[None]) -> None:
        places = self._waiting.get(who)
        if places is not None and place in places:
            places.remove(place)
            if not places:
                del self._waiting[who]
