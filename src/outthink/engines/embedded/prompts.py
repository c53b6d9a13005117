"""Reads a prompt once for several samples of it.

Knows llama.cpp's slots: each keeps its own copy of a prompt, so that eight samples of a new prompt
would read it eight times (measured: 20 s instead of 3 for 180 tokens on one core). One slot reads it,
its state is saved and restored into the slots of the others, which takes milliseconds. Does not know
the engine, and never fails a call: what goes wrong here only costs time.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from outthink.core.errors import EngineError
from outthink.engines.openai import OpenAIEngine
from outthink.engines.openai.body import body, template
from outthink.engines.protocol import Call
from outthink.http.events import JsonObject

_GATHER = 0.01  # seconds in which calls for one prompt are taken to belong together
_SETTLE = 0.05  # seconds until calls that were let go have taken their slots
_PATIENCE = 5.0  # seconds for saving and restoring
_UNNEEDED = ("stream", "stream_options", "timings_per_token", "logprobs", "top_logprobs", "stop", "verbose")


@dataclass(slots=True)
class _Group:
    """Calls that wait for the same prompt to be read."""

    first: Call
    members: int = 0
    task: asyncio.Task[int | None] | None = None
    charged: bool = False


class PromptReader:
    """One server's prompts.

    Args:
        engine: the client of the server.
        folder: where the server saves slots.
        slots: how many it has.
    """

    def __init__(self, engine: OpenAIEngine, folder: Path, slots: int) -> None:
        self._engine, self._folder, self._slots = engine, folder, slots
        self._groups: dict[str, _Group] = {}
        self._held: OrderedDict[str, int] = OrderedDict()  # prompt -> slots that hold it, by all we know
        self._used: Counter[str] = Counter()  # prompt -> calls that run
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock: asyncio.Lock
        self._settled = 0.0

    @asynccontextmanager
    async def place(self, call: Call) -> AsyncGenerator[int | None]:
        """A block in which this call may run, entered when its prompt is best read by the call itself.

        Gives how many of its tokens were cached before a group's prompt was read, to one member of
        the group: the one that the reading is charged to. None to all others.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # what the last loop left behind does not run any more
            self._loop, self._lock, self._settled = loop, asyncio.Lock(), 0.0
            self._groups.clear()
            self._used.clear()
        # Messages may hold dictionaries, which no hash takes.
        key = repr((call.messages, call.prefix, template(call, self._engine.facts)))
        cached = None
        if self._used[key] >= self._held.get(key, 0):
            cached = await self._join(key, call)
        self._used[key] += 1
        try:
            yield cached
        finally:
            self._used[key] -= 1
            if self._used[key] <= 0:
                del self._used[key]

    async def _join(self, key: str, call: Call) -> int | None:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(call)
            group.task = asyncio.create_task(self._gather(key, group))
        assert group.task is not None
        group.members += 1
        try:
            cached = await asyncio.shield(group.task)
        except EngineError:
            return None  # the call itself will meet the same trouble and report it
        finally:
            group.members -= 1
            if not group.members and not group.task.done():  # all have left
                group.task.cancel()
                if self._groups.get(key) is group:
                    del self._groups[key]
        if group.charged:
            return None
        group.charged = True
        return cached

    async def _gather(self, key: str, group: _Group) -> int | None:
        try:
            await asyncio.sleep(_GATHER)
            cached = None
            if group.members > 1:
                async with self._lock:
                    await asyncio.sleep(self._settled - asyncio.get_running_loop().time())
                    cached = await self._share(group)
                    self._settled = asyncio.get_running_loop().time() + _SETTLE
            self._hold(key, group.members)
            return cached
        finally:
            if self._groups.get(key) is group:
                del self._groups[key]

    def _hold(self, key: str, slots: int) -> None:
        """Note that slots hold this prompt now, which they took from those not used for longest."""
        self._held[key] = min(self._held.get(key, 0) + slots, self._slots)
        self._held.move_to_end(key)
        while (excess := sum(self._held.values()) - self._slots) > 0:
            oldest = next(iter(self._held))
            self._held[oldest] -= excess
            if self._held[oldest] <= 0:
                del self._held[oldest]

    async def _share(self, group: _Group) -> int | None:
        """Read the prompt in one slot and copy it into as many as wait for it."""
        idle = await self._idle()
        if len(idle) < 2:
            return None
        source = idle[0]
        sent = body(group.first, self._engine.model, self._engine.facts)
        for name in _UNNEEDED:
            sent.pop(name, None)
        # The one token comes from the logits that reading leaves behind: it costs no pass of the model.
        reply = await self._ask("/v1/chat/completions", {**sent, "max_tokens": 1, "id_slot": source})
        if reply is None:
            return None
        name = f"{secrets.token_hex(8)}.slot"
        try:
            async with asyncio.timeout(_PATIENCE):
                if await self._ask(f"/slots/{source}?action=save", {"filename": name}) is not None:
                    others = [slot for slot in await self._idle() if slot != source]
                    for slot in others[: group.members - 1]:
                        await self._ask(f"/slots/{slot}?action=restore", {"filename": name})
        except TimeoutError:
            pass  # a slot was taken meanwhile; whoever got none reads the prompt itself
        finally:
            (self._folder / name).unlink(missing_ok=True)  # it holds the prompt
        timings = reply.get("timings")
        cached = timings.get("cache_n") if isinstance(timings, dict) else None
        return cached if isinstance(cached, int) else None

    async def _idle(self) -> list[int]:
        answer = await self._engine.server.fetch("/slots", root=True)
        slots = answer.json() if answer.status == 200 else None
        idle = [slot for slot in slots if isinstance(slot, dict)] if isinstance(slots, list) else []
        return [slot["id"] for slot in idle if not slot.get("is_processing") and isinstance(slot["id"], int)]

    async def _ask(self, path: str, sent: JsonObject) -> JsonObject | None:
        return (await self._engine.server.fetch(path, sent, root=True)).object()
