"""`/v1/chat/completions` with a strategy, from the decoded body to the last byte, and `/v1/models`.

Knows: the order of things. What is spent is settled before the reply ends, or in the background where the client
leaves. Does not know how a strategy is run, or how a reply is laid out.
"""

from __future__ import annotations

import asyncio
import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from outthink.controller.router.chooser import RoutedChoice
from outthink.core.receipt import Verdict
from outthink.core.request import Message
from outthink.http.events import Json
from outthink.http.fields import JsonDict, encode
from outthink.serving.accounting import RECEIPT, Account, idempotency_of, replayed
from outthink.serving.bounds.checked import LONG, check_models, check_tiers, checked_body
from outthink.serving.chat.backends import Backends
from outthink.serving.chat.completion import DONE, ROLE, Layout, Streaming, finish_reason_of, usage_of, written
from outthink.serving.chat.question import PREFIX, Question, RequestOptions, read_options, read_question
from outthink.serving.chat.run import StrategyRun
from outthink.serving.failure import Failure, failure_of
from outthink.serving.pool.transport import paced
from outthink.serving.protocols import Idempotency, Key
from outthink.session.judging import RATIO
from outthink.strategies import Spec, strategies

if TYPE_CHECKING:
    from outthink.serving.app import App

T = TypeVar("T")
_CHAT = "/v1/chat/completions"
_CREATED = int(time.time())
_PREFIX = 4096
"""Bytes of a prompt's beginning by which it prefers a backend."""
_PARTS = 8
"""Parts of a message, or of a part, that are looked at for it."""
_LONG = 1 << 16
"""Bytes of a request whose messages and fields are encoded beside the event loop, and of samples whose reply is."""


def model_list(names: Sequence[str]) -> JsonDict:
    """`/v1/models`: backend models first, then `outthink/auto` and the strategies."""
    served, own = (_row(name, "backend") for name in names), (_row(name, "outthink") for name in _own_names())
    return {"object": "list", "data": [*served, *own]}


def _own_names() -> list[str]:
    return [f"{PREFIX}{name}" for name in ("auto", *strategies())]


def model_row(name: str, names: Sequence[str]) -> JsonDict:
    """A row of the list. Raises Failure for a name that is not in it."""
    if name in names:
        return _row(name, "backend")
    if name in _own_names():
        return _row(name, "outthink")
    raise unknown_model(name, names)


def _row(name: str, owner: str) -> JsonDict:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": owner}


def unknown_model(name: Json, names: Sequence[str], field: str = "model") -> Failure:
    """The error for a model that nobody serves."""
    served = ", ".join(names[:8]) or "none"
    return Failure(
        404,
        f"{field}: {str(name)[:120]!r} is not served here; use one of {served}, outthink/auto or outthink/STRATEGY[@n]",
        param=field,
        code="model_not_found",
    )


async def answer_chat(
    app: App, backends: Backends, request: web.BaseRequest, key: Key, content: bytes, body: JsonDict
) -> web.StreamResponse:
    """Answer one chat by a strategy."""
    options = read_options(body, request.headers, key)
    named = str(body["model"])
    choice = None
    if options.model is None and backends.router is not None:
        asked_last = await asyncio.to_thread(_asked_last, body) if len(content) > LONG else _asked_last(body)
        routed, choice = backends.route(asked_last, key)
        options = options if routed is None else replace(options, model=routed)
    model = _backend_model(backends, options, key, "outthink.model" if named.startswith(PREFIX) else "model")
    checked = None
    if key.models:
        check_models(body)
    if (options.budget.usd, options.budget.joules) != (key.budget.usd, key.budget.joules):
        await asyncio.to_thread(check_tiers, body) if len(content) > LONG else check_tiers(body)  # the request's own
    if key.counted:
        own = {name: value for name, value in body.items() if name != "outthink"}
        given = key, _CHAT, own, backends.rules(model, *(backends.policies.models if options.strategy is None else ()))
        checked = await asyncio.to_thread(checked_body, *given) if len(content) > LONG else checked_body(*given)
    asked = body, options, backends.limits, checked, len(content)
    question = await asyncio.to_thread(read_question, *asked) if len(content) > LONG else read_question(*asked)
    exchange = _Exchange(app, backends, request, key, content, named, question, options, model, choice)
    try:
        reply = await exchange.answer()
        await exchange.forget()
        return reply
    except BaseException:
        exchange.abandon()
        raise


