"""What the client gets: completion objects, chunks, usage and the receipt, at once or as server-sent events.

Knows: OpenAI's layout, and which strategies write one text that can be shown while it grows. Standard clients ignore
comments; `reasoning_content` they ignore or show as thinking. Does not know how an answer came about.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from aiohttp import web

from outthink.core.errors import EngineError
from outthink.core.receipt import Receipt, Verdict
from outthink.engines.openai.reading import finish_reason
from outthink.engines.protocol import Call
from outthink.http.fields import JsonDict, encode
from outthink.serving.chat.calls import CALLS_MARK, RawChoice
from outthink.serving.chat.question import Progress
from outthink.strategies import Streams
from outthink.strategies.serial.thinking import CLOSE

DONE = b"data: [DONE]\n\n"
ROLE = {"role": "assistant", "content": ""}
_EMPTY = RawChoice()


class Layout:
    """The parts of one reply that never change.

    Args:
        receipt_id: the receipt's.
        model: as the client asked for it.
        logprobs: the client wants them, with so many alternatives.
    """

    def __init__(self, receipt_id: str, model: str, *, logprobs: bool, top: int | None) -> None:
        self.id, self.model, self.created = "chatcmpl-" + receipt_id.removeprefix("rcpt-"), model, int(time.time())
        self._logprobs, self._top = logprobs, top or 0

    def completion(self, choices: list[JsonDict], usage: JsonDict, receipt: JsonDict) -> JsonDict:
        """The reply as one object."""
        return {**self._head("chat.completion"), "choices": choices, "usage": usage, "outthink": {"receipt": receipt}}

    def choice(self, index: int, text: str, sample: RawChoice | None, *, cut: bool) -> JsonDict:
        """One choice; `cut`: the budget ended before it was finished."""
        return {
            "index": index,
            "message": _message(text, sample),
            "logprobs": self.logprobs(sample.logprobs) if sample is not None else None,
            "finish_reason": finish_reason_of(sample, cut=cut),
            **(sample.more if sample is not None else {}),
        }

    def logprobs(self, entries: Sequence[JsonDict]) -> JsonDict | None:
        """The log-probabilities that the client asked for, None if it did not."""
        if not self._logprobs:
            return None
        return {"content": [self._entry(entry) for entry in entries], "refusal": None}

    def chunk(self, delta: JsonDict, *, index: int = 0, logprobs: JsonDict | None = None) -> bytes:
        """An event with a piece of a choice."""
        return self._event([{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}])

    def last(self, index: int, reason: str, receipt: JsonDict | None) -> bytes:
        """The event that ends a choice; the receipt rides on it."""
        # Official clients break at named events and at empty choices, and never see what follows [DONE].
        beside = {} if receipt is None else {"outthink": {"receipt": receipt}}
        return self._event([{"index": index, "delta": {}, "logprobs": None, "finish_reason": reason}], beside)

    def usage(self, usage: JsonDict) -> bytes:
        """The event that `include_usage` asks for."""
        return self._event([], {"usage": usage})

    def pieces(self, index: int, text: str, sample: RawChoice | None, *, thoughts: bool = True) -> bytes:
        """A decided choice as events; without its `thoughts` where they have been shown."""
        message = _message(text, sample)
        if not thoughts:
            message.pop("reasoning_content", None)
        delta = {name: value for name, value in message.items() if value is not None and (index or name != "role")}
        for place, call in enumerate(delta.get("tool_calls", ())):
            call["index"] = place
        entries = self.logprobs(sample.logprobs) if sample is not None else None
        return self.chunk(delta, index=index, logprobs=entries)

    def _event(self, choices: list[JsonDict], beside: JsonDict | None = None) -> bytes:
        return (
            b"data: " + encode({**self._head("chat.completion.chunk"), "choices": choices, **(beside or {})}) + b"\n\n"
        )

    def _head(self, kind: str) -> JsonDict:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _entry(self, entry: JsonDict) -> JsonDict:
        if not isinstance(entry, dict):  # a backend may send anything
            return entry
        top = entry.get("top_logprobs")
        return {**entry, "top_logprobs": top[: self._top] if isinstance(top, list) else []}


def _message(text: str, sample: RawChoice | None) -> JsonDict:
    """A sample's message; thinking that a strategy has written into the text goes where clients expect it."""
    if sample is not None:
        return sample.message(text.rpartition(CALLS_MARK)[0] if sample.tail else text)
    thoughts, mark, answer = text.rpartition(CLOSE)
    message = _EMPTY.message(answer.lstrip() if mark else text)
    return {**message, "reasoning_content": thoughts} if mark else message


