"""The engine of one request: the OpenAI engine, with the client's own fields in every body.

Knows: messages and unknown fields go out as they came, and each sample is gathered whole. Facts about
the server are shared by all requests for a model; nothing of a client is.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from outthink.core.errors import EngineError
from outthink.core.request import Message
from outthink.engines.openai.engine import OpenAIEngine
from outthink.engines.openai.facts import Facts
from outthink.engines.openai.reading import CompletionReader
from outthink.engines.protocol import Call, Delta, Engine, Event, Features, Finish
from outthink.http.errors import ErrorMessage, ErrorWriter
from outthink.http.events import Decoder
from outthink.http.server import Server
from outthink.http.transport import Timeouts, Transport
from outthink.serving.bodies import decode, encode
from outthink.serving.chat.joint import SharedCalls
from outthink.serving.chat.pooled import BASE

# Chunks that came together as fewer chunks: tokens of one text that nobody looks at one by one.
#
# Knows: which chunks hold nothing but text and its log-probabilities. Everything else is left as it came.

_PLAIN = frozenset({"index", "delta", "finish_reason", "logprobs"})
_BESIDE = ("usage", "timings", "error")

Chunk = dict[str, Any]


def merged(chunks: list[Chunk]) -> tuple[list[Chunk], int]:
    """The chunks, runs of plain text made one, and how many held text before."""
    if len(chunks) < 2:
        return chunks, len(chunks)
    found: list[Chunk] = []
    texts: list[str] = []
    entries: list[Any] = []
    last: Chunk | None = None
    count = 0
    for chunk in chunks:
        choice = _plain(chunk)
        if choice is None:
            if last is not None:
                found.append(_joined(last, texts, entries))
                texts, entries, last = [], [], None
            found.append(chunk)
            continue
        told = choice.get("logprobs")
        some = told.get("content") if told is not None else None
        if last is not None and bool(some) != bool(entries):  # counted differently, so not to be mixed
            found.append(_joined(last, texts, entries))
            texts, entries = [], []
        texts.append(choice["delta"]["content"])
        if some:
            entries += some
        last, count = chunk, count + 1
    if last is not None:
        found.append(_joined(last, texts, entries))
    return found, count


def _plain(chunk: Chunk) -> dict[str, Any] | None:
    """The choice of a chunk that holds text and nothing that could matter besides."""
    choices = chunk.get("choices")
    if type(choices) is not list or len(choices) != 1:
        return None
    choice = choices[0]
    if type(choice) is not dict or choice.get("finish_reason") is not None or not choice.keys() <= _PLAIN:
        return None
    delta = choice.get("delta")
    if type(delta) is not dict or len(delta) != 1 or type(delta.get("content")) is not str or not delta["content"]:
        return None
    told = choice.get("logprobs")
    if told is not None and (type(told) is not dict or type(told.get("content")) is not list):
        return None
    for name in _BESIDE:
        if chunk.get(name) is not None:
            return None
    return choice if choice.get("index") in (0, None) else None


def _joined(chunk: Chunk, texts: list[str], entries: list[Any]) -> Chunk:
    """The last chunk with the text of all."""
    choice = chunk["choices"][0]
    told = {**choice["logprobs"], "content": entries} if entries else choice.get("logprobs")
    return {**chunk, "choices": [{**choice, "delta": {"content": "".join(texts)}, "logprobs": told}]}


# One sample as its backend sent it: tool calls, log-probabilities, reasons and unknown fields.
#
# Knows: how streamed pieces of a choice make one message. A session sees texts; what a text leaves out
# is kept here, and found again by that text.

MARK = "<tool_calls>"
"""Stands in a sample's text between its content and its calls."""
_KNOWN = frozenset({"role", "content", "tool_calls", "function_call", "refusal", "reasoning", "reasoning_content"})
_CHOICE = frozenset({"index", "delta", "message", "finish_reason", "logprobs", "text"})


