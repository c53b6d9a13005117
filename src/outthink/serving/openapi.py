"""The OpenAPI document of `/openapi.json`. Knows every path, status and shape that the proxy answers with."""

from __future__ import annotations

from functools import cache

from outthink.core import __version__
from outthink.core.request import ANSWER_KINDS
from outthink.http.fields import JsonDict
from outthink.serving.chat.question import VERIFIERS

_TEXT: JsonDict = {"type": "string"}
_NULLABLE = {"type": ["string", "null"]}
_OPEN: JsonDict = {"type": "object", "additionalProperties": True}
_HEADERS = {"x-outthink-receipt": {"schema": _TEXT, "description": "Identifier of the receipt."}}
_ERRORS = {
    "400": "A field of the request cannot be used; `error.param` names it.",
    "401": "The API key is missing or unknown.",
    "403": "The API key has no right to this.",
    "404": "Nothing of this name.",
    "405": "Another method is needed.",
    "408": "The body did not arrive in time.",
    "409": "The idempotency key is in use.",
    "413": "The body is too long.",
    "415": "The body is compressed.",
    "422": "The backend refused the request.",
    "429": "A budget is used up, or the queue is full; see Retry-After.",
    "500": "The proxy failed.",
    "501": "Something that the request needs is not installed.",
    "502": "The backend failed.",
    "503": "No backend, or no ledger, is available.",
    "504": "The backend sent nothing for too long.",
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": _TEXT, "type": _TEXT, "param": _NULLABLE, "code": _NULLABLE},
        }
    },
}
_BUDGET = {
    "description": "Ceilings of the whole request; the strictest of body, header and key holds.",
    "anyOf": [
        {"type": "string", "pattern": "^[ ]*(tokens|seconds|usd|dollars|joules)[ ]*=.+$"},
        {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": False,
            "properties": {
                "tokens": {"type": "integer", "minimum": 1},
                **{name: {"type": "number", "exclusiveMinimum": 0} for name in ("seconds", "usd", "joules")},
            },
        },
    ],
}
_CHAT_FIELDS: JsonDict = {
    "model": {"type": "string", "minLength": 1},
    "messages": {
        "type": "array",
        "minItems": 1,
        "items": {"type": "object", "required": ["role"], "properties": {"role": _TEXT}},
    },
    "stream": {"type": ["boolean", "null"]},
    "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 128},
    "temperature": {"type": ["number", "null"], "minimum": 0},
    "max_tokens": {"type": ["integer", "null"], "minimum": 1},
    "seed": {"type": ["integer", "null"]},
}
_CHAT: JsonDict = {"type": "object", "required": ["model", "messages"], "additionalProperties": True}
_NAMED = {
    "type": "object",
    "required": ["model"],
    "additionalProperties": True,
    "properties": {"model": {"type": "string", "minLength": 1}},
}
_ROW = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {"id": _TEXT, "object": {"const": "model"}, "created": {"type": "integer"}, "owned_by": _TEXT},
}
_LIST = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _ROW}},
}
_RECEIPT = {
    "type": "object",
    "required": ["object", "id", "model", "strategy", "stopped", "tokens", "usd", "receipt"],
    "properties": {
        "object": {"const": "receipt"},
        **dict.fromkeys(("id", "model", "strategy", "stopped"), _TEXT),
        "tokens": {"type": ["integer", "null"]},
        "usd": {"type": ["number", "null"]},
        "receipt": {"type": ["object", "null"]},
    },
}


def _json(schema: JsonDict) -> JsonDict:
    return {"application/json": {"schema": schema}}


def _errors(*statuses: str) -> JsonDict:
    headers = {"Retry-After": {"schema": {"type": "integer"}}}
    return {
        status: {"description": _ERRORS[status], "content": _json(_ERROR)}
        | ({"headers": headers} if status in ("429", "503") else {})
        for status in statuses
    }


def _posted(summary: str, body: JsonDict, reply: JsonDict, optional: bool) -> JsonDict:
    names = ("x-outthink-strategy", "x-outthink-budget") if optional else ()
    parameters = [{"name": name, "in": "header", "schema": _TEXT} for name in (*names, "Idempotency-Key")]
    return {
        "summary": summary,
        "parameters": parameters,
        "requestBody": {"required": True, "content": _json(body)},
        "responses": {
            "200": {
                "description": "The answer, whole or as server-sent events.",
                "headers": _HEADERS,
                "content": {**_json(reply), "text/event-stream": {"schema": _TEXT}},
            },
            **_errors(*(status for status in _ERRORS if status != "405")),
        },
    }


def _got(summary: str, reply: JsonDict, *errors: str, public: bool = False, **more: JsonDict) -> JsonDict:
    return {
        "summary": summary,
        **({"security": []} if public else {}),
        **more,
        "responses": {"200": {"description": "As asked.", "content": _json(reply)}, **_errors(*errors)},
    }


def _part(name: str, text: str) -> JsonDict:
    return {"parameters": [{"name": name, "in": "path", "required": True, "schema": _TEXT, "description": text}]}


def _chat(verifiers: tuple[str, ...], answers: tuple[str, ...]) -> JsonDict:
    """The body of a chat, with the names that plugins add behind our own."""
    options = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "strategy": {"type": "string", "description": "NAME[@n][:k=v,...], as in `outthink strategies`"},
            "budget": _BUDGET,
            "verifier": {"enum": [*VERIFIERS, *verifiers]},
            "answer": {"enum": [*ANSWER_KINDS, *answers], "description": "What votes are taken on."},
            "progress": {"enum": ["comments", "reasoning"]},
            "model": {"type": "string", "description": "Backend model, where `model` names a strategy."},
        },
    }
    return {**_CHAT, "properties": {**_CHAT_FIELDS, "outthink": options}}


@cache
def document(verifiers: tuple[str, ...] = (), answers: tuple[str, ...] = ()) -> JsonDict:
    """The document; the same object every time, not to be changed.

    Args:
        verifiers: names that plugins add; `answers` the kinds of answer.
    """
    chat = _posted("Answer a chat, passed through or by a strategy.", _chat(verifiers, answers), _OPEN, True)
    paths: JsonDict = {
        "/v1/chat/completions": {"post": chat},
        "/v1/models": {"get": _got("What can be asked for.", _LIST, "401")},
        "/v1/models/{model}": {"get": _got("One model.", _ROW, "401", "404", **_part("model", "Its name."))},
        "/v1/receipts/{id}": {
            "get": _got("What a request cost.", _RECEIPT, "401", "404", "503", **_part("id", "x-outthink-receipt."))
        },
        "/v1/receipts/{id}/content": {
            "delete": _got(
                "Deletes what is stored of a request's content; its receipt stays.",
                _OPEN,
                *("401", "404", "503"),
                **_part("id", "x-outthink-receipt."),
            )
        },
        "/healthz": {"get": _got("The process answers.", _OPEN, public=True)},
        "/readyz": {"get": _got("Requests can be served.", _OPEN, "503", public=True)},
        "/openapi.json": {"get": _got("This document.", _OPEN, public=True)},
    }
    for name in ("completions", "responses", "embeddings"):
        paths[f"/v1/{name}"] = {"post": _posted(f"Passed through to a backend that has {name}.", _NAMED, _OPEN, False)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "outthink", "version": __version__, "license": {"name": "Apache-2.0"}},
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
        "paths": paths,
    }
