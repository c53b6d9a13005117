"""What the client gets: completion objects, chunks, usage and the receipt. Knows OpenAI's layout; does no I/O."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from outthink.core.errors import EngineError
from outthink.core.receipt import Receipt, Verdict
from outthink.engines.openai.reading import finish_reason
from outthink.engines.protocol import Call
from outthink.serving.bodies import encode
from outthink.serving.chat.calls import CALLS_MARK, RawChoice
from outthink.serving.chat.question import Progress
from outthink.strategies import Streams
from outthink.strategies.serial.thinking import CLOSE

DONE = b"data: [DONE]\n\n"
_EMPTY = RawChoice()


class Layout:
    """The parts of one reply that never change.

    Args:
        number: the receipt's.
        model: as the client asked for it.
        logprobs: the client wants them, with so many alternatives.
    """

    def __init__(self, number: str, model: str, *, logprobs: bool, top: int | None) -> None:
        self.id, self.model, self.created = "chatcmpl-" + number.removeprefix("rcpt-"), model, int(time.time())
        self._logprobs, self._top = logprobs, top or 0

    def whole(self, choices: list[dict[str, Any]], usage: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
        """A completion."""
        return {**self._head("chat.completion"), "choices": choices, "usage": usage, "outthink": {"receipt": told}}

    def choice(self, at: int, text: str, sample: RawChoice | None, *, cut: bool) -> dict[str, Any]:
        """One choice; `cut`: the budget ended before it was finished."""
        return {
            "index": at,
            "message": message(text, sample),
            "logprobs": self.logprobs(sample.logprobs) if sample is not None else None,
            "finish_reason": reason(sample, cut=cut),
            **(sample.more if sample is not None else {}),
        }

    def logprobs(self, entries: Sequence[Any]) -> dict[str, Any] | None:
        """The log-probabilities that the client asked for, None if it did not."""
        if not self._logprobs:
            return None
        return {"content": [self._entry(entry) for entry in entries], "refusal": None}

    def chunk(self, delta: Mapping[str, Any], *, at: int = 0, logprobs: Any = None) -> bytes:
        """An event with a piece of a choice."""
        choice = {"index": at, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        return b"data: " + encode({**self._head("chat.completion.chunk"), "choices": [choice]}) + b"\n\n"

    def last(self, at: int, why: str, told: Mapping[str, Any] | None) -> bytes:
        """The event that ends a choice; the receipt rides on it."""
        choice = {"index": at, "delta": {}, "logprobs": None, "finish_reason": why}
        value = {**self._head("chat.completion.chunk"), "choices": [choice]}
        if told is not None:
            value["outthink"] = {"receipt": told}
        return b"data: " + encode(value) + b"\n\n"

    def usage(self, usage: Mapping[str, Any]) -> bytes:
        """The event that `include_usage` asks for."""
        value = {**self._head("chat.completion.chunk"), "choices": [], "usage": usage}
        return b"data: " + encode(value) + b"\n\n"

    def pieces(self, at: int, text: str, sample: RawChoice | None, *, thoughts: bool = True) -> bytes:
        """A decided choice as events; without its `thoughts` where they have been shown."""
        made = message(text, sample)
        if not thoughts:
            made.pop("reasoning_content", None)
        delta = {name: value for name, value in made.items() if value is not None and (at or name != "role")}
        for place, call in enumerate(delta.get("tool_calls", ())):
            call["index"] = place
        entries = self.logprobs(sample.logprobs) if sample is not None else None
        return self.chunk(delta, at=at, logprobs=entries)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _entry(self, entry: Any) -> Any:
        if not isinstance(entry, dict):
            return entry
        top = entry.get("top_logprobs")
        return {**entry, "top_logprobs": top[: self._top] if isinstance(top, list) else []}


def message(text: str, sample: RawChoice | None) -> dict[str, Any]:
    """A sample's message; thinking that a strategy has written into the text goes where clients expect it."""
    if sample is not None:
        return sample.message(text.rpartition(CALLS_MARK)[0] if sample.tail else text)
    thoughts, mark, answer = text.rpartition(CLOSE)
    made = _EMPTY.message(answer.lstrip() if mark else text)
    return {**made, "reasoning_content": thoughts} if mark else made


def reason(sample: RawChoice | None, *, cut: bool) -> str:
    """Why a choice ended, as clients know it."""
    if sample is None:
        return "length" if cut else "stop"
    if sample.calls:
        return "tool_calls"
    told = finish_reason(sample.finish)
    return "stop" if told == "unknown" else "function_call" if sample.function else told


def usage_of(receipt: Receipt) -> dict[str, Any]:
    """Everything that was spent; what no server has counted stands at its upper bound, as in the budget."""
    prompt = completion = cached = 0
    for entry in receipt.entries:
        read = entry.prompt_tokens or 0
        prompt += read
        cached += entry.cached_tokens or 0
        if entry.tokens is None:
            completion += max(entry.seen_tokens, (entry.reserved_tokens or 0) - read)
        else:
            completion += (entry.completion_tokens or 0) + (entry.cancelled_tokens or 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


# A strategy's answer as server-sent events: tokens as they come, signs of life, the answer once decided.
#
# Knows: which strategies write one text that can be shown while it grows. Standard clients ignore
# comments; `reasoning_content` they ignore or show as thinking.

ROLE = {"role": "assistant", "content": ""}


class Streaming:
    """The events of one reply. Tokens are queued by the engine and written by the handler.

    Args:
        head: headers of the reply.
        beat: seconds between two signs of life.
    """

    def __init__(self, layout: Layout, head: Mapping[str, str], beat: float, progress: Progress) -> None:
        self.layout, self._head, self._beat, self._progress = layout, head, beat, progress
        self.mode: Streams = "progress"
        self.response: web.StreamResponse | None = None
        self.shown = False
        """A part of the answer has been sent."""
        self.thought = False
        """The thinking has been sent."""
        self.on_first_token: Callable[[], None] = lambda: None
        """Told when a part of the answer, or of the thinking, is on its way."""
        self._first: RawChoice | None = None
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def on_chunk(self, sample: RawChoice, call: Call, chunk: Mapping[str, Any]) -> None:
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
                self.on_first_token()
                self._queue.put_nowait(self.layout.chunk({"reasoning_content": text}))
            return
        delta = {name: value for name, value in piece.items() if name != "role" and value not in (None, "", [])}
        if not delta:
            return
        if self._first is None:
            self._first = sample
            self.shown = True
            self.on_first_token()
        elif self._first is not sample:
            raise EngineError("the backend broke off after a part of the answer had been sent; try again", fatal=True)
        told = choice.get("logprobs")
        entries = told.get("content") if isinstance(told, dict) else None
        self._queue.put_nowait(self.layout.chunk(delta, logprobs=self.layout.logprobs(entries or ())))

    def put(self, event: bytes) -> None:
        """Queue a part of the answer."""
        self.on_first_token()
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