def finish_reason_of(sample: RawChoice | None, *, cut: bool) -> str:
    """Why a choice ended, as clients know it."""
    if sample is None:
        return "length" if cut else "stop"
    if sample.calls:
        return "tool_calls"
    reason = finish_reason(sample.finish)
    return "stop" if reason == "unknown" else "function_call" if sample.function else reason


def usage_of(receipt: Receipt) -> JsonDict:
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


class Streaming:
    """The events of one reply. Tokens are queued by the engine and written by the handler.

    Args:
        headers: of the reply.
        interval: seconds between two signs of life.
        on_first_token: called when a part of the answer, or of the thinking, is on its way.
    """

    def __init__(
        self,
        layout: Layout,
        headers: Mapping[str, str],
        interval: float,
        progress: Progress,
        on_first_token: Callable[[], None],
    ) -> None:
        self.layout, self._headers, self._interval, self._progress = layout, headers, interval, progress
        self._on_first_token = on_first_token
        self.mode: Streams = "progress"
        self.response: web.StreamResponse | None = None
        self.shown = False
        """A part of the answer has been sent."""
        self.thought = False
        """The thinking has been sent."""
        self._first: RawChoice | None = None
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def on_chunk(self, sample: RawChoice, call: Call, chunk: JsonDict) -> None:
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
                self.put(self.layout.chunk({"reasoning_content": text}))
            return
        delta = {name: value for name, value in piece.items() if name != "role" and value not in (None, "", [])}
        if not delta:
            return
        if self._first is None:
            self._first = sample
            self.shown = True
        elif self._first is not sample:  # another attempt would begin the answer anew behind the part that was sent
            raise EngineError("the backend broke off after a part of the answer had been sent; try again", fatal=True)
        logprobs = choice.get("logprobs")
        entries = logprobs.get("content") if isinstance(logprobs, dict) else None
        self.put(self.layout.chunk(delta, logprobs=self.layout.logprobs(entries or ())))

    def put(self, event: bytes) -> None:
        """Queue a part of the answer."""
        self._on_first_token()
        self._queue.put_nowait(event)

    async def write_queued(
        self, request: web.BaseRequest, work: asyncio.Task[Verdict], progress: Callable[[], str]
    ) -> None:
        """Write what is queued until the work has ended. Before the first event nothing has been sent."""
        work.add_done_callback(lambda _: self._queue.put_nowait(None))
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    event = await self._queue.get()
            except TimeoutError:
                await self.write(request, self._sign_of_life(progress()))
                continue
            pieces = []
            while event is not None:  # what has come meanwhile goes out in one write
                pieces.append(event)
                if self._queue.empty():
                    break
                event = self._queue.get_nowait()
            if pieces:
                await self.write(request, b"".join(pieces))
            if event is None:
                return

    async def write(self, request: web.BaseRequest, events: bytes) -> web.StreamResponse:
        """Send events, the head and the role before the first of them."""
        if self.response is None:
            self.response = web.StreamResponse(
                headers={**self._headers, "content-type": "text/event-stream", "cache-control": "no-cache"}
            )
            await self.response.prepare(request)
            events = self.layout.chunk(ROLE) + events
        await self.response.write(events)
        return self.response

    async def end(self, request: web.BaseRequest, events: bytes) -> web.StreamResponse:
        """Send the last events."""
        response = await self.write(request, events)
        await response.write_eof()
        return response

    def _sign_of_life(self, progress: str) -> bytes:
        if self._progress == "reasoning":
            return self.layout.chunk({"reasoning_content": progress + "\n"})
        return b": " + progress.encode() + b"\n\n"