class _Exchange:
    """One request and its reply."""

    def __init__(
        self,
        app: App,
        backends: Backends,
        request: web.BaseRequest,
        key: Key,
        content: bytes,
        named: str,
        question: Question,
        options: RequestOptions,
        model: str,
        choice: RoutedChoice | None,
    ) -> None:
        self.app, self.request, self.content = app, request, content
        own, stored = question.own, options.stored_model(named)
        self.account = account = Account(
            app.ledger, key, _CHAT, stored, own.stream, content=content, watchers=app.watchers
        )
        self.layout = Layout(account.id, named, logprobs=own.logprobs, top=own.top_logprobs)
        self.streaming = Streaming(
            self.layout,
            {RECEIPT: account.id},
            backends.limits.progress_seconds,
            options.progress,
            account.first_token,
        )
        # The first two messages are what requests of one application have in common.
        prefix = zlib.crc32(encode([_beginning(message) for message in question.raw[:2]])[:_PREFIX])
        on_chunk = self.streaming.on_chunk if own.stream else None
        self.run = StrategyRun(backends, question, options, model, account, prefix, on_chunk, choice)
        self.work: asyncio.Task[Verdict] | None = None
        self.verdict: Verdict | None = None

    async def answer(self) -> web.StreamResponse:
        """Run the strategy and reply."""
        run, account = self.run, self.account
        await run.prepare()
        question = run.question
        given = self.request.headers, account.endpoint, self.content
        long = len(self.content) > _LONG
        ceiling = await self._reserve(
            await asyncio.to_thread(idempotency_of, *given) if long else idempotency_of(*given)
        )
        if (again := replayed(account)) is not None:
            return again
        if question.own.stream and isinstance(run.plan, Spec) and question.choices == 1:
            self.streaming.mode = run.plan.strategy.streams
        self.app.admitted(self.request)
        if (trace := account.admitted(run.stored_name, self.request.headers.get("traceparent"))) is not None:
            run.headers["traceparent"] = trace
        try:
            await run.prepare_reader()
            if long:
                await run.encoded.prepare()
        except Exception as error:
            raise await self._failed(error) from error
        self.work = work = asyncio.create_task(run.go(self._decided, ceiling))
        return await (self._stream(work) if question.own.stream else self._reply(work))

    async def forget(self) -> None:
        """Let go of the request and its samples, of long ones beside the event loop."""
        self.run.forget()
        if sum(choice.size for choice in self.run.choices()) > _LONG:
            await asyncio.to_thread(self.run.forget_samples)

    async def _reserve(self, idempotency: Idempotency | None) -> int | None:
        """Set upper bounds aside; the tokens that the request may use where its key has a budget."""
        question, account = self.run.question, self.account
        # Each sample reads the prompt, which has no more tokens than the request has bytes.
        prompt = len(self.content) if question.bounds.prompt is None else question.bounds.prompt
        bound = self.run.plan.n * (prompt + question.request.sampling.max_tokens)
        if (judge := self.run.judge) is not None and judge.parameters != 0:  # it reads each sample and its question
            bound += math.ceil(RATIO * bound)
        tokens = min(bound, question.request.budget.tokens or bound)
        usd = self.run.usd_bound(tokens)
        if question.request.budget.usd is not None:
            usd = question.request.budget.usd if usd is None else min(usd, question.request.budget.usd)
        await account.reserve(tokens, usd, idempotency)
        return tokens if account.key.limited else None

    async def _reply(self, work: asyncio.Task[Verdict]) -> web.StreamResponse:
        """The answer as one object."""
        try:
            verdict = await asyncio.shield(work)  # a client that leaves ends this handler; `abandon` sees to the work
        except Exception as error:
            raise await self._failed(error) from error
        receipt = self.run.client_receipt(verdict)
        content = await self._made(verdict, lambda: self._completion(receipt, self._texts(verdict)))
        await self._settle(receipt, 200, content)
        return web.Response(body=paced(content), headers={"content-type": "application/json", RECEIPT: self.account.id})

    async def _stream(self, work: asyncio.Task[Verdict]) -> web.StreamResponse:
        """The answer as events; the last ones wait for the ledger."""
        run, streaming = self.run, self.streaming
        await streaming.write_queued(self.request, work, lambda: run.votes.line)
        try:
            verdict = work.result()
        except Exception as error:
            failure = await self._failed(error)
            if streaming.response is None:
                raise failure from error
            return await streaming.end(self.request, b"data: " + failure.body() + b"\n\n" + DONE)
        receipt = run.client_receipt(verdict)
        events, kept = await self._made(verdict, lambda: self._ending(verdict, receipt))
        await self._settle(receipt, 200, kept)
        return await streaming.end(self.request, events)

    async def _made(self, verdict: Verdict, make: Callable[[], T]) -> T:
        """A part of the reply, made beside the event loop where the samples are long."""
        size = len(verdict.text) + sum(choice.size for choice in self.run.choices())
        return make() if size <= _LONG else await asyncio.to_thread(make)

    def _ending(self, verdict: Verdict, receipt: JsonDict) -> tuple[bytes, bytes | None]:
        """The last events, and the reply as it is kept, if it is."""
        texts, kept = self._texts(verdict), None
        events = self._last_events(receipt, texts)
        if self.account.keep:  # for a repetition: the same reply in fewer events
            first = self.layout.pieces(0, texts[0], self.run.sample(texts[0]))
            kept = self.layout.chunk(ROLE) + first + events
        elif self.account.keeps:
            kept = self._completion(receipt, texts)
        return self.streaming.rest() + events, kept

    def _last_events(self, receipt: JsonDict, texts: Sequence[str]) -> bytes:
        """What is left to be sent when the work has ended: the other choices, reasons, receipt and usage."""
        layout, events = self.layout, b""
        for index, text in enumerate(texts):
            sample = self.run.sample(text)
            events += layout.pieces(index, text, sample) if index else b""
            reason = finish_reason_of(sample, cut=_is_cut(receipt))
            events += layout.last(index, reason, receipt if index == 0 else None, sample)
        if self.run.question.own.usage:
            events += layout.usage(usage_of(self.run.receipt(), self.run.choices()), self.run.sample(texts[0]))
        return events + DONE

    def _texts(self, verdict: Verdict) -> list[str]:
        return self.run.votes.ranked(verdict.text, verdict.answer, self.run.question.choices)

    def _completion(self, receipt: JsonDict, texts: Sequence[str]) -> bytes:
        """The whole reply as one object."""
        cut = _is_cut(receipt)
        choices = [self.layout.choice(at, text, self.run.sample(text), cut=cut) for at, text in enumerate(texts)]
        usage = usage_of(self.run.receipt(), self.run.choices())
        return written(self.layout.completion(choices, usage, receipt, self.run.sample(texts[0])))

    async def _decided(self, verdict: Verdict) -> None:
        """The answer is known; in a stream it begins now, while the rest is still being closed."""
        self.verdict = verdict
        if self.run.question.own.stream and not self.streaming.shown:
            self.streaming.put(await self._made(verdict, lambda: self._begun(verdict.text)))

    def _begun(self, text: str) -> bytes:
        return self.layout.pieces(0, text, self.run.sample(text), thoughts=not self.streaming.thought)

    async def _failed(self, error: Exception) -> Failure:
        """The error object; what had been spent until then is settled first."""
        failure = self.run.failure(error) or failure_of(error)
        if failure is None:
            raise error
        failure.headers[RECEIPT] = self.account.id
        receipt = self.run.client_receipt(None) | {"stopped": "error"}
        await self._settle(receipt, failure.status, None, failure)
        return failure

    async def _settle(self, receipt: JsonDict, status: int, body: bytes | None, failure: Failure | None = None) -> None:
        kept = self.run.stored_receipt(receipt, content=self.app.ledger.logs_content)
        record = self.account.spent(self.run.receipt(), self.run.model, self.run.stored_name, status, kept)
        record.error = failure.stored if failure is not None else None
        record.body = body if self.account.keeps else None
        await self.account.settle(record)

    def abandon(self) -> None:
        """The client has left, or it cannot be answered any more: close every connection now, settle behind it."""
        work, self.work = self.work, None  # which refers to the exchange
        reserved = self.account.reservation
        if self.account.settled or reserved is None or reserved.replay is not None:
            return
        if work is None:  # nothing has been asked of a backend yet
            receipt = self.run.client_receipt(None) | {"stopped": "interrupted"}
            self.app.later(self._settle(receipt, 499, None))
            return
        work.cancel()
        self.app.later(self._settle_abandoned(work))

    async def _settle_abandoned(self, work: asyncio.Task[Verdict]) -> None:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # seen
        receipt = self.run.client_receipt(self.verdict) | {"stopped": "interrupted"}
        await self._settle(receipt, 499, None)


