"""`/v1/chat/completions` with a strategy: from the decoded body to the last byte.

Knows: the order of things. What is spent is settled before the reply ends, or in the background
where the client leaves.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from outthink.core.receipt import Verdict
from outthink.serving.accounting import RECEIPT, Account, replayed
from outthink.serving.bodies import encode
from outthink.serving.chat.backends import Backends
from outthink.serving.chat.completion import DONE, ROLE, Layout, Streaming, reason, usage_of
from outthink.serving.chat.question import PREFIX, RequestOptions, read_options, read_question
from outthink.serving.chat.run import StrategyRun
from outthink.serving.failure import Failure, failure_of
from outthink.serving.protocols import Key
from outthink.strategies import Spec, strategies

if TYPE_CHECKING:
    from outthink.serving.app import App


# `/v1/models`: what can be asked for. Knows the pool's names and the strategies; does not ask any backend.

_BEGAN = int(time.time())


def listing(names: Sequence[str]) -> dict[str, Any]:
    """Backend models first, then `outthink/auto` and the strategies."""
    rows = [{"id": name, "object": "model", "created": _BEGAN, "owned_by": "backend"} for name in names]
    own = ["outthink/auto", *(f"outthink/{name}" for name in strategies())]
    rows += [{"id": name, "object": "model", "created": _BEGAN, "owned_by": "outthink"} for name in own]
    return {"object": "list", "data": rows}


def one(name: str, names: Sequence[str]) -> dict[str, Any]:
    """A row of the list. Raises Failure for a name that is not in it."""
    for row in listing(names)["data"]:
        if row["id"] == name:
            return dict(row)
    raise unknown_model(name, names)


def unknown_model(name: object, names: Sequence[str], field: str = "model") -> Failure:
    """The error for a model that nobody serves."""
    shown = ", ".join(names[:8]) or "none"
    return Failure(
        404,
        f"{field}: {str(name)[:120]!r} is not served here; use one of {shown}, outthink/auto or outthink/STRATEGY[@n]",
        param=field,
        code="model_not_found",
    )


class Chats:
    """Answers chats by strategies."""

    def __init__(self, app: App, backends: Backends) -> None:
        self.app, self.backends = app, backends

    async def __call__(
        self, request: web.BaseRequest, key: Key, content: bytes, body: Mapping[str, Any]
    ) -> web.StreamResponse:
        """Answer one chat."""
        one = _Exchange(self.app, self.backends, request, key, content, body)
        try:
            return await one.answer()
        except BaseException:
            one.leave()
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
        body: Mapping[str, Any],
    ) -> None:
        self.app, self.request, self.content = app, request, content
        wish = read_options(body, request.headers, key)
        named = str(body["model"])
        model = self._model(backends, wish, "outthink.model" if named.startswith(PREFIX) else "model")
        question = read_question(body, wish, backends.limits)
        self.account = Account(app.ledger, key, "/v1/chat/completions", named, question.stream, content=content)
        self.account.watchers = app.watchers
        self.layout = Layout(self.account.id, named, logprobs=question.logprobs, top=question.top_logprobs)
        self.streaming = Streaming(
            self.layout, {RECEIPT: self.account.id}, backends.limits.progress_seconds, wish.progress
        )
        self.streaming.on_first_token = self.account.first_token
        prefix = zlib.crc32(encode(question.raw[:2])[:4096])
        on_chunk = self.streaming.on_chunk if question.stream else None
        self.run = StrategyRun(backends, question, wish, model, self.account.id, prefix, on_chunk)
        self.run.watchers = app.watchers
        self.work: asyncio.Task[Verdict] | None = None
        self.verdict: Verdict | None = None

    @staticmethod
    def _model(backends: Backends, wish: RequestOptions, field: str) -> str:
        names = backends.pool.names()
        model = wish.model or next(iter(names), None)
        if model is None:
            raise Failure(503, "no backend has told which models it serves", code="no_backend", retry_after=5.0)
        if model not in names:
            raise unknown_model(model, names, field)
        return model

    async def answer(self) -> web.StreamResponse:
        """Run the strategy and reply."""
        run, account = self.run, self.account
        await run.prepare()
        question = run.question
        ceiling = await self._reserve(self.request.headers.get("Idempotency-Key"))
        if (again := replayed(account)) is not None:
            return again
        if question.stream and isinstance(run.plan, Spec) and question.choices == 1:
            self.streaming.mode = run.plan.strategy.streams
        if (trace := account.admitted(run.name, self.request.headers.get("traceparent"))) is not None:
            run.headers["traceparent"] = trace
        self.work = asyncio.create_task(run.go(self._decided, ceiling))
        return await (self._streamed() if question.stream else self._whole())

    async def _reserve(self, idempotency: str | None) -> int | None:
        """Set upper bounds aside; the tokens that the request may use where its key has a budget."""
        question, account = self.run.question, self.account
        bound = self.run.n * (len(self.content) + question.request.sampling.max_tokens)
        tokens = min(bound, question.request.budget.tokens or bound)
        usd = self.run.backends.tariff(self.run.model).usd_bound(tokens, tokens)
        if question.request.budget.usd is not None:
            usd = question.request.budget.usd if usd is None else min(usd, question.request.budget.usd)
        await account.reserve(tokens, usd, idempotency)
        return tokens if account.key.limited else None

    async def _whole(self) -> web.StreamResponse:
        work, run = self.work, self.run
        assert work is not None
        try:
            verdict = await asyncio.shield(work)
        except Exception as error:
            raise await self._failed(error) from error
        told = run.told(self.account.id, verdict)
        texts = run.board.ranked(verdict.text, verdict.answer, run.question.choices)
        content = self._completion(told, texts)
        await self._settle(told, 200, content)
        return web.Response(body=content, headers={"content-type": "application/json", RECEIPT: self.account.id})

    async def _streamed(self) -> web.StreamResponse:
        work, run, streaming, layout = self.work, self.run, self.streaming, self.layout
        assert work is not None
        await streaming.pour(self.request, work, lambda: run.board.line)
        try:
            verdict = work.result()
        except Exception as error:
            failure = await self._failed(error)
            if streaming.response is None:
                raise failure from error
            await streaming.write(self.request, b"data: " + failure.body() + b"\n\n" + DONE)
            await streaming.response.write_eof()
            return streaming.response
        told = run.told(self.account.id, verdict)
        cut = str(told["stopped"]).startswith("budget:")
        texts = run.board.ranked(verdict.text, verdict.answer, run.question.choices)
        events = b""
        for at, text in enumerate(texts):
            sample = run.sample(text)
            events += layout.pieces(at, text, sample) if at else b""
            events += layout.last(at, reason(sample, cut=cut), told if at == 0 else None)
        if run.question.usage:
            events += layout.usage(usage_of(run.receipt()))
        events += DONE
        kept = None
        if self.account.keep:  # for a repetition: the same reply in fewer events
            kept = layout.chunk(ROLE) + layout.pieces(0, texts[0], run.sample(texts[0])) + events
        elif self.account.keeps:
            kept = self._completion(told, texts)
        await self._settle(told, 200, kept)
        await streaming.write(self.request, events)
        assert streaming.response is not None
        await streaming.response.write_eof()
        return streaming.response

    def _completion(self, told: Mapping[str, Any], texts: Sequence[str]) -> bytes:
        """The whole reply as one object."""
        cut = str(told["stopped"]).startswith("budget:")
        choices = [self.layout.choice(at, text, self.run.sample(text), cut=cut) for at, text in enumerate(texts)]
        return encode(self.layout.whole(choices, usage_of(self.run.receipt()), told))

    def _decided(self, verdict: Verdict) -> None:
        """The answer is known; in a stream it begins now, while the rest is still being closed."""
        self.verdict = verdict
        if self.run.question.stream and not self.streaming.shown:
            sample = self.run.sample(verdict.text)
            new = not self.streaming.thought
            self.streaming.put(self.layout.pieces(0, verdict.text, sample, thoughts=new))

    async def _failed(self, error: Exception) -> Failure:
        """The error object; what had been spent until then is settled first."""
        failure = self.run.failure(error) or failure_of(error)
        if failure is None:
            raise error
        failure.headers[RECEIPT] = self.account.id
        await self._settle(self.run.told(self.account.id, None) | {"stopped": "error"}, failure.status, None, failure)
        return failure

    async def _settle(
        self, told: dict[str, Any], status: int, body: bytes | None, failure: Failure | None = None
    ) -> None:
        record = self.account.spent(
            self.run.receipt(), self.run.model, self.run.name, str(told["stopped"]), status, told
        )
        if self.run.shadowed is not None:  # for the operator: clients get the receipt without it
            record.receipt = {**told, "shadow": self.run.shadowed}
        record.error = failure.message if failure is not None else None
        record.body = body if self.account.keep else None
        await self.account.settle(record)

    def leave(self) -> None:
        """The client has left, or nothing can be told any more: close every connection now, settle behind it."""
        if self.work is None or self.account.settled:
            return
        self.work.cancel()
        self.app.later(self._abandoned(self.work))

    async def _abandoned(self, work: asyncio.Task[Verdict]) -> None:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # seen
        told = self.run.told(self.account.id, self.verdict) | {"stopped": "interrupted"}
        await self._settle(told, 499, None)
