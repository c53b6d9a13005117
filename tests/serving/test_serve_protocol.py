"""Pass-through, models, receipts and health: what clients of OpenAI's protocol rely on."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("aiohttp")

from support.chat_server import ChatServer, Drop, Hang, chat, chunk, models, refusal, stream, whole
from support.proxy_server import CHAT, ProxyServer
from support.waiting import PATIENCE, until

ANSWER = {
    "id": "c-1",
    "object": "chat.completion",
    "model": "toy",
    "vendor": {"kept": [1, 2.50]},
    "choices": [{"index": 0, "message": {"role": "assistant", "content": 'a "usage": {} b'}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}},
}


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer(chat(["Hello", " world"]), routes={"/v1/models": models("toy", "org/big")}) as server:
        yield server


def test_pass_through_is_byte_for_byte(backend: ChatServer, proxy: ProxyServer) -> None:
    reply = json.dumps(ANSWER, indent=1).encode()
    backend.routes[CHAT] = whole(reply, x_request_id="r-7")
    sent = b'{"messages" : [{"role":"user","content":"caf\\u00e9 \xf0\x9f\x8d\xb5"}],\n "odd": 1.0, "model":"toy"}'
    got = proxy.send("POST", CHAT, sent, authorization="Bearer secret-of-the-client")
    assert got.content == reply
    assert got.headers["x-request-id"] == "r-7"
    assert backend.calls[0].content == sent
    assert "authorization" not in backend.calls[0].headers
    record = proxy.get(f"/v1/receipts/{got.headers['x-outthink-receipt']}").json
    assert (record["tokens"], record["strategy"], record["stopped"]) == (18, "pass-through", "finished")


def test_streams_pass_byte_for_byte_as_they_come(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = chat(["a", "b"], counts=(5, 2), together=False)
    wire = b"".join(step for step in backend.routes[CHAT].steps if isinstance(step, bytes))
    got = proxy.chat("toy", stream=True)
    assert got.content == wire
    record = proxy.get(f"/v1/receipts/{got.headers['x-outthink-receipt']}").json
    assert (record["prompt_tokens"], record["completion_tokens"]) == (5, 2)


def test_a_stream_without_usage_is_unknown_and_not_zero(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = chat(["a"], counts=None)
    got = proxy.chat("toy", stream=True)
    record = proxy.get(f"/v1/receipts/{got.headers['x-outthink-receipt']}").json
    assert record["tokens"] is None
    assert record["estimated"]


def test_refusals_of_the_backend_pass_too(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = refusal("tools are not supported", param="tools")
    got = proxy.chat("toy")
    assert got.status == 400
    assert got.json["error"]["param"] == "tools"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/v1/embeddings"])
def test_other_endpoints_pass_through(backend: ChatServer, proxy: ProxyServer, path: str) -> None:
    backend.routes[path] = whole({"object": "x", "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}})
    got = proxy.send("POST", path, {"model": "toy", "input": "hi", "prompt": "hi"})
    assert got.json["object"] == "x"
    assert proxy.send("POST", path, {"model": "outthink/auto"}).error["param"] == "model"


def test_responses_count_their_tokens(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes["/v1/responses"] = whole({"usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}})
    got = proxy.send("POST", "/v1/responses", {"model": "toy", "input": "hi"})
    assert proxy.get(f"/v1/receipts/{got.headers['x-outthink-receipt']}").json["tokens"] == 7


def test_models_lists_backends_first(proxy: ProxyServer) -> None:
    names = [row["id"] for row in proxy.get("/v1/models").json["data"]]
    assert names[:3] == ["toy", "org/big", "outthink/auto"]
    assert "outthink/self-consistency" in names
    assert proxy.get("/v1/models/org/big").json["id"] == "org/big"
    assert proxy.get("/v1/models/org%2Fbig").json["id"] == "org/big"
    assert proxy.get("/v1/models/other").error["code"] == "model_not_found"


def test_health_and_readiness(proxy: ProxyServer) -> None:
    assert proxy.get("/healthz").json == {"status": "ok"}
    head = proxy.send("HEAD", "/healthz")  # as some load balancers ask
    assert (head.status, head.content) == (200, b"")
    assert proxy.send("HEAD", "/v1/chat/completions").status == 405
    assert proxy.get("/readyz").status == 200
    proxy.app.stopping = True
    assert proxy.get("/readyz").error["code"] == "not_ready"
    assert proxy.get("/healthz").status == 200


def test_receipts_that_nobody_has(proxy: ProxyServer) -> None:
    for number in ("rcpt-" + "0" * 30, "../../etc/passwd", "%00", "x" * 5000):
        got = proxy.get(f"/v1/receipts/{number}")
        assert got.status in (400, 404)
        assert "message" in got.json["error"]


def test_half_a_stream_ends_in_an_error_event(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = stream(chunk("Hel"), Drop())
    got = proxy.chat("toy", stream=True)
    assert got.events[0]["choices"][0]["delta"] == {"content": "Hel"}
    assert got.events[-1]["error"]["code"] == "backend_error"
    record = proxy.get(f"/v1/receipts/{got.headers['x-outthink-receipt']}").json
    assert record["stopped"] == "error"
    assert record["tokens"] is None


def test_another_backend_answers_for_one_that_is_gone(backend: ChatServer) -> None:
    with ChatServer(whole(ANSWER)) as dying, ProxyServer(dying.url, backend.url) as proxy:
        backend.routes[CHAT] = whole(ANSWER)
        dying.routes[CHAT] = whole({"error": {"message": "no memory"}}, 503, retry_after="1")
        assert [proxy.chat("toy").status for _ in range(4)] == [200] * 4
        assert [proxy.chat("toy", stream=True).status for _ in range(2)] == [200] * 2


def test_no_backend_answers(backend: ChatServer) -> None:
    with ChatServer(chat()) as dying:
        proxy = ProxyServer(dying.url)
        proxy.__enter__()
    try:
        assert proxy.chat("toy").error["code"] == "backend_error"
        assert proxy.chat("outthink/single").status == 502
    finally:
        proxy.__exit__()


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("model", ["toy", "outthink/self-consistency@4", "outthink/single"])
def test_a_client_that_leaves_frees_the_backend(
    backend: ChatServer, proxy: ProxyServer, model: str, streamed: bool
) -> None:
    import http.client

    backend.routes[CHAT] = stream(chunk("a"), Hang(), together=False)
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
    body = {"model": model, "stream": streamed, "messages": [{"role": "user", "content": "Hello"}]}
    connection.request("POST", CHAT, json.dumps(body), {"content-type": "application/json"})
    calls = 4 if "@4" in model else 1
    until(lambda: len(backend.calls) == calls)
    assert connection.sock is not None
    connection.sock.close()
    assert all(seen.gone.wait(PATIENCE) for seen in backend.calls)
    (record,) = until(lambda: proxy.ledger.records).values()  # type: ignore[attr-defined]
    assert (record.stopped, record.status) == ("interrupted", 499)


def test_the_openapi_document_is_served(proxy: ProxyServer) -> None:
    document = proxy.get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    for path, methods in document["paths"].items():
        for method in methods:
            if "{" not in path:
                body = {} if method == "post" else None
                got = proxy.send(method.upper(), path, body)
                assert str(got.status) in methods[method]["responses"], path
    assert proxy.send("DELETE", "/v1/models").headers["allow"] == "GET"
