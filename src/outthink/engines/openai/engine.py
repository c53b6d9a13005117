"""The engine for any OpenAI-compatible chat server.

Knows: how one completion goes, from the call through refusals and adaptation to its last event.
Does not know budgets, retries or strategies, nor how bytes move (transport) or are worded (server).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from outthink.core.errors import BadInput, EngineError
from outthink.core.paths import cache_dir
from outthink.engines.openai.body import SAMPLING, Facts, Thinking, adapt, body, file_for, recall, remember
from outthink.engines.openai.reading import CompletionParser, decisive
from outthink.engines.openai.tokens import Tokenizer
from outthink.engines.protocol import Call, Delta, Engine, Event, Features, Finish
from outthink.http.errors import ErrorBody, breaks_off, failure_in
from outthink.http.events import LONG, Decoder, JsonObject, NotJson, is_html
from outthink.http.server import Address, Server
from outthink.http.transport import HttpxTransport, Response, Timeouts, Transport, TransportFault
from outthink.http.usage import told_parameters


async def list_models(server: Server) -> dict[str, int | None] | None:
    """Names in the server's order with the parameters that it tells of them, None where it has no list.

    Raises:
        EngineError: the server does not answer, refuses, or answers something else than a list.
    """
    try:
        answer = await server.fetch("/models")
    except EngineError as error:
        error.begun = False  # nothing is generated for a list, so it may be asked for again, unless the server hangs
        error.again = not (isinstance(error.__cause__, TransportFault) and error.__cause__.kind == "idle")
        raise
    if answer.status in (404, 405, 501) and not is_html(answer.content):
        return None
    if answer.status != 200:
        raise server.errors.status(answer.status, answer.headers, answer.content)
    body = answer.json()
    rows = body.get("data", body.get("models")) if isinstance(body, dict) else body
    if not isinstance(rows, list):
        if is_html(answer.content):
            raise server.errors.page()
        raise server.errors.garbled(answer.content, fatal=True)
    listed: dict[str, int | None] = {}
    for row in rows:
        name = row.get("id") or row.get("name") if isinstance(row, dict) else row
        if isinstance(name, str) and name:
            listed[name] = told_parameters(row)
    return listed


_ENOUGH = 20  # alternatives: as many as any strategy asks for


def learn(facts: Facts, call: Call, reading: CompletionParser) -> None:
    """Note which log-probabilities came back, and whether a prefix was repeated."""
    if not (reading.text or reading.thought):
        return
    if call.top_logprobs is not None and "logprobs" not in facts.refused:
        facts.learn(logprobs=reading.counts.entries > 0)
        # As many as were asked for only shows that there may be more.
        if call.top_logprobs > reading.width or reading.width >= _ENOUGH:
            facts.learn(top_logprobs=reading.width)
    if call.prefix and reading.stripper is not None and facts.repeats is None and not reading.unstreamed:
        repeated = reading.stripper.repeated
        # A short prefix may be what the model writes next; only a long one tells.
        if repeated is False or (repeated and decisive(call.prefix)):
            facts.learn(repeats=repeated)


T = TypeVar("T")
CHAT = "/chat/completions"
_ROUNDS = 12  # requests that one completion may need until the server accepts its parameters
_AFTER_DONE = 0.05  # seconds to let the body end after `[DONE]`, so that its connection can be used again
_NO_PREFIX = re.compile(r"prefill|continue_final|last (?:role|message)|prefix", re.IGNORECASE)


class OpenAIEngine(Engine):
    """A chat server by URL.

    Args:
        url: with or without `/v1`; user and password in it are sent, never shown.
        model: as the server names it; None takes the first that it lists.
        api_key: sent as a bearer token; no variable of the environment is read here.
        concurrency: calls that may run at once.
        transport: what moves the bytes; httpx2 by default.
        connect_timeout: seconds to wait for a connection.
        idle_timeout: seconds without any byte after which a reply is given up; None waits forever.
        memory: folder for what is found out about servers; `auto` is the cache folder, None keeps
            it in this process.
        facts: what is known about the server beforehand (the embedded engine knows its own).
    """

    parameters_told = True
    """Nothing else is known of a server's model here."""
    parameters: int | None
    concurrency: int

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        concurrency: int = 32,
        transport: Transport | None = None,
        connect_timeout: float | None = 10.0,
        idle_timeout: float | None = 60.0,
        memory: Path | Literal["auto"] | None = "auto",
        facts: Facts | None = None,
    ) -> None:
        if concurrency < 1:
            raise BadInput("concurrency", concurrency, "is below 1", "give at least 1")
        address = Address.parse(url)
        if transport is None:
            secure = address.base.startswith("https:")
            transport = HttpxTransport(concurrency, secure=secure, proxies=not address.local)
        self.server = Server(address, api_key, transport, Timeouts(connect_timeout, idle_timeout))
        self.facts = facts if facts is not None else Facts()
        self._given = facts is not None
        self._model = model
        self.parameters: int | None = None
        """What the server's list of models tells (llama.cpp's does), where that was asked for a name."""
        self.blame: Callable[[Response], None] = lambda reply: None
        """Hears of replies that claim success and tell of a failure, break off or are none."""
        self._thinking = Thinking()
        self._ready = False
        self.concurrency = concurrency
        self._memory = cache_dir() / "servers" if memory == "auto" else memory
        self._lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    def __repr__(self) -> str:
        return f"OpenAIEngine({self.server.address.base!r}, {self._model!r})"

    @property
    def model(self) -> str:
        """The model's name; the server's URL until the first model has been looked up."""
        return self._model or self.server.address.base

    @property
    def url(self) -> str:
        """The server's address, without secrets."""
        return self.server.address.base

    @property
    def features(self) -> Features:
        """What refusals, replies and `doctor` have shown so far."""
        facts = self.facts
        top = facts.top_logprobs if facts.top_logprobs is not None else facts.top_logprobs_limit
        return Features(logprobs=facts.logprobs, top_logprobs=top, prefix=facts.prefix, seed=facts.seed)

    @property
    def notes(self) -> tuple[str, ...]:
        """Parameters that change what is drawn and that this server does not accept or heed."""
        refused = tuple(
            f"{name} is not accepted by {self.url}: the server's own default holds"
            for name in sorted(self.facts.refused & SAMPLING)
        )
        return refused + self._thinking.notes(self.url, self.facts.refused)

    async def prepare(self, call: Call | None = None) -> None:
        """Find the model's name and what is remembered about it. Generates nothing."""
        if self._ready:
            return
        loop = asyncio.get_running_loop()
        if self._lock is None or self._lock[0] is not loop:  # a lock belongs to the event loop that waited for it
            self._lock = loop, asyncio.Lock()
        async with self._lock[1]:
            if self._ready:
                return
            if self._model is None:
                await self.settle()
            if self._memory is not None and not self._given:
                self.facts = recall(file_for(self._memory, self.url, self.model))
            self._ready = True

    async def settle(self) -> list[str] | None:
        """List the models and take the first, unless one was named; `default` where there is no list."""
        listed = await list_models(self.server)
        if self._model is None:
            if listed == {}:
                raise self.server.errors.error("serves no model; load one, or name it", fatal=True)
            self._model = next(iter(listed)) if listed else "default"
        if listed is not None:
            self.parameters = listed.get(self._model)
        return None if listed is None else list(listed)

    async def begin_anew(self) -> list[str] | None:
        """Forget what was known of the server, because it is about to be found out again; list its models."""
        self.facts, self._given = Facts(now=self.facts.now), True
        self._ready = self._model is not None
        listed = await self.settle()
        self._ready = True
        return listed

    async def generate(self, call: Call) -> AsyncGenerator[Event]:
        """Produce one completion; closing the iterator closes its connection."""
        await self.prepare()
        if call.prefix and self.facts.prefix is False:
            raise self._no_prefix("")
        reply = await self.start(call)
        reading = self.reader(call)
        decoder = self.decoder()
        try:
            try:
                async for piece in reply:
                    if decoder.pending + len(piece) <= LONG:
                        delta, broken = self.parse(decoder.feed(piece), reading)
                    else:
                        delta, broken = await beside(partial(self._parse_long, partial(decoder.feed, piece), reading))
                    if delta is not None:
                        yield delta
                    # What came before the failure has been handed on first: it was generated, and is charged.
                    if broken is not None:
                        raise broken
                    if reading.over or decoder.done:
                        break
                else:
                    if decoder.pending <= LONG:
                        delta, broken = self.parse(decoder.close(), reading)
                    else:
                        delta, broken = await beside(partial(self._parse_long, decoder.close, reading))
                    if delta is not None:
                        yield delta
                    if broken is not None:
                        raise broken
                if decoder.done and not reading.over:
                    await drain(reply)
            except NotJson as error:
                raise self.server.errors.garbled(str(error).encode(), fatal=not reading.text) from error
            except TransportFault as fault:
                if not reading.ended:  # a completion that had ended lacks nothing but its `[DONE]`
                    raise self.server.errors.fault(fault) from fault
            if (rest := reading.rest()) is not None:
                yield rest
            yield self.conclude(call, reading, decoder)
        except EngineError:
            self.blame(reply)
            raise
        finally:
            await reply.aclose()

    def conclude(self, call: Call, reading: CompletionParser, decoder: Decoder) -> Finish:
        """The last event of a completion, and what it teaches. Raises EngineError if it came to no proper end."""
        self._check_end(reading, decoder)
        learn(self.facts, call, reading)
        self._thinking.record(call, reading.thought_tokens)
        self.save()
        return reading.finish()

    async def count_prompt(self, call: Call) -> int | None:
        """Exact prompt tokens by the server's tokeniser, None where it offers none."""
        await self.prepare()
        count = await Tokenizer(self.server, self.facts).prompt(call, self.model)
        self.save()
        return count

    async def count_text(self, text: str) -> int | None:
        """Tokens of a text by the server's tokeniser, None where it offers none."""
        await self.prepare()
        count = await Tokenizer(self.server, self.facts).text(text, self.model)
        self.save()
        return count

    async def aclose(self) -> None:
        """Close the connections of this event loop. The engine may be used again."""
        self.save()
        await self.server.transport.aclose()

    def save(self) -> None:
        """Remember what was learnt since the last time."""
        if self._memory is not None and self._ready and self.facts.changed:
            remember(file_for(self._memory, self.url, self.model), self.facts, self.url, self.model)

    async def start(self, call: Call) -> Response:
        """Send the call, as often as it takes to find the parameters that the server accepts."""
        self._thinking.asked(call)
        for _ in range(_ROUNDS):
            sent = self.body(call)
            reply = await self.server.open(CHAT, sent, stream=True)
            if 200 <= reply.status < 300:
                self.save()
                return reply
            answer = await self.server.read(reply)
            parse, long = partial(ErrorBody.parse, answer.content), len(answer.content) > LONG
            refusal = await beside(parse) if long else parse()
            if not adapt(refusal, sent, self.facts, status=answer.status):
                break
        if call.prefix and answer.status in (400, 422) and not refusal.context and _NO_PREFIX.search(refusal.message):
            self.facts.learn(prefix=False)
            self.save()
            raise self._no_prefix(f" ({refusal.message})")
        self.save()
        told = answer.status, answer.headers, answer.content
        raise self.server.errors.status(*told, model=self.model, refusal=refusal)

    def reader(self, call: Call) -> CompletionParser:
        """What reads a completion of this call."""
        return CompletionParser(call, repeats=self.facts.repeats)

    def decoder(self) -> Decoder:
        """What reads a reply's bytes."""
        return Decoder()

    def body(self, call: Call) -> JsonObject:
        """What is sent for a call, in the dialect that the server is known to speak."""
        return body(call, self.model, self.facts)

    def parse(self, chunks: list[JsonObject], reading: CompletionParser) -> tuple[Delta | None, EngineError | None]:
        """What chunks that came together say, as one, and the failure that one of them tells of."""
        deltas, broken = [], None
        try:
            for chunk in chunks:
                self.check(chunk)
                if (delta := reading.take(chunk)) is not None:
                    deltas.append(delta)
                if reading.over:
                    break
        except EngineError as error:
            broken = error
        return Delta.of(deltas), broken

    def _parse_long(
        self, chunks: Callable[[], list[JsonObject]], reading: CompletionParser
    ) -> tuple[Delta | None, EngineError | None]:
        """The same of chunks that it takes time to decode."""
        return self.parse(chunks(), reading)

    def check(self, chunk: JsonObject) -> None:
        """Raise EngineError for a chunk that tells of a failure."""
        if (failure := failure_in(chunk)) is not None:
            status = failure.status or (401 if failure.about_key else 500)
            error = self.server.errors.refused(status, failure, model=self.model)
            error.again = False  # the reply had begun
            raise error

    def _check_end(self, reading: CompletionParser, decoder: Decoder) -> None:
        """Raise unless the completion came to a proper end."""
        if decoder.kind == "page":
            raise self.server.errors.page()
        if breaks_off(reading.reason):
            raise self.server.errors.error("broke a completion off with an error of its own; see its log")
        if reading.ended or reading.over or (decoder.done and reading.begun):
            return
        if decoder.kind == "object" and (reading.text or reading.called):
            return
        if decoder.kind == "unknown":
            raise self.server.errors.error("answered nothing; it may have crashed, see its log")
        if decoder.kind == "object" or decoder.done:
            raise self.server.errors.error("answered JSON that holds no completion; is this the API URL?", fatal=True)
        tokens = reading.counts.tokens
        after = f"after {tokens} tokens" if tokens is not None else "before its end"
        raise self.server.errors.error(f"broke the stream off {after}; it may have crashed or restarted, see its log")

    def _no_prefix(self, reason: str) -> EngineError:
        return self.server.errors.error(
            f"cannot continue a partial answer{reason}; use a strategy that does not extend", fatal=True
        )


async def beside(work: Callable[[], T]) -> T:
    """Read what is long beside the event loop. Who is cancelled meanwhile goes on when nothing changes any more."""
    reading = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(reading)
    finally:
        if not reading.done():
            await asyncio.wait([reading])


async def drain(reply: Response) -> None:
    """Read the end of a body behind `[DONE]`; a server that keeps it open loses the connection instead."""
    try:
        async with asyncio.timeout(_AFTER_DONE):
            async for _ in reply:
                pass
    except (TimeoutError, TransportFault):
        return
