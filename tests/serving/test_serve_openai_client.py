"""The official Python client works unmodified."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("openai._client", reason="needs the openai client")

import openai

from support.chat_server import ChatServer, chat, whole
from support.proxy_server import CHAT, ProxyServer

HELLO: Any = [{"role": "user", "content": "Hello"}]


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
