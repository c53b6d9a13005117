"""The engine of one chat request: its samples are calls of their own, or choices of calls that they share.

Knows: what the OpenAI engine leaves to be replaced, which calls may share a request, and whose choice a chunk belongs
to. Does not know sessions, votes, or how it is found out that servers count the choices of a call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from outthink.core.errors import EngineError
from outthink.core.request import Message
from outthink.core.text import writable
from outthink.engines.openai.body import Facts, body
from outthink.engines.openai.engine import OpenAIEngine, beside, drain
from outthink.engines.openai.reading import CompletionParser
from outthink.engines.openai.tokens import Counts, shared_out
from outthink.engines.protocol import Call, Delta, Event, Finish
from outthink.http.events import LONG, Decoder, NotJson
from outthink.http.fields import CHAT_LENGTH_FIELDS, JsonDict, decode
from outthink.http.server import Address
from outthink.http.transport import Timeouts, Transport, TransportFault
from outthink.serving.chat.calls import ChatCall, ChatReader, OnChunk, RawChoice, join_text
from outthink.serving.chat.question import CallBounds
from outthink.serving.pool.pooled import (
    BASE,
    CallRefused,
    EncodedChat,
    PooledErrors,
    PooledServer,
    SharedMessages,
    blame,
)
from outthink.session.calls import byte_bound

_ADDRESS = Address.parse(BASE)
_IN_FLIGHT = 64
"""Calls of one request at once."""

_PROMPTING = frozenset({"functions", "documents", "response_format", "chat_template_kwargs", "extra_body"})
"""Fields whose tokens no tokeniser is asked about."""
_UNBOUNDED = CallBounds()


class ChatEngine(OpenAIEngine):
    """Sends the client's own messages and fields with every call of one request to one model.

    Args:
        messages: the chat as `Message`s, and `encoded` as it came.
        encoded: also the fields of the request's body that are sent along untouched.
        top_logprobs: alternatives that the client wants with every token, None for none.
        bounds: of every call, where the key is limited.
        on_chunk: gets every chunk of every call as it comes.
    """

    def __init__(
        self,
        model: str,
        transport: Transport,
        facts: Facts,
        *,
        messages: tuple[Message, ...],
        encoded: EncodedChat,
        top_logprobs: int | None,
        bounds: CallBounds = _UNBOUNDED,
        timeouts: Timeouts,
        on_chunk: OnChunk | None,
    ) -> None:
        super().__init__(BASE, model, concurrency=_IN_FLIGHT, transport=transport, memory=None, facts=facts)
        self.server = server = PooledServer(_ADDRESS, None, transport, timeouts)
        server.chat = self.encoded = encoded
        self.server.errors = self.errors = PooledErrors(f"the backend of {model}", (), timeouts)
        self._messages, self._top, self._on_chunk, self.blame = messages, top_logprobs, on_chunk, blame
        self._bounds = bounds
        self._beside = None if bounds.prompt is None else bounds.beside
        self._counted = not encoded.extra.get("tools") and all(isinstance(message.content, str) for message in messages)
        self._counted = self._counted and (self._beside is None or _PROMPTING.isdisjoint(encoded.extra))
        self._ready = True  # the pool knows the model, and the facts are shared
        self.samples: dict[str, RawChoice] = {}
        """Finished samples by their texts; of equal ones the first that was begun, whose text is the answer."""
        self.choices: list[RawChoice] = []
        """Those of all calls in the order of their beginnings, also of such as did not finish."""
        self.sharing: CallSharing | None = None
        """Where samples that start together meet in one call, None where each goes by itself."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the server refused or ignored, in words."""
        shared = self.sharing is not None and self.sharing.used
        note = ("samples of one prompt shared a call, which read the prompt once",) if shared else ()
        return super().notes + note

    async def generate(self, call: Call) -> AsyncGenerator[Event]:
        """Produce one completion; closing the iterator closes its connection."""
        chat_call = ChatCall.of(call)
        choice = chat_call.choice
        self.choices.append(choice)
        pieces: list[str] = []
        shared = self.sharing.join(self, chat_call) if self.sharing is not None else None
        async with aclosing(self.generate_alone(chat_call) if shared is None else shared.events()) as events:
            async for event in events:
                if isinstance(event, Finish):
                    given, brief = (choice, pieces), choice.size <= LONG
                    if tail := self._keep(*given) if brief else await asyncio.to_thread(self._keep, *given):
                        yield Delta(tail, "", event.completion_tokens)
                elif event.text:
                    pieces.append(event.text)
                yield event

    def _keep(self, choice: RawChoice, pieces: list[str]) -> str:
        """Note a finished sample; its calls as text, so that strategies can vote on them."""
        tail = choice.tail
        choice.text = writable("".join([*pieces, tail]))  # as the session has it
        known, order = self.samples.setdefault(choice.text, choice), self.choices.index
        if order(choice) < order(known):
            self.samples[choice.text] = choice
        return tail

    def conclude(self, call: Call, reading: CompletionParser, decoder: Decoder) -> Finish:
        """The last event of a completion."""
        assert isinstance(call, ChatCall)
        call.choice.size = decoder.size
        return super().conclude(call, reading, decoder)

    def generate_alone(self, call: ChatCall) -> AsyncGenerator[Event]:
        """The completion of a call that shares nothing, as its backend sends it."""
        return super().generate(call)

    def body(self, call: Call) -> JsonDict:
        """A call's body with the client's own fields; what the engine decides wins."""
        shared = SharedMessages(self.encoded) if call.messages == self._messages else None
        own: dict[str, Any] = body(call, self.model, self.facts, shared)
        if self._top is not None and own.get("logprobs") and self._top > own.get("top_logprobs", 0):
            own["top_logprobs"] = self._top
        if isinstance(call, ChatCall) and call.choices > 1:
            own["n"] = call.choices
        thinking = self._bounds.thinking
        if not thinking:
            return {**self.encoded.extra, **own}
        # Some servers grant the thinking beside the length, so both together are what the call may generate.
        rest = call.sampling.max_tokens - thinking
        if rest < 1:
            return {
                name: value for name, value in self.encoded.extra.items() if name not in self._bounds.thinking_fields
            } | own
        return {**self.encoded.extra, **own, self.facts.length_name or CHAT_LENGTH_FIELDS[0]: rest}

    def decoder(self) -> Decoder:
        """What reads a reply's bytes."""
        return Decoder(decode)

    def reader(self, call: Call) -> CompletionParser:
        """What reads a completion."""
        assert isinstance(call, ChatCall)
        return ChatReader(call, self.facts.repeats, self._on_chunk)

    def parse(self, chunks: list[JsonDict], reading: CompletionParser) -> tuple[Delta | None, EngineError | None]:
        """What chunks that came together add."""
        if self._on_chunk is not None:
            return super().parse(chunks, reading)
        joined, texts = join_text(chunks)
        delta, broken = super().parse(joined, reading)
        if delta is not None:
            delta.pieces = max(delta.pieces, texts)
        return delta, broken

    async def count_prompt(self, call: Call) -> int | None:
        """Tokens of a prompt: exact, or a bound where the server's tokeniser does not see all of it; None for bytes."""
        if self._counted:
            return await super().count_prompt(call)
        if self._beside is None:
            return None
        return byte_bound(call) + (self._beside if call.messages == self._messages else max(0, self._beside))


