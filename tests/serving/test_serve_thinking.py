"""What samples only thought does not vote, wherever a server puts it and however it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from support.chat_server import DONE, ChatServer, Reply, Seen, chunk, stream, usage
from support.proxy_server import CHAT, ProxyServer

SCHEMA = {"type": "json_schema", "json_schema": {"schema": {"type": "object", "required": ["n"]}}}
ADD = {"type": "function", "function": {"name": "add"}}
KINDS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "number": ({"outthink": {"answer": "number"}}, "The answer is 99?", "The answer is 7.", "7"),
    "math": ({"outthink": {"answer": "math"}}, r"\boxed{x+9}", r"\boxed{x+7}", "x+7"),
    "choice": ({"outthink": {"answer": "choice"}}, "The answer is (C).", "The answer is (B).", "B"),
    "text": ({"outthink": {"answer": "text"}}, "The answer is red.", "The answer is blue.", "blue"),
    "json": ({"response_format": {"type": "json_object"}}, '{"n": 99}', '{"n": 7}', '{"n":7}'),
    "schema": ({"response_format": SCHEMA}, '{"n": 99}', '{"n": 7}', '{"n":7}'),
    "tools": ({"tools": [ADD]}, "The answer is 99?", "The answer is 7.", "7"),
}
THOUGHT = {
    "cut": lambda text: {"content": f"<think>{text}"},
    "ended": lambda text: {"content": f"<think>{text}</think>\n"},
    "closed alone": lambda text: {"content": f"{text}</think>"},
    "cut again": lambda text: {"content": f"{text}</think>{text}<think>{text}"},
    "field": lambda text: {"content": None, "reasoning_content": text},
    "other field": lambda text: {"content": "", "reasoning": {"text": text}},
    "parts": lambda text: {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]},
}


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


def answers(thinking: dict[str, Any], said: dict[str, Any]) -> Any:
    """Two samples that only think, and one that speaks."""

    def answer(seen: Seen) -> Reply:
        delta, finish = (said, "stop") if seen.body["seed"] == 2 else (thinking, "length")
        return stream(chunk(delta=delta), chunk(finish=finish), usage(5, 2), DONE)

    return answer


@pytest.mark.parametrize("thought", THOUGHT)
@pytest.mark.parametrize("kind", KINDS)
def test_two_that_only_thought_are_outvoted(proxy: ProxyServer, backend: ChatServer, kind: str, thought: str) -> None:
    fields, wrong, right, answer = KINDS[kind]
    backend.routes[CHAT] = answers(THOUGHT[thought](wrong), {"content": f"<think>{wrong}</think>{right}"})
    got = proxy.chat("outthink/self-consistency@3", seed=0, **fields).json
    assert got["outthink"]["receipt"]["answer"] == answer
    assert got["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("thought", THOUGHT)
def test_a_call_is_said_whatever_was_thought(proxy: ProxyServer, backend: ChatServer, thought: str) -> None:
    call = {"index": 0, "id": "1", "function": {"name": "add", "arguments": '{"a": "<think>"}'}}
    thinking = THOUGHT[thought]('add({"a": 1})')
    backend.routes[CHAT] = answers(thinking, thinking | {"tool_calls": [call]})
    got = proxy.chat("outthink/self-consistency@3", seed=0, tools=[ADD]).json
    (made,) = got["choices"][0]["message"]["tool_calls"]
    assert json.loads(made["function"]["arguments"]) == {"a": "<think>"}
