"""The protocol's paths and what answers them.

Knows: which endpoints exist, what is passed through and what a strategy answers, and who may see a receipt. Does not
know how either is done: `chat.handler` and `forward` are files of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import asdict
from typing import TYPE_CHECKING
from urllib.parse import unquote

from aiohttp import web

from outthink.controller.router.chooser import ModelChooser
from outthink.core.plugins import loaded
from outthink.http.fields import JsonDict, encode
from outthink.serving.chat.backends import Backends, Policies
from outthink.serving.chat.handler import answer_chat, model_list, model_row, unknown_model
from outthink.serving.chat.question import beyond_forwarding, check_allowed
from outthink.serving.failure import Failure, bad_field, wrong_method
from outthink.serving.forward.forwarder import Forwarder
from outthink.serving.inbound.bodies import Bodies
from outthink.serving.openapi import document
from outthink.serving.protocols import Key, Ledger, RequestRecord, legal_id

if TYPE_CHECKING:
    from outthink.serving.app import App
    from outthink.serving.verifier import ServedVerifier


_LONGEST_NAME = 4096
"""Letters of a model's name, with the strategy in it and what that is told; each event of a reply repeats it."""
_HIDDEN = frozenset({"body", "content", "receipt", "key_id"})
CHAT = "/v1/chat/completions"
PASSED = ("/v1/completions", "/v1/responses", "/v1/embeddings")
_MANY = 1000
"""Models of a list that is written beside the event loop."""
_MODELS, _RECEIPTS, _CONTENT = "/v1/models/", "/v1/receipts/", "/content"