# Samples of one prompt in one call of `n` choices, where the backends are known to count each of them. The prompt is
# then read once, and charged once, with the sample that ends last.

_REFUSED = (400, 422)


class CallSharing:
    """Brings together the calls of one request that start in the same turn of the event loop and want the same.

    Args:
        disproved: called where a backend gives fewer choices than were asked for, or does not count them all.
    """

    def __init__(self, disproved: Callable[[], None]) -> None:
        self.disproved = disproved
        self.used = False
        self._open: dict[Hashable, SharedCall] = {}

    def join(self, engine: ChatEngine, call: ChatCall) -> SharedChoice | None:
        """A choice of a call that is about to be sent, None for a call that must go by itself."""
        if call.seed is not None or call.top_logprobs is None:  # a seed is for one sample; tokens must be counted
            return None
        key = (call.sampling, call.prefix, call.top_logprobs, call.alternatives)
        shared = self._open.get(key)
        if shared is None:
            shared = self._open[key] = SharedCall(self, engine)
            asyncio.get_running_loop().call_soon(self._begin, key)  # after every call of this turn has come
        choice = SharedChoice(engine, call, shared)
        shared.choices.append(choice)
        return choice

    def _begin(self, key: Hashable) -> None:
        self._open.pop(key).begin()


class SharedChoice:
    """One sample of a shared call."""

    def __init__(self, engine: ChatEngine, call: ChatCall, shared: SharedCall) -> None:
        self.call = call
        self.reading = engine.reader(call)
        self.received = self.ended = self.abandoned = False
        self._engine, self._shared = engine, shared
        self._come: deque[Event | Exception | None] = deque()
        self._wanted: asyncio.Future[None] | None = None
        """While somebody waits for what comes next."""
        self._refused = False

    async def events(self) -> AsyncGenerator[Event]:
        """The sample's events; those of a call of its own where the shared one has nothing for it."""
        try:
            while True:
                while not self._come:
                    self._wanted = asyncio.get_running_loop().create_future()
                    await self._wanted
                if (event := self._come.popleft()) is None:
                    break
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, Finish):
                    return
        finally:
            self.abandoned = True
            await self._shared.close_if_abandoned()
        async with aclosing(self._engine.generate_alone(self.call)) as events:
            async for event in events:
                if self._refused and isinstance(event, Finish):
                    self._shared.sharing.disproved()  # it was `n` that was refused, and not what the client asks
                yield event

    def put(self, event: Event | Exception | None) -> None:
        """Hand an event to whoever reads: an exception for the end, None for a call of its own."""
        self._come.append(event)
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    def fail(self, error: Exception) -> None:
        """The shared call is over, and this sample is not."""
        self.ended = True
        self.put(error)

    def send_alone(self, *, refused: bool = False) -> None:
        """The shared call has nothing for this sample, or was refused."""
        self.ended, self._refused = True, refused
        self.put(None)

    def finish(self, decoder: Decoder, prompt: int | None, cached: int | None, tokens: int | None) -> None:
        """The end, with what is counted for this sample."""
        self.ended = True
        try:
            if (rest := self.reading.rest()) is not None:
                self.put(rest)
            end = self._engine.conclude(self.call, self.reading, decoder)
        except EngineError as error:
            self.fail(error)
        else:
            self.put(replace(end, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=tokens))