class RawReply:
    """The choice of one call, piece by piece."""

    __slots__ = ("calls", "extra", "finish", "function", "logprobs", "more", "reasoning", "refusal", "text", "times")

    def __init__(self) -> None:
        self.text = ""
        self.calls: dict[int, dict[str, Any]] = {}
        self.function: dict[str, Any] | None = None
        self.refusal = self.reasoning = ""
        self.logprobs: list[Any] = []
        self.finish: str | None = None
        self.extra: dict[str, Any] = {}
        """Unknown fields of the message."""
        self.more: dict[str, Any] = {}
        """Unknown fields of the choice."""
        self.times = 0

    def take(self, chunk: Mapping[str, Any]) -> None:
        """Add a chunk of the reply."""
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        piece = choice.get("delta")
        if not isinstance(piece, dict):
            piece = choice.get("message")
        if isinstance(piece, dict):
            self._message(piece)
        told = choice.get("logprobs")
        if isinstance(told, dict) and isinstance(entries := told.get("content"), list):
            self.logprobs += entries
        if isinstance(reason := choice.get("finish_reason"), str):
            self.finish = reason
        for name, value in choice.items():
            if name not in _CHOICE and value is not None:
                self.more[name] = value

    def _message(self, piece: dict[str, Any]) -> None:
        for at, call in enumerate(piece.get("tool_calls") or ()):
            if isinstance(call, dict):
                place = call.get("index")
                self._call(place if isinstance(place, int) else at, call)
        if isinstance(function := piece.get("function_call"), dict):
            self.function = _merged(self.function or {}, function)
        self.refusal += piece.get("refusal") or ""
        self.reasoning += piece.get("reasoning_content") or piece.get("reasoning") or ""
        for name, value in piece.items():
            if name not in _KNOWN and value is not None:
                self.extra[name] = value

    def _call(self, place: int, piece: dict[str, Any]) -> None:
        known = self.calls.setdefault(place, {})
        for name, value in piece.items():
            if name == "index" or value is None:
                continue
            known[name] = _merged(known.get(name) or {}, value) if isinstance(value, dict) else value

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The calls in the order of their indices, a legacy `function_call` included."""
        calls = [{"type": "function", **self.calls[place]} for place in sorted(self.calls)]
        return calls + ([{"type": "function", "function": self.function}] if self.function else [])

    @property
    def tail(self) -> str:
        """What the sample's text gets behind its content, so that calls are part of what is compared."""
        calls = [call.get("function") or call.get("custom") for call in self.tool_calls]
        return MARK + json.dumps(calls, sort_keys=True) if calls else ""

    def message(self, content: str, *, thoughts: bool = True) -> dict[str, Any]:
        """The message as one object, in OpenAI's layout."""
        made: dict[str, Any] = {"role": "assistant", "content": content or (None if self.tool_calls else "")}
        made["refusal"] = self.refusal or None
        if self.refusal and content == self.refusal:
            made["content"] = None  # the engine reads a refusal as text
        if self.reasoning and thoughts:
            made["reasoning_content"] = self.reasoning
        if self.calls:
            made["tool_calls"] = [{"type": "function", **self.calls[place]} for place in sorted(self.calls)]
        if self.function:
            made["function_call"] = self.function
        return {**made, **self.extra}


