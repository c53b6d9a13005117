"""The engine of one request: the OpenAI engine, with the client's own fields in every body.

Knows: messages and unknown fields go out as they came, and each sample is gathered whole. Facts about
the server are shared by all requests for a model; nothing of a client is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from outthink.core.errors import EngineError
from outthink.core.request import Message
from outthink.engines.openai.engine import OpenAIEngine
from outthink.engines.openai.facts import Facts
from outthink.engines.openai.reading import CompletionReader
from outthink.engines.protocol import Call, Delta, Event, Features, Finish
from outthink.http.errors import ErrorMessage, ErrorWriter
from outthink.http.events import Decoder
from outthink.http.server import Server
from outthink.http.transport import Timeouts, Transport
from outthink.serving.chat.gathered import Gathered
from outthink.serving.chat.joint import Joint
from outthink.serving.chat.merging import merged
from outthink.serving.chat.pooled import BASE
from outthink.serving.encoding import decode, encode

Heard = Callable[[Gathered, Call, Mapping[str, Any]], None]
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


class One(OpenAIEngine):
    """The engine of one call."""

    call: Call | None = None
    gathered: Gathered
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


class ChatEngine:
    """Calls of one request to one model.

    Args:
        messages: the chat as `Message`s, and `raw` as it came.
        extra: fields of the request's body that are sent along untouched.
        top_logprobs: alternatives that the client wants with every token, None for none.
        heard: sees every chunk of every call as it comes.
        concurrency: calls that may be in flight for this request.
    """

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
        self.joint: Joint | None = None
        """Shares calls where that is possible and wanted."""
        self.samples: dict[str, Gathered] = {}
        """Finished samples by their texts; the first of equal ones."""
        self.voice = _Voice(f"the backend of {model}", (), timeouts)
        self._plain = One(self, BASE, model, transport=transport, memory=None, facts=facts)
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
        gathered = Gathered()
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

    def _inner(self, call: Call, gathered: Gathered) -> One:
        """The engine of one call: a copy of one that has been set up already."""
        one = One.__new__(One)
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