def _backend_model(backends: Backends, options: RequestOptions, key: Key, field: str) -> str:
    """The model that is drawn from. Raises Failure where nobody serves it."""
    model = options.model or next(iter(backends.names(key)), None)
    if model is None:
        raise Failure(503, "no backend has told which models it serves", code="no_backend", retry_after=5.0)
    if model not in (names := backends.pool.names()):
        raise unknown_model(model, names, field)
    return model


def _asked_last(body: JsonDict) -> str:
    """What the user has asked last, empty where no text can be read; what is malformed is refused later."""
    messages = body.get("messages")
    for message in reversed(messages if isinstance(messages, list) else []):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
            return Message.of(message).text if parts or isinstance(content, str) else ""
    return ""


def _beginning(value: Json, levels: int = 4) -> Json:
    """As much of a message as its prefix may need: the whole may be megabytes."""
    if isinstance(value, str):
        return value[:_PREFIX]
    if not isinstance(value, list | dict) or not levels:
        return None if isinstance(value, list | dict) else value
    if isinstance(value, list):
        return [_beginning(item, levels - 1) for item in value[:_PARTS]]
    return {name[:_PREFIX]: _beginning(item, levels - 1) for name, item in islice(value.items(), _PARTS)}


def _is_cut(receipt: JsonDict) -> bool:
    """Whether the budget ended before the answer was finished."""
    return str(receipt["stopped"]).startswith("budget:")
