"""Whose call runs next where backends take only so many: requests take turns.

One that wants thirty-two samples gets one place in each round, like one that wants a single sample. Nobody starves, and
many small requests are not held up by a large one. Knows requests by number; no calls, no clocks.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable


class Turns:
    """Places on the backends of one model.

    Args:
        limit: calls in flight; asked anew every time, because backends come and go.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit, self.active = limit, 0
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, who: str) -> None:
        """Wait for a place; cancelling gives the turn up."""
        if not self._waiting and self.active < self._limit():
            self.active += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(place)
        self.move()  # a backend may have come meanwhile
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
        self.active -= 1
        self.move()

    def move(self) -> None:
        """Hand out what is free, one place a request and round."""
        while self._waiting and self.active < self._limit():
            who, places = self._waiting.popitem(last=False)
            place = places.popleft()
            if places:
                self._waiting[who] = places  # at the end of the round
            if not place.done():
                self.active += 1
                place.set_result(None)

    def _forget(self, who: str, place: asyncio.Future[None]) -> None:
        places = self._waiting.get(who)
        if places is not None and place in places:
            places.remove(place)
            if not places:
                del self._waiting[who]
