"""A plugin's engine as a backend: OpenAI's protocol for it, on a port of this machine, with a key that only we know.

Pool, failover, budgets and receipts so need no second way for engines that are no servers. Knows: which field of a
request becomes which part of a call, and how events become chunks. Does not know pools, ledgers or strategies.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from aiohttp import web

from outthink.core.errors import EngineError
from outthink.core.request import Message, Sampling
from outthink.engines.locate import locate
from outthink.engines.protocol import Call, Delta, Event, Finish
from outthink.http.fields import JsonDict, encode
from outthink.serving.admission import Limits
from outthink.serving.chat.completion import DONE
from outthink.serving.chat.question import Question, RequestOptions, read_question
from outthink.serving.failure import Failure, bad_field, failure_of
from outthink.serving.inbound.bodies import read_object
from outthink.serving.inbound.connections import error_response

_UNABLE = ("tools", "functions", "response_format")
"""Fields that change what comes back, so that leaving them out would answer another request."""
_UNFINISHED = "the engine's events ended without saying that the completion was finished"


class EngineServer:
    """A server for one engine.

    Args:
        model: SCHEME:REST of a plugin.
        limits: the proxy's own: what it lets in must not be refused here.
        slots: calls at once, None for as many as the engine says.
    """

    def __init__(self, model: str, limits: Limits, *, slots: int | None = None) -> None:
        self._engine, self._limits = locate(model), limits
        self._key = secrets.token_urlsafe(24)  # the pool alone knows it: other programs here must not get past it
        self._runner: web.AppRunner | None = None
        self.slots = slots or self._engine.concurrency

    async def start(self) -> tuple[str, str]:
        """Prepare the engine and listen; returns URL and key. Raises EngineError."""
        await self._engine.prepare(Call((Message("user", "Hello"),), Sampling(max_tokens=16)))
        app = web.Application(client_max_size=0)  # no bound: the proxy has one, and nobody else has the key
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        # A client that leaves ends its call, which closes the engine's iterator.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/v1", self._key

    async def aclose(self) -> None:
        """End the server, then the engine."""
        if self._runner is not None:
            await self._runner.cleanup()
        await self._engine.aclose()

    async def _models(self, request: web.Request) -> web.Response:
        entry: JsonDict = {"id": self._engine.model, "object": "model", "owned_by": "outthink"}
        if self._engine.parameters is not None:
            entry["meta"] = {"n_params": self._engine.parameters}
        return web.Response(body=encode({"object": "list", "data": [entry]}), content_type="application/json")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        try:
            sent = request.headers.get("authorization", "").encode(errors="surrogateescape")
            if not hmac.compare_digest(sent, f"Bearer {self._key}".encode()):
                raise Failure(401, "API key: is not this server's")
            question = _read(await request.read(), self._limits)
            call = self._call(question)
            async with aclosing(self._engine.generate(call)) as events:  # type: ignore[type-var]
                first = await self._first(events)  # before the head goes out, so that a refusal has a status
                reply = _Reply(self._engine.model, question)
                if question.own.stream:
                    return await self._stream(request, reply, call, first, events)
                return await self._whole(reply, call, first, events)
        except Exception as error:
            if (failure := _failure(error)) is None:
                raise
            return error_response(failure)

    async def _first(self, events: AsyncIterator[Event]) -> Event:
        """What comes first. Raises Failure for a call that was not begun, so that the proxy may send it again."""
        try:
            async for event in events:
                return event
        except EngineError as error:
            if error.again and not error.fatal:
                raise Failure(503, str(error), code="not_begun", retry_after=error.retry_after or 1.0) from error
            raise
        raise EngineError(_UNFINISHED, begun=True)

    def _call(self, question: Question) -> Call:
        messages, prefix = question.request.messages, None
        if messages[-1].role == "assistant" and self._engine.features.prefix:
            *before, last = messages
            messages, prefix = tuple(before), last.text
        return Call(
            messages,
            question.request.sampling,
            seed=question.request.seed,
            prefix=prefix,
            top_logprobs=(question.own.top_logprobs or 0) if question.own.logprobs else None,
            alternatives=question.own.logprobs,
        )

    async def _whole(self, reply: _Reply, call: Call, first: Event, events: AsyncIterator[Event]) -> web.Response:
        deltas, finish = [], Finish()
        async for event in _chain(first, events):
            if isinstance(event, Finish):
                finish = event
                break
            deltas.append(event)
        usage = await self._usage(call, deltas[-1].tokens if deltas else 0, finish)
        return web.Response(body=encode(reply.completion(deltas, finish, usage)), content_type="application/json")

    async def _stream(
        self, request: web.Request, reply: _Reply, call: Call, first: Event, events: AsyncIterator[Event]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await response.prepare(request)
        tokens: int | None = 0
        try:
            async for event in _chain(first, events):
                if isinstance(event, Finish):
                    usage = await self._usage(call, tokens, event)
                    await response.write(reply.last(event, usage) + DONE)
                    break
                tokens = event.tokens
                await response.write(reply.chunk(event))
        except EngineError as error:
            await response.write(b"data: " + (_failure(error) or Failure(502, str(error))).body() + b"\n\n")
        await response.write_eof()
        return response

    async def _usage(self, call: Call, tokens: int | None, finish: Finish) -> JsonDict | None:
        """What was used, None where the engine does not count."""
        completion = finish.completion_tokens if finish.completion_tokens is not None else tokens
        prompt = finish.prompt_tokens if finish.prompt_tokens is not None else await self._engine.count_prompt(call)
        if completion is None or prompt is None:
            return None
        cached = (
            {} if finish.cached_tokens is None else {"prompt_tokens_details": {"cached_tokens": finish.cached_tokens}}
        )
        total = prompt + completion
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total, **cached}


class _Reply:
    """OpenAI's layout of one answer."""

    def __init__(self, model: str, question: Question) -> None:
        self._question = question
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def completion(self, deltas: list[Delta], finish: Finish, usage: JsonDict | None) -> JsonDict:
        """The answer as one object."""
        message = {"role": "assistant", "content": "".join(delta.text for delta in deltas)}
        if reasoning := "".join(delta.reasoning for delta in deltas):
            message["reasoning_content"] = reasoning
        entries = [entry for delta in deltas for entry in self._entries(delta)]
        choice = {"index": 0, "message": message, **self._logprobs(entries), **_end(finish)}
        used = {} if usage is None else {"usage": usage}
        return {**self._head, "object": "chat.completion", "choices": [choice], **used}

    def chunk(self, delta: Delta) -> bytes:
        """A piece as an event."""
        piece = {name: text for name, text in (("content", delta.text), ("reasoning_content", delta.reasoning)) if text}
        choice = {"index": 0, "delta": piece, **self._logprobs(self._entries(delta)), "finish_reason": None}
        return self._event([choice], None)

    def last(self, finish: Finish, usage: JsonDict | None) -> bytes:
        """The events that end a stream."""
        ending = self._event([{"index": 0, "delta": {}, **_end(finish)}], None)
        return ending + self._event([], usage) if usage is not None and self._question.own.usage else ending

    def _event(self, choices: list[JsonDict], usage: JsonDict | None) -> bytes:
        used = {} if usage is None else {"usage": usage}
        return (
            b"data: " + encode({**self._head, "object": "chat.completion.chunk", "choices": choices, **used}) + b"\n\n"
        )

    def _logprobs(self, entries: list[JsonDict]) -> JsonDict:
        return {"logprobs": {"content": entries}} if self._question.own.logprobs else {}

    def _entries(self, delta: Delta) -> list[JsonDict]:
        """The new tokens; their texts are empty where the engine gives numbers only."""
        texts = delta.alternatives or [("", {})] * len(delta.logprobs)
        return [
            {
                "token": token,
                "logprob": logprob,
                "top_logprobs": [{"token": text, "logprob": value} for text, value in likely.items()],
            }
            for logprob, (token, likely) in zip(delta.logprobs, texts, strict=False)
        ]


async def _chain(first: Event, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """All events, to be read as far as `Finish`."""
    yield first
    async for event in events:
        yield event
    raise EngineError(_UNFINISHED, begun=True)


def _end(finish: Finish) -> JsonDict:
    stop = {} if finish.stop is None else {"stop_reason": finish.stop or None}  # as vLLM names it
    return {"finish_reason": finish.finish_reason, **stop}


def _read(content: bytes, limits: Limits) -> Question:
    """Raises Failure or BadInput that names the field."""
    body = read_object(content)
    for name in _UNABLE:
        if body.get(name) not in (None, [], {"type": "text"}):
            raise bad_field(name, body[name], "is beyond this engine", "leave it out", code="unsupported")
    question = read_question(body, RequestOptions(), limits)
    if question.choices > 1:
        raise bad_field("n", question.choices, "is beyond this engine", "ask for one choice", code="unsupported")
    return question


def _failure(error: Exception) -> Failure | None:
    if isinstance(error, EngineError) and error.fatal:
        return Failure(400, str(error), code="invalid_value")  # the request is to blame: no other try can help
    return failure_of(error)