def _merged(known: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
    """Texts are continued, except names, which servers may repeat; other values replace."""
    merged = dict(known)
    for name, value in piece.items():
        if isinstance(value, str) and isinstance(before := merged.get(name), str):
            merged[name] = before if name == "name" and value == before else before + value
        elif value is not None:
            merged[name] = value
    return merged


Heard = Callable[[RawReply, Call, Mapping[str, Any]], None]
"""Sees the sample, its call, and a chunk that has just been added to it."""


class _Voice(ErrorWriter):
    """Remembers the status of the last refusal, for the client's error object; names no address."""

    status_code: int | None = None
    said: str = ""

    def refused(self, status: int, told: ErrorMessage, *, wait: float | None = None, model: str = "") -> EngineError:
        """The error for a refusal."""
        self.status_code, self.said = status, self.clean(told.message)
        return super().refused(status, told, wait=wait, model=model)


class _Server(Server):
    """Encodes quickly: one request may send dozens of bodies."""

    def encode(self, body: Mapping[str, Any]) -> bytes:
        """A body as JSON."""
        return encode(body)


class ChatCallEngine(OpenAIEngine):
    """The engine of one call."""

    call: Call | None = None
    gathered: RawReply
    choices = 1
    """Completions that its next request asks for."""

    def __init__(self, owner: ChatEngine, url: str, model: str, **options: Any) -> None:
        super().__init__(url, model, **options)
        self._owner = owner
        self._ready = True  # its model is known, and so are the facts

    def body(self, call: Call) -> dict[str, Any]:
        """A call's body with the client's own fields."""
        sent = self._owner.sent(call, super().body(call))
        return sent if self.choices == 1 else {**sent, "n": self.choices}

    @property
    def refused_with(self) -> int | None:
        """The status of the request's last refusal."""
        return self._owner.voice.status_code

    def decoder(self) -> Decoder:
        """What reads a reply's bytes."""
        return Decoder(decode)

    def hear(self, chunks: list[dict[str, Any]], reading: CompletionReader) -> tuple[Delta | None, EngineError | None]:
        if self._owner.heard is not None:
            return super().hear(chunks, reading)
        fewer, texts = merged(chunks)
        delta, broken = super().hear(fewer, reading)
        if delta is not None:
            delta.pieces = max(delta.pieces, texts)
        return delta, broken

    def _take(self, chunk: dict[str, Any], reading: CompletionReader) -> Delta | None:
        if self.call is not None:
            self.gathered.take(chunk)
            if self._owner.heard is not None:
                self._owner.heard(self.gathered, self.call, chunk)
        return super()._take(chunk, reading)


class ChatEngine(Engine):
    """Calls of one request to one model.

    Args:
        messages: the chat as `Message`s, and `raw` as it came.
        extra: fields of the request's body that are sent along untouched.
        top_logprobs: alternatives that the client wants with every token, None for none.
        heard: sees every chunk of every call as it comes.
        concurrency: calls that may be in flight for this request.
    """

    model: str
    concurrency: int

    def __init__(
        self,
        model: str,
        transport: Transport,
        facts: Facts,
        *,
        messages: tuple[Message, ...],
        raw: Sequence[Any],
        extra: Mapping[str, Any],
        top_logprobs: int | None = None,
        timeouts: Timeouts,
        concurrency: int = 64,
        heard: Heard | None = None,
    ) -> None:
        self.model = model
        self._messages, self._raw, self._extra, self._top = messages, raw, extra, top_logprobs
        self.concurrency, self.heard = concurrency, heard
        self.joint: SharedCalls | None = None
        """Shares calls where that is possible and wanted."""
        self.samples: dict[str, RawReply] = {}
        """Finished samples by their texts; the first of equal ones."""
        self.voice = _Voice(f"the backend of {model}", (), timeouts)
        self._plain = ChatCallEngine(self, BASE, model, transport=transport, memory=None, facts=facts)
        self._plain.server = _Server(self._plain.server.address, None, transport, timeouts)
        self._plain.server.voice = self.voice

    @property
    def features(self) -> Features:
        """What is known of the backends of this model."""
        return self._plain.features

    @property
    def notes(self) -> tuple[str, ...]:
        """What the server refused or ignored, in words."""
        shared = self.joint is not None and self.joint.used
        said = ("samples of one prompt shared a call, which read the prompt once",) if shared else ()
        return self._plain.notes + said

    async def prepare(self, call: Call) -> None:
        """Nothing to get ready: the pool knows the model."""

    async def generate(self, call: Call) -> AsyncGenerator[Event]:
        """Produce one completion; closing the iterator closes its connection."""
        gathered = RawReply()
        inner = self._inner(call, gathered)
        pieces: list[str] = []
        seat = self.joint.seat(inner, call) if self.joint is not None else None
        async with aclosing(inner.generate(call) if seat is None else seat.events()) as events:
            async for event in events:
                if isinstance(event, Finish):
                    if tail := gathered.tail:
                        pieces.append(tail)
                        yield Delta(tail, "", event.completion_tokens)
                    gathered.text = "".join(pieces)
                    self.samples.setdefault(gathered.text, gathered)
                elif event.text:
                    pieces.append(event.text)
                yield event

    async def count_prompt(self, call: Call) -> int | None:
        """Exact prompt tokens, None where the server offers no tokeniser or tools and images are not counted by it."""
        if self._extra.get("tools") or any(not isinstance(message.content, str) for message in self._messages):
            return None
        return await self._plain.count_prompt(call)

    async def count_text(self, text: str) -> int | None:
        """Tokens of a text by the server's own tokeniser."""
        return await self._plain.count_text(text)

    async def aclose(self) -> None:
        """Connections belong to the proxy."""

    def _inner(self, call: Call, gathered: RawReply) -> ChatCallEngine:
        """The engine of one call: a copy of one that has been set up already."""
        one = ChatCallEngine.__new__(ChatCallEngine)
        one.__dict__.update(self._plain.__dict__)
        one.call, one.gathered = call, gathered
        return one

    def sent(self, call: Call, made: dict[str, Any]) -> dict[str, Any]:
        """A call's body with the client's own fields; what the engine decides wins."""
        if call.messages == self._messages:
            made["messages"] = [*self._raw, *made["messages"][len(self._raw) :]]
        if self._top is not None and made.get("logprobs") and self._top > made.get("top_logprobs", 0):
            made["top_logprobs"] = self._top
        return {**self._extra, **made}
