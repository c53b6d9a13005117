"""What the client gets: completion objects, chunks, usage and the receipt, at once or as server-sent events.

Knows: OpenAI's layout, and which strategies write one text that can be shown while it grows. Standard clients ignore
comments; `reasoning_content` they ignore or show as thinking. Does not know how an answer came about.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from aiohttp import web

from outthink.core.errors import EngineError
from outthink.core.receipt import Receipt, Verdict
from outthink.core.text import writable_json
from outthink.engines.openai.reading import finish_reason
from outthink.engines.protocol import Call
from outthink.http.events import Json
from outthink.http.fields import JsonDict, encode
from outthink.http.pieces import index_of, placed, whole
from outthink.http.usage import read_count
from outthink.serving.chat.calls import CALLS_MARK, RawChoice
from outthink.serving.chat.question import Progress
from outthink.serving.pool.transport import write_paced
from outthink.strategies import Streams
from outthink.strategies.serial.thinking import CLOSE

_Place = tuple[str | int, ...]
"""Where a text of a message stands: names, and the indices of elements."""
DONE = b"data: [DONE]\n\n"
ROLE = {"role": "assistant", "content": ""}
_EMPTY = RawChoice()


def written(value: JsonDict) -> bytes:
    """A reply or an event as JSON; what is left of a character of which only half came is U+FFFD."""
    content = encode(value)
    return content if b"\\ud" not in content else writable_json(content.decode()).encode()


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

    def completion(
        self, choices: list[JsonDict], usage: JsonDict, receipt: JsonDict, sample: RawChoice | None
    ) -> JsonDict:
        """The reply as one object; `sample`: of its first choice."""
        told = {"choices": choices, "usage": usage, "outthink": {"receipt": receipt}}
        return {**_beside(sample), **self._head("chat.completion"), **told}

    def choice(self, index: int, text: str, sample: RawChoice | None, *, cut: bool) -> JsonDict:
        """One choice; `cut`: the budget ended before it was finished."""
        return {
            "index": index,
            "message": _message(text, sample),
            "logprobs": self.logprobs(sample),
            "finish_reason": finish_reason_of(sample, cut=cut),
            **_more(sample),
        }

    def logprobs(self, sample: RawChoice | None, begin: tuple[int, int] = (0, 0)) -> JsonDict | None:
        """The log-probabilities that the client asked for, None if it did not.

        Args:
            begin: the first entries of the content and of the refusal that are wanted.
        """
        if not self._logprobs or sample is None:
            return None
        content, refusal = sample.logprobs[begin[0] :], sample.refused[begin[1] :]
        return {"content": [*map(self._entry, content)], "refusal": [*map(self._entry, refusal)] or None}

    def chunk(self, delta: JsonDict, *, index: int = 0, logprobs: JsonDict | None = None) -> bytes:
        """An event with a piece of a choice."""
        return self._event([{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}])

    def last(self, index: int, reason: str, receipt: JsonDict | None, sample: RawChoice | None) -> bytes:
        """The event that ends a choice; the receipt rides on it, and what else was told of the choice."""
        # Official clients break at named events and at empty choices, and never see what follows [DONE].
        beside = {} if receipt is None else {**_beside(sample), "outthink": {"receipt": receipt}}
        choice = {"index": index, "delta": {}, "logprobs": None, "finish_reason": reason, **_more(sample)}
        return self._event([choice], beside)

    def usage(self, usage: JsonDict, sample: RawChoice | None) -> bytes:
        """The event that `include_usage` asks for; `sample`: of the first choice."""
        # The official client takes the fingerprint of the last chunk for that of the reply.
        beside = {name: value for name, value in _beside(sample).items() if isinstance(value, str)}
        return self._event([], {**beside, "usage": usage})

    def pieces(self, index: int, text: str, sample: RawChoice | None, *, thoughts: bool = True) -> bytes:
        """A decided choice as events; without its `thoughts` where they have been shown."""
        message = _message(text, sample)
        if not thoughts:
            message.pop("reasoning_content", None)
        delta: JsonDict = {
            name: placed(value) for name, value in message.items() if value is not None and (index or name != "role")
        }
        if sample is not None and sample.calls:
            delta["tool_calls"] = [{**call, "index": place} for place, call in enumerate(delta["tool_calls"])]
        return self.chunk(delta, index=index, logprobs=self.logprobs(sample))

    def _event(self, choices: list[JsonDict], beside: JsonDict | None = None) -> bytes:
        return (
            b"data: " + written({**self._head("chat.completion.chunk"), "choices": choices, **(beside or {})}) + b"\n\n"
        )

    def _head(self, kind: str) -> JsonDict:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _entry(self, entry: Json) -> Json:
        if not isinstance(entry, dict):  # a backend may send anything
            return entry
        top = entry.get("top_logprobs")
        return {**entry, "top_logprobs": top[: self._top] if isinstance(top, list) else []}


def _message(text: str, sample: RawChoice | None) -> JsonDict:
    """A sample's message; thinking that a strategy has written into the text goes where clients expect it."""
    if sample is not None:
        return sample.message(text.rpartition(CALLS_MARK)[0] if sample.calls or sample.function else text)
    thoughts, mark, answer = text.rpartition(CLOSE)
    message = _EMPTY.message(answer.lstrip() if mark else text)
    return {**message, "reasoning_content": thoughts} if mark else message


