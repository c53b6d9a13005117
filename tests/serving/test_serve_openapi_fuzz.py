"""Requests made up from our own OpenAPI document: no 5xx, and every reply fits the document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")
schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402

from outthink.serving.openapi import document  # noqa: E402
from support.chat_server import ChatServer, Seen, chat, whole  # noqa: E402
from support.proxy_server import ProxyServer  # noqa: E402

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
PLAIN = ("messages", "stream", "temperature", "max_tokens", "seed")
"""Fields of a chat whose every valid value is served; a made-up strategy or size seldom is."""
OPERATIONS = [(path, method) for path, methods in document()["paths"].items() for method in methods]


def answer(seen: Seen) -> Any:
    """A stream where one is asked for, else a completion."""
    if seen.body.get("stream") is True:
        return chat(["The answer is ", "7."])
    choice = {"index": 0, "message": {"role": "assistant", "content": "The answer is 7."}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    return whole({"id": "c", "object": "chat.completion", "model": "toy", "choices": [choice], "usage": usage})


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyServer]:
    with ChatServer(answer) as backend, ProxyServer(backend.url) as running:
        yield running


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_no_server_error_and_no_surprise(proxy: ProxyServer, path: str, method: str) -> None:
    schema = schemathesis.openapi.from_dict(document())
    schemathesis.checks.load_all_checks()
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in CHECKS]
    seen: list[int] = []

    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=schema[path][method].as_strategy())
    def check(case: Any) -> None:
        reply = case.call(base_url=proxy.url.removesuffix("/v1"), timeout=10)
        case.validate_response(reply, checks=checks)
        seen.append(reply.status_code)

    check()
    assert seen


@pytest.mark.parametrize("model", ["toy", "outthink/single", "outthink/self-consistency@2", "outthink/auto"])
def test_chats_that_reach_a_backend(proxy: ProxyServer, model: str) -> None:
    schema = schemathesis.openapi.from_dict(document())
    answered: list[int] = []

    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=schema["/v1/chat/completions"]["post"].as_strategy())
    def check(case: Any) -> None:
        if isinstance(case.body, dict):
            case.body = {name: value for name, value in case.body.items() if name in PLAIN} | {"model": model}
            case.body["messages"] = [{"role": "user", "content": str(received)} for received in case.body["messages"]]
        case.headers = {}
        reply = case.call(base_url=proxy.url.removesuffix("/v1"), timeout=10)
        case.validate_response(reply, checks=[schemathesis.checks.not_a_server_error])
        answered.append(reply.status_code)

    check()
    assert 200 in answered
