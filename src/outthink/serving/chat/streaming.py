"""A strategy's answer as server-sent events: tokens as they come, signs of life, the answer once decided.

Knows: which strategies write one text that can be shown while it grows. Standard clients ignore
comments; `reasoning_content` they ignore or show as thinking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

from aiohttp import web

from outthink.core.errors import EngineError
from outthink.core.receipt import Verdict
from outthink.engines.protocol import Call
from outthink.serving.chat.completion import Layout
from outthink.serving.chat.gathered import Gathered
from outthink.serving.chat.wish import Progress
from outthink.strategies.serial.thinking import CLOSE

Mode = Literal["tokens", "thinking", "progress"]
ROLE = {"role": "assistant", "content": ""}
_THINKERS = ("budget-forcing", "early-exit", "think-with-me")


def mode_of(strategy: str, choices: int) -> Mode:
    """How a strategy's work can be shown while it runs."""
    if choices == 1 and strategy in ("single", "greedy"):
        return "tokens"
    return "thinking" if choices == 1 and strategy in _THINKERS else "progress"


class Streaming:
    """The events of one reply. Tokens are queued by the engine and written by the handler.

    Args:
        head: headers of the reply.
        beat: seconds between two signs of life.
    """

    def __init__(self, layout: Layout, head: Mapping[str, str], beat: float, progress: Progress) -> None:
        self.layout, self._head, self._beat, self._progress = layout, head, beat, progress
        self.mode: Mode = "progress"
        self.response: web.StreamResponse | None = None
        self.shown = False
        """A part of the answer has been sent."""
        self.thought = False
        """The thinking has been sent."""
        self.spoke: Callable[[], None] = lambda: None
        """Told when a part of the answer, or of the thinking, is on its way."""
        self._first: Gathered | None = None
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def heard(self, sample: Gathered, call: Call, chunk: Mapping[str, Any]) -> None:
        """A chunk has come from a backend."""
        if self.mode == "progress":
            return
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        piece = choice.get("delta") or choice.get("message")
        if not isinstance(piece, dict):
            return
        if self.mode == "thinking":
            if CLOSE not in (call.prefix or "") and isinstance(text := piece.get("content"), str) and text:
                self.thought = True
                self.spoke()
                self._queue.put_nowait(self.layout.chunk({"reasoning_content": text}))
            return
        delta = {name: value for name, value in piece.items() if name != "role" and value not in (None, "", [])}
        if not delta:
            return
        if self._first is None:
            self._first = sample
            self.shown = True
            self.spoke()
        elif self._first is not sample:
            raise EngineError("the backend broke off after a part of the answer had been sent; try again", fatal=True)
        told = choice.get("logprobs")
        entries = told.get("content") if isinstance(told, dict) else None
        self._queue.put_nowait(self.layout.chunk(delta, logprobs=self.layout.logprobs(entries or ())))

    def put(self, event: bytes) -> None:
        """Queue a part of the answer."""
        self.spoke()
        self._queue.put_nowait(event)

    async def pour(self, request: web.BaseRequest, work: asyncio.Task[Verdict], line: Callable[[], str]) -> None:
        """Write what is queued until the work has ended. Before the first event nothing has been sent."""
        work.add_done_callback(lambda _: self._queue.put_nowait(None))
        while True:
            try:
                async with asyncio.timeout(self._beat):
                    event = await self._queue.get()
            except TimeoutError:
                await self.write(request, self._sign(line()))
                continue
            pieces = []
            while event is not None:
                pieces.append(event)
                if self._queue.empty():
                    break
                event = self._queue.get_nowait()
            if pieces:
                await self.write(request, b"".join(pieces))
            if event is None:
                return

    async def write(self, request: web.BaseRequest, events: bytes) -> None:
        """Send events, the head and the role before the first of them."""
        if self.response is None:
            self.response = web.StreamResponse(
                headers={**self._head, "content-type": "text/event-stream", "cache-control": "no-cache"}
            )
            await self.response.prepare(request)
            events = self.layout.chunk(ROLE) + events
        await self.response.write(events)

    def _sign(self, line: str) -> bytes:
        if self._progress == "reasoning":
            return self.layout.chunk({"reasoning_content": line + "\n"})
        return b": " + line.encode() + b"\n\n"