def _more(sample: RawChoice | None) -> JsonDict:
    """Fields of a choice that nobody here knows."""
    return {} if sample is None else {name: whole(value) for name, value in sample.more.items()}


def _beside(sample: RawChoice | None) -> JsonDict:
    """Fields of a reply that nobody here knows."""
    return {} if sample is None else sample.beside


def finish_reason_of(sample: RawChoice | None, *, cut: bool) -> str:
    """Why a choice ended, as clients know it."""
    if sample is None:
        return "length" if cut else "stop"
    reason = finish_reason(sample.finish)
    if reason in ("length", "content_filter"):  # also where calls have come: the last of them may lack its end
        return reason
    if sample.calls or sample.function:
        return "tool_calls" if sample.calls else "function_call"
    return "stop" if reason == "unknown" else reason


def usage_of(receipt: Receipt, choices: Sequence[RawChoice]) -> JsonDict:
    """Everything that was spent; what no server has counted stands at its upper bound, as in the budget.

    Args:
        choices: of all calls, whose servers may have told more of what they have counted.
    """
    prompt = completion = cached = 0
    for entry in receipt.entries:
        read = entry.prompt_tokens or 0
        prompt += read
        cached += entry.cached_tokens or 0
        if entry.tokens is None:
            completion += max(entry.seen_tokens, (entry.reserved_tokens or 0) - read)
        else:
            completion += (entry.completion_tokens or 0) + (entry.cancelled_tokens or 0)
    details: JsonDict = {}
    for choice in choices:
        for name, counts in choice.details.items():
            summed = details.setdefault(name, {})
            for part, told in counts.items():
                if (count := read_count(told)) is not None:
                    summed[part] = summed.get(part, 0) + count
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **details,
        "prompt_tokens_details": {**details.get("prompt_tokens_details", {}), "cached_tokens": cached},
    }


def _index(item: Json, at: int) -> int:
    """The index of an element; its place where it has none."""
    index = index_of(item) if isinstance(item, dict) else None
    return at if index is None else index


def _at(place: _Place, text: str) -> JsonDict:
    """A delta that adds a text at its place."""
    name, *steps = place
    value: Json = text
    for step in reversed(steps):
        if isinstance(step, str):
            value = {step: value}
        else:
            value = [{**value, "index": step} if isinstance(value, dict) else value]
    return {str(name): value}


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
        self._halves: dict[_Place, str] = {}
        """Half a character of a text, as some servers cut them: the rest of it comes with the next piece."""
        self._told = (0, 0)
        """Entries of log-probabilities that have been sent."""
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()

    def on_chunk(self, sample: RawChoice, call: Call, delta: JsonDict) -> None:
        """A chunk has come from a backend, and has added this to its message."""
        if self.mode == "progress":
            return
        if self.mode == "thinking":
            if CLOSE not in (call.prefix or "") and (text := delta.get("content")):
                self.thought = True
                self.put(self.layout.chunk({"reasoning_content": text}))
            return
        if len(delta) != 1 or type(text := delta.get("content")) is not str or self._halves or text[-1:] >= "\ud800":
            delta = {name: self._in_wholes((name,), value) for name, value in delta.items()}
        told = len(sample.logprobs), len(sample.refused)
        if not delta and told == self._told:
            return
        if self._first is None:
            self._first = sample
            self.shown = True
        elif self._first is not sample:  # another attempt would begin the answer anew behind the part that was sent
            raise EngineError("the backend broke off after a part of the answer had been sent; try again", fatal=True)
        logprobs = self.layout.logprobs(sample, self._told)
        self._told = told
        if delta or logprobs is not None:
            self.put(self.layout.chunk(delta, logprobs=logprobs))

    def _in_wholes(self, place: _Place, value: Json) -> Json:
        """What is new in a message, without halves of characters."""
        if isinstance(value, dict):
            return {name: self._in_wholes((*place, name), inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._in_wholes((*place, _index(item, at)), item) for at, item in enumerate(value)]
        if not isinstance(value, str) or not value:
            return value
        text = self._halves.pop(place, "") + value
        if not "\ud800" <= text[-1] <= "\udbff":
            return text
        self._halves[place] = text[-1]
        return text[:-1]

    def rest(self) -> bytes:
        """What was held back of an answer that has been shown piece by piece."""
        rest = self._first.rest() if self._first is not None else {}
        held = [rest] if rest else []
        held += [_at(place, half) for place, half in self._halves.items()]
        return b"".join(map(self.layout.chunk, held))

    def put(self, event: bytes) -> None:
        """Queue a part of the answer."""
        self._on_first_token()
        if threading.get_ident() == self._thread:
            self._queue.put_nowait(event)
        else:  # long events are read beside the event loop
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

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
        await write_paced(self.response, events)
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