class Endpoints:
    """Handlers of one proxy."""

    def __init__(
        self,
        app: App,
        policies: Policies | None = None,
        router: ModelChooser | None = None,
        verifier: ServedVerifier | None = None,
    ) -> None:
        self.app, self.backends = app, Backends(app, policies or Policies(), router, verifier)
        self.bodies = Bodies(app.limits, self.backends.queue_seconds)
        self.forward = Forwarder(app, self.backends)
        app.route("POST", CHAT, self.chat)
        for path in PASSED:
            app.route("POST", path, self.passed)
        app.route("GET", "/v1/models", self.models)
        app.route("GET", _MODELS, self.model)
        app.route("GET", _RECEIPTS, self.receipt)
        app.route("DELETE", _RECEIPTS, self.forget)
        app.route("GET", "/healthz", self.health, public=True)
        app.route("GET", "/readyz", self.ready, public=True)
        app.route("GET", "/openapi.json", self.openapi, public=True)

    async def chat(self, request: web.BaseRequest, key: Key) -> web.StreamResponse:
        """A chat: passed through by a backend's own name, else answered by a strategy."""
        content, body, held = await self._body(request, key)
        try:
            if beyond_forwarding(body, request.headers) is not None:
                return await answer_chat(self.app, self.backends, request, key, content, body)
            messages = body.get("messages")
            if isinstance(messages, list) and len(messages) > self.app.limits.messages:
                remedy = f"send at most {self.app.limits.messages}"
                raise bad_field("messages", len(messages), "messages are too many", remedy)
            return await self._forwarded(request, key, CHAT, content, body)
        finally:
            self.bodies.release(key.id, held)

    async def passed(self, request: web.BaseRequest, key: Key) -> web.StreamResponse:
        """An endpoint that backends answer alone."""
        path = request.path
        content, body, held = await self._body(request, key)
        try:
            if (field := beyond_forwarding(body, request.headers)) is not None:
                value = body.get(field, request.headers.get(field))
                raise bad_field(field, value, f"asks for a strategy or a budget, and {path} has none", f"use {CHAT}")
            return await self._forwarded(request, key, path, content, body)
        finally:
            self.bodies.release(key.id, held)

    async def _body(self, request: web.BaseRequest, key: Key) -> tuple[bytes, JsonDict, int]:
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Failure(
                415, "Content-Encoding: is not supported; send plain JSON", param="Content-Encoding", code="encoding"
            )
        content, body, held = await self.bodies.receive(request, key.id)
        model = body.get("model")
        if not isinstance(model, str) or not model:
            self.bodies.release(key.id, held)
            raise bad_field("model", model, "names no model", "see GET /v1/models")
        if len(model) > _LONGEST_NAME:
            self.bodies.release(key.id, held)
            what = f"has more than {_LONGEST_NAME} letters"
            raise bad_field("model", model, what, "see GET /v1/models", code="model_not_found")
        return content, body, held

    def _forwarded(
        self, request: web.BaseRequest, key: Key, path: str, content: bytes, body: JsonDict
    ) -> Awaitable[web.StreamResponse]:
        names = self.app.pool.names()
        if body["model"] not in names:
            if not names:
                raise Failure(503, "no backend has told which models it serves", code="no_backend", retry_after=5.0)
            raise unknown_model(body["model"], names)
        check_allowed(key, body["model"])
        return self.forward(request, key, path, content, body)

    async def models(self, request: web.BaseRequest, key: Key) -> web.StreamResponse:
        """The list of models."""
        names = self.app.pool.names()
        if len(names) <= _MANY:
            return _json(model_list(names))
        return await asyncio.to_thread(lambda: _json(model_list(names)))

    async def model(self, request: web.BaseRequest, key: Key) -> web.StreamResponse:
        """One model; its name may hold slashes."""
        return _json(model_row(unquote(_below(request, _MODELS)), self.app.pool.names()))

    async def receipt(self, request: web.BaseRequest, key: Key) -> web.StreamResponse:
        """A request's receipt, for the key that made it and for admins."""
        number = _below(request, _RECEIPTS)
        if number.endswith(_CONTENT):
            raise wrong_method(request.method, ("DELETE",))
        return _json(await _receipt_for(self.app.ledger, number, key))

    async def forget(self, request: web.BaseRequest, key: Key) -> web.StreamResponse:
        """Delete what is stored of a request's content, for those who may see its receipt."""
        number = _below(request, _RECEIPTS)
        if not number.endswith(_CONTENT):
            raise wrong_method(request.method, ("GET",))
        number, ledger = number.removesuffix(_CONTENT), self.app.ledger
        await _receipt_for(ledger, number, key)
        deleted = await ledger.forget(number)
        self.app.watchers.forgotten(number)
        return _json({"object": "receipt.content", "id": number, "deleted": deleted})

    async def health(self, request: web.BaseRequest, key: Key) -> web.StreamResponse:
        """The process answers."""
        return _json({"status": "ok"})

    async def ready(self, request: web.BaseRequest, key: Key) -> web.StreamResponse:
        """Requests can be served: some backend is healthy and we are not stopping."""
        if self.app.stopping or not self.app.pool.ready:
            why = "it is stopping" if self.app.stopping else "no backend is healthy"
            raise Failure(503, f"the proxy is not ready: {why}", code="not_ready", retry_after=5.0)
        # Without the ledger requests that have no budget are served, without a new policy by the old one.
        problems = {"ledger": self.app.ledger.problem, "policy": self.backends.policies.problem}
        if (verifier := self.backends.verifier) is not None:
            problems["verifier"] = verifier.problem
        present = {name: problem for name, problem in problems.items() if problem}
        if not key.admin:  # probes have no key: addresses and paths are not for everybody
            present = dict.fromkeys(present, "cannot be used now; see the log")
        return _json({"status": "ready"} | present)

    async def openapi(self, request: web.BaseRequest, key: Key) -> web.StreamResponse:
        """What is served, for programs."""
        return _json(document(loaded("verifiers"), loaded("answers")))


async def _receipt_for(ledger: Ledger, number: str, key: Key) -> JsonDict:
    """A receipt. Raises Failure 404 for one that does not exist or belongs to another key: nobody can tell which."""
    record = await ledger.receipt(number) if legal_id(number) else None
    if record is None or (record.key_id != key.id and not key.admin):
        raise Failure(404, f"id: {number[:60]!r} is no receipt of this key", param="id", code="receipt_not_found")
    values = receipt_json(record)
    if values["receipt"] is not None and not key.admin:
        values["receipt"] = {name: value for name, value in values["receipt"].items() if name != "shadow"}
    return values


def receipt_json(record: RequestRecord) -> JsonDict:
    """The record, and within it the full receipt where there is one."""
    values = {name: value for name, value in asdict(record).items() if name not in _HIDDEN}
    return {"object": "receipt", **values, "receipt": record.receipt}


def _below(request: web.BaseRequest, start: str) -> str:
    return request.raw_path.partition("?")[0][len(start) :]


def _json(value: JsonDict) -> web.Response:
    return web.Response(body=encode(value), content_type="application/json")
