"""The official Python client works unmodified."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("openai._client", reason="needs the openai client")

import openai

from outthink.core.request import Budget
from outthink.serving.ledger.memory import MemoryLedger
from outthink.serving.protocols import Key
from support.chat_server import DONE, ChatServer, chat, chunk, refusal, stream, token, usage, whole
from support.ledgers import KeyRing
from support.lenient_server import LenientServer
from support.proxy_server import CHAT, ProxyServer

HELLO: Any = [{"role": "user", "content": "Hello"}]
ADD: Any = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}


class Guarded(MemoryLedger):
    """Knows one key, which may use one strategy only."""

    guarded = True

    async def authorise(self, bearer: str | None) -> Key | None:
        """Whose key it is."""
        return Key("k1", models=("outthink/single",)) if bearer == "known" else None


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer(chat(["The answer ", "is 4."])) as server:
        yield server


@pytest.fixture
def client(backend: ChatServer) -> Iterator[Any]:
    with ProxyServer(backend.url) as proxy, openai.OpenAI(base_url=proxy.url, api_key="any", max_retries=0) as made:
        yield made


def test_a_chat_by_a_strategy(client: Any) -> None:
    got = client.chat.completions.create(
        model="outthink/self-consistency@4", messages=HELLO, extra_body={"outthink": {"budget": "tokens=4000"}}
    )
    assert got.choices[0].message.content == "The answer is 4."
    assert got.usage.total_tokens >= 21
    assert got.outthink["receipt"]["answer"] == "4"


@pytest.mark.parametrize("model", ["outthink/single", "outthink/self-consistency@3", "toy"])
def test_a_stream(client: Any, model: str) -> None:
    stream = client.chat.completions.create(
        model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "The answer is 4."
    assert chunks[-1].usage.total_tokens > 0


def test_models(client: Any) -> None:
    names = [row.id for row in client.models.list()]
    assert names[0] == "toy"
    assert client.models.retrieve("toy").id == "toy"


def test_errors_are_the_clients_own(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-none", messages=HELLO)
    assert missing.value.code == "model_not_found"
    assert missing.value.param == "model"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="outthink/nonsense", messages=HELLO)


def test_parsed_output(client: Any, backend: ChatServer) -> None:
    import pydantic

    class Count(pydantic.BaseModel):
        n: int

    backend.routes[CHAT] = chat(['{"n": 4}'])
    got = client.chat.completions.parse(model="outthink/self-consistency@3", messages=HELLO, response_format=Count)
    assert got.choices[0].message.parsed == Count(n=4)


def test_responses_pass_through(client: Any, backend: ChatServer) -> None:
    part = {"type": "output_text", "text": "Hi", "annotations": []}
    item = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    backend.routes["/v1/responses"] = whole({"id": "r", "object": "response", "output": [item], "model": "toy"})
    assert client.responses.create(model="toy", input="Hello").output_text == "Hi"


@pytest.mark.parametrize("model", ["outthink/single", "outthink/self-consistency@3", "toy"])
def test_tool_calls_are_streamed(client: Any, backend: ChatServer, model: str) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    backend.routes[CHAT] = stream(chunk(delta={"tool_calls": [call]}), chunk(finish="tool_calls"), usage(5, 2), DONE)
    with client.chat.completions.stream(model=model, messages=HELLO, tools=[ADD]) as received:
        message = received.get_final_completion().choices[0].message
    assert [(tool_call.function.name, tool_call.function.arguments) for tool_call in message.tool_calls] == [
        ("add", '{"a": 1}')
    ]


def test_several_choices_with_log_probabilities(client: Any, backend: ChatServer) -> None:
    pieces = [chunk(text, logprobs=[token(text, -0.25)]) for text in ("It is ", "4.")]
    backend.routes[CHAT] = stream(*pieces, chunk(finish="stop"), usage(5, 2), DONE)
    got = client.chat.completions.create(model="outthink/single", messages=HELLO, n=3, logprobs=True)
    assert [choice.index for choice in got.choices] == [0, 1, 2]
    assert [[entry.logprob for entry in choice.logprobs.content] for choice in got.choices] == [[-0.25, -0.25]] * 3
    assert got.usage.completion_tokens == 6


def test_a_raw_reply_names_its_receipt(client: Any) -> None:
    raw = client.chat.completions.with_raw_response.create(model="outthink/single", messages=HELLO)
    assert raw.headers["x-outthink-receipt"] == raw.parse().outthink["receipt"]["id"]


def test_embeddings_pass_through(client: Any, backend: ChatServer) -> None:
    row = {"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}
    counts = {"prompt_tokens": 1, "total_tokens": 1}
    backend.routes["/v1/embeddings"] = whole({"object": "list", "data": [row], "model": "toy", "usage": counts})
    got = client.embeddings.create(model="toy", input="Hello", encoding_format="float")
    assert got.data[0].embedding == [0.5, -0.25]


def test_the_asynchronous_client_asks_at_once(backend: ChatServer) -> None:
    async def everybody(url: str) -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:

            async def one(model: str) -> str:
                parts = await client.chat.completions.create(model=model, messages=HELLO, stream=True)
                return "".join([part.choices[0].delta.content or "" async for part in parts if part.choices])

            return await asyncio.gather(*(one(model) for model in ("toy", "outthink/self-consistency@3") * 4))

    with ProxyServer(backend.url) as proxy:
        assert asyncio.run(everybody(proxy.url)) == ["The answer is 4."] * 8


def test_refusals_are_the_clients_own(client: Any, backend: ChatServer) -> None:
    backend.routes[CHAT] = refusal("slow down", 429)
    for model in ("toy", "outthink/single"):
        with pytest.raises(openai.RateLimitError):
            client.with_options(timeout=20).chat.completions.create(model=model, messages=HELLO)
    with ProxyServer(backend.url, ledger=Guarded()) as proxy:
        for bearer, error in (("wrong", openai.AuthenticationError), ("known", openai.PermissionDeniedError)):
            with pytest.raises(error), openai.OpenAI(base_url=proxy.url, api_key=bearer, max_retries=0) as other:
                other.chat.completions.create(model="toy", messages=HELLO)


SCHEMA: Any = {"type": "object", "properties": {"max_tokens": {"type": "integer", "minimum": 3, "maxLength": 900}}}
ITEMS: Any = [
    {"role": "user", "content": [{"type": "input_text", "text": "Is it 7 or 8?"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "7"}], "encrypted_content": "a9"},
    {"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [
        {"type": "output_text", "text": "7", "annotations": [{"type": "file_citation", "file_id": "f1", "index": 3}]}
    ]},
    {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}", "caller": {"type": "direct"}},
    {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "8"}]},
]  # fmt: skip
MESSAGES: Any = [
    {"role": "developer", "content": [{"type": "text", "text": "Be 1 or 2.", "cache_control": {"type": "ephemeral"}}]},
    {"role": "user", "content": "Is max_tokens 40?", "name": "u1"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"max_tokens": 400}'}},
        {"id": "c2", "type": "custom", "custom": {"name": "run", "input": "print(8)"}},
    ], "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "8"}]},
    {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "8"}]},
    {"role": "tool", "tool_call_id": "c2", "content": "8"},
]  # fmt: skip
COMMON: Any = {
    "model": "toy", "temperature": 0.5, "top_p": 0.9, "user": "user-17", "metadata": {"build": "1204"}, "store": False,
    "safety_identifier": "s-1", "prompt_cache_key": "k-1", "prompt_cache_retention": "24h", "parallel_tool_calls": True,
    "service_tier": "auto", "top_logprobs": 2, "prompt_cache_options": {"ttl": "30m"},
    "moderation": {"model": "omni-moderation-2024"},
}  # fmt: skip
EVERYTHING: Any = {
    "chat.completions": {
        **COMMON, "messages": MESSAGES, "frequency_penalty": 0.5, "presence_penalty": 1, "logit_bias": {"50256": -100},
        "logprobs": True, "max_completion_tokens": 60, "n": 2, "reasoning_effort": "low", "seed": 7, "verbosity": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "a1", "schema": SCHEMA, "strict": True}},
        "stop": ["1.", "2."], "stream_options": {"include_usage": True, "include_obfuscation": False}, "stream": True,
        "tool_choice": {"type": "function", "function": {"name": "add2"}}, "modalities": ["text"],
        "tools": [
            {"type": "function", "function": {"name": "add2", "parameters": SCHEMA, "strict": True}},
            {"type": "custom", "custom": {"name": "run", "format": {"type": "grammar", "definition": "9"}}},
        ],
        "functions": [{"name": "f1", "parameters": SCHEMA}], "function_call": {"name": "f1"},
    },
    "completions": {
        "model": "toy", "prompt": ["1 + 1", "2 + 2"], "best_of": 3, "n": 2, "echo": True, "logprobs": 5,
        "max_tokens": 9, "suffix": "= 4", "seed": 7, "logit_bias": {"50256": -100}, "stop": "5", "user": "user-17",
        "temperature": 0.5, "frequency_penalty": 0.5, "presence_penalty": 0.5, "top_p": 0.5,
        "stream_options": {"include_usage": True},
        "stream": True,
    },
    "responses": {
        **COMMON, "input": ITEMS, "instructions": "Say 1.", "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 60, "max_tool_calls": 3, "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "json_schema", "name": "a1", "schema": SCHEMA}, "verbosity": "low"},
        "tool_choice": "auto", "truncation": "auto", "background": False, "previous_response_id": None,
        "tools": [
            {"type": "function", "name": "add2", "parameters": SCHEMA, "strict": True},
            {"type": "namespace", "name": "crm1", "description": "8", "tools": [
                {"type": "function", "name": "add3", "parameters": SCHEMA, "strict": False}]},
        ],
    },
    "embeddings": {"model": "toy", "input": ["1", "2"], "dimensions": 64, "encoding_format": "float", "user": "user-1"},
}  # fmt: skip


@pytest.mark.parametrize("endpoint", EVERYTHING)
def test_every_documented_parameter_passes_for_a_key_with_a_ceiling(endpoint: str) -> None:
    """What goes out is what was asked, but for the length where the ceiling is lower, and null fields too."""
    key = Key("capped", limited=True, priced=True, budget=Budget(tokens=20_000))
    with LenientServer() as server, ProxyServer(server.url, ledger=KeyRing(key)) as proxy:
        resource = openai.OpenAI(base_url=proxy.url, api_key="capped", max_retries=0)
        for part in endpoint.split("."):
            resource = getattr(resource, part)
        reply = resource.create(**EVERYTHING[endpoint])
        if EVERYTHING[endpoint].get("stream"):
            list(reply)
        assert server.bodies == [EVERYTHING[endpoint]]