Dealt = list[tuple[SharedChoice, Event | EngineError]]


class SharedCall:
    """A call that several samples share; each of them reads one of its choices."""

    def __init__(self, sharing: CallSharing, engine: ChatEngine) -> None:
        self.sharing = sharing
        self.choices: list[SharedChoice] = []
        self._engine = engine
        self._totals = Counts()
        self._begun = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Send it, or let a single sample go by itself."""
        self.choices = [choice for choice in self.choices if not choice.abandoned]
        if len(self.choices) > 1:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._let_go)
        elif self.choices:
            self.choices.pop().send_alone()

    def _let_go(self, task: asyncio.Task[None]) -> None:
        """Leave nothing that refers to each other: collecting hundreds of requests holds the event loop up."""
        self.choices, self._task = [], None

    async def close_if_abandoned(self) -> None:
        """Close the connection if nobody reads any more."""
        task = self._task
        if task is not None and not task.done() and all(choice.abandoned for choice in self.choices):
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        try:
            self._conclude(await self._read())
        except EngineError as error:
            refused = isinstance(error, CallRefused) and error.status in _REFUSED and not self._begun
            # A server works on all choices of a call, also on those that it has sent nothing of.
            error.begun = error.begun or any(choice.received for choice in self.choices)
            for choice in self._unfinished:
                choice.send_alone(refused=True) if refused else choice.fail(error)
        except Exception as error:  # noqa: BLE001 - raised where the samples are waited for
            for choice in self._unfinished:
                choice.fail(error)

    @property
    def _unfinished(self) -> list[SharedChoice]:
        return [choice for choice in self.choices if not choice.ended]

    async def _read(self) -> Decoder:
        """Send the call and read its reply to the end."""
        engine = self._engine
        reply = await engine.start(replace(self.choices[0].call, choices=len(self.choices)))
        self._begun = True
        decoder = engine.decoder()
        try:
            try:
                async for piece in reply:
                    if decoder.pending + len(piece) <= LONG:
                        self._hand_out(self._deal(decoder.feed(piece)), decoder)
                    else:
                        dealt = await beside(lambda piece=piece: self._deal(decoder.feed(piece)))  # type: ignore[misc]
                        self._hand_out(dealt, decoder)
                    if decoder.done:
                        await drain(reply)
                        break
                else:
                    self._hand_out(await beside(lambda: self._deal(decoder.close())), decoder)
            except NotJson as error:
                raise engine.errors.garbled(str(error).encode(), fatal=False) from error
            except TransportFault as fault:
                if not all(choice.reading.ended for choice in self.choices):
                    raise engine.errors.fault(fault) from fault
        except EngineError:
            engine.blame(reply)
            raise
        finally:
            await reply.aclose()
        return decoder

    def _deal(self, chunks: list[JsonDict]) -> Dealt:
        """What chunks that came together add to each sample, and the failure that one of them tells of."""
        by_choice: dict[int, list[JsonDict]] = {}
        failure: EngineError | None = None
        for chunk in chunks:
            usage, choices = chunk.pop("usage", None), chunk.get("choices")
            told = None
            if isinstance(usage, dict):
                told = self._totals.usage(usage)
                self.choices[-1].call.choice.add_usage(usage)
            rows: list[JsonDict] = choices if isinstance(choices, list) else []
            if len(rows) != 1 or not isinstance(rows[0], dict):
                rows = [row for row in rows if isinstance(row, dict)]
            if told:
                self._totals.covered.add(told, text=bool(rows))
            if not rows:
                try:
                    self._engine.check(chunk)
                except EngineError as error:
                    failure = error  # what came before it was generated
                    break
                for choice in self.choices:
                    choice.call.choice.add_beside(chunk)
            for row in rows:
                index = row.get("index") or 0
                row["index"] = 0  # whoever reads one sample heeds the first choice alone
                if type(index) is int and 0 <= index < len(self.choices):
                    by_choice.setdefault(index, []).append(chunk if len(rows) == 1 else {**chunk, "choices": [row]})
        dealt: Dealt = []
        for index, own_chunks in by_choice.items():
            if not (choice := self.choices[index]).ended:
                dealt += [(choice, event) for event in self._receive(choice, own_chunks)]
        if failure is not None:
            dealt.append((self.choices[0], failure))
        return dealt

    def _hand_out(self, dealt: Dealt, decoder: Decoder) -> None:
        """Hand the samples what was dealt, and end those whose tokens are counted. Raises EngineError."""
        for choice, event in dealt:
            if isinstance(event, EngineError):
                raise event
            choice.put(event)
        if self.choices[-1].received:  # or else somebody else has to answer for the prompt
            for choice in self.choices[:-1]:
                counts = choice.reading.counts
                if choice.reading.ended and not choice.ended and counts.entries and not counts.gaps:
                    choice.finish(decoder, 0, 0, counts.entries)

    def _receive(self, choice: SharedChoice, chunks: list[JsonDict]) -> Iterator[Event | EngineError]:
        choice.received = True
        delta, broken = self._engine.parse(chunks, choice.reading)
        if delta is not None:
            # The prompt was read once, so one sample answers for it: the last, which the call cannot end without.
            delta.prompt_tokens = self._totals.prompt if choice is self.choices[-1] else 0
            yield delta
        if broken is not None:
            yield broken

    def _conclude(self, decoder: Decoder) -> None:
        """End what has not ended: the tokens that nothing else counts are shared, the prompt goes to the last."""
        silent = [choice for choice in self._unfinished if not choice.received]
        if len(silent) == len(self.choices):  # the call has been one sample's, and no sample is asked for twice
            silent.pop().fail(self._engine.errors.error("answered nothing; it may have crashed, see its log"))
        for choice in silent:
            choice.send_alone()
        total = self._totals.completion(text=True)
        counted = sum(choice.reading.counts.entries for choice in self.choices)
        if total is None or total < counted or not all(choice.received for choice in self.choices):
            self.sharing.disproved()
        left = self._unfinished
        if not left:  # no sample has received anything
            return
        self.sharing.used = True
        tokens_of_each = shared_out(
            [choice.reading.counts.entries for choice in left], total and max(0, total - counted)
        )
        for choice, tokens in zip(left, tokens_of_each, strict=True):
            last = choice is left[-1]
            choice.finish(decoder, self._totals.prompt if last else 0, self._totals.cached if last else 0, tokens)
