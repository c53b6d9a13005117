"""What is charged for a reply: its own counts where they cover all that was asked for, else what was reserved."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.core.request import Budget
from outthink.engines.openai.body import Facts, file_for, remember
from outthink.http.server import Address
from outthink.serving.pool import BackendSettings
from outthink.serving.protocols import Key
from support.chat_server import DONE, ChatServer, Drop, Hang, Reply, chunk, event, stream, usage, whole
from support.ledgers import Charging
from support.proxy_server import CHAT, Got, ProxyServer
from support.waiting import until

KEYS = (
    Key("daily", limited=True),
    Key("free"),
    Key("quick", limited=True, budget=Budget(seconds=0.3)),
    Key("hasty", budget=Budget(seconds=0.3)),
)
COMPLETIONS, RESPONSES, EMBEDDINGS = "/v1/completions", "/v1/responses", "/v1/embeddings"


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path))  # nothing is known of a server that had its port before
    with ChatServer() as server:
        yield server


@pytest.fixture
def ledger() -> Charging:
    return Charging(10_000, *KEYS)


@pytest.fixture
def proxy(backend: ChatServer, ledger: Charging) -> Iterator[ProxyServer]:
    with ProxyServer(backend.url, ledger=ledger) as running:
        yield running


def post(proxy: ProxyServer, path: str, body: dict[str, Any], key: str = "daily") -> dict[str, Any]:
    """The record of a request."""
    got = proxy.send("POST", path, {"model": "toy", **body}, Authorization=f"Bearer {key}")
    assert got.status == 200, got.content
    return record(proxy, got)


def record(proxy: ProxyServer, got: Got) -> dict[str, Any]:
    number = got.headers["x-outthink-receipt"]
    return dict(vars_of(proxy.ledger.records[number]))  # type: ignore[attr-defined]


def vars_of(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("tokens", "at_most_tokens", "estimated", "stopped", "error")}


def chat_of(proxy: ProxyServer, key: str = "daily", **fields: Any) -> dict[str, Any]:
    return post(proxy, CHAT, {"messages": [{"role": "user", "content": "Hi"}], **fields}, key)


def choices(count: int, text: str = "a") -> list[dict[str, Any]]:
    message = {"role": "assistant", "content": text}
    return [{"index": at, "message": message, "finish_reason": "stop"} for at in range(count)]


def counts(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


REASONED = {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135}
DETAILS = {"completion_tokens_details": {"reasoning_tokens": 94}}
WHOLE: dict[str, tuple[Any, int | None]] = {
    "plain": ({"choices": choices(1), "usage": counts(5, 2)}, 7),
    "counts first": ({"usage": counts(5, 2), "choices": choices(1)}, 7),
    "an error in the text": ({"choices": choices(1, "error: failed"), "usage": counts(5, 2)}, 7),
    "counts in the text": ({"usage": counts(5, 9), "choices": choices(1, json.dumps({"usage": counts(5, 2)}))}, 14),
    "counts in the text alone": (
        {"choices": choices(1, '"usage": {"prompt_tokens": 5, "completion_tokens": 2}')},
        None,
    ),
    "counts elsewhere": ({"choices": choices(1), "own": {"usage": counts(5, 2)}}, None),
    "counts elsewhere behind": ({"choices": choices(1), "usage": counts(5, 9), "own": {"usage": counts(5, 2)}}, 14),
    "counts in a list behind": ({"choices": choices(1), "usage": counts(5, 9), "own": [{"usage": counts(5, 2)}]}, 14),
    "null behind nothing": ({"choices": choices(1), "usage": None}, None),
    "zero beside text": ({"choices": choices(1), "usage": counts(0, 0)}, None),
    "no completion beside text": ({"choices": choices(1), "usage": counts(5, 0)}, None),
    "no completion and no text": ({"choices": choices(1, ""), "usage": counts(5, 0)}, 5),
    "reasoning beside": ({"choices": choices(1), "usage": {**REASONED, **DETAILS}}, 135),
    "reasoning beside, not in details": ({"choices": choices(1), "usage": counts(5, 2, reasoning_tokens=94)}, 101),
    "sound beside": (
        {"choices": choices(1), "usage": counts(5, 2, prompt_tokens_details={"audio_tokens": 90})},
        97,
    ),
    "a cache beside": (
        {"choices": choices(1), "usage": {"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 4}},
        11,
    ),
    "a cache inside": ({"choices": choices(1), "usage": counts(5, 2, cache_read_input_tokens=4)}, 7),
    "a total above the sum": ({"choices": choices(1), "usage": REASONED}, 135),
    "a total below the sum": ({"choices": choices(1), "usage": {**REASONED, "total_tokens": 3}}, 41),
    "reasoning inside": ({"choices": choices(1), "usage": counts(32, 103, **DETAILS)}, 135),
    "timings": ({"choices": choices(1), "timings": {"predicted_n": 4, "prompt_n": 3, "cache_n": 2}}, 9),
    "timings above the usage": (
        {"choices": choices(1), "usage": counts(5, 2), "timings": {"predicted_n": 9, "prompt_n": 3, "cache_n": 2}},
        14,
    ),
    "timings before the usage": (
        {"timings": {"predicted_n": 9, "prompt_n": 3, "cache_n": 2}, "choices": choices(1), "usage": counts(5, 2)},
        14,
    ),
    "much behind": (
        {"choices": choices(1), "usage": counts(5, 2), "metadata": {f"k{at}": "x" * 500 for at in range(16)}},
        7,
    ),
}


@pytest.mark.parametrize("case", WHOLE)
def test_the_counts_of_a_whole_reply_are_its_own_field(
    backend: ChatServer, proxy: ProxyServer, ledger: Charging, case: str
) -> None:
    reply, tokens = WHOLE[case]
    for mark in (b"", b"\xef\xbb\xbf"):
        left = ledger.left
        backend.routes[CHAT] = whole(mark + json.dumps(reply).encode())
        got = proxy.chat("toy", max_tokens=50, headers={"Authorization": "Bearer daily"})
        assert got.json == reply  # without the mark
        charged = record(proxy, got)
        assert (charged["tokens"], charged["estimated"], charged["stopped"]) == (tokens, tokens is None, "finished")
        assert left - ledger.left == (charged["at_most_tokens"] if tokens is None else tokens) > 0


def test_names_with_escapes_are_the_same_names(backend: ChatServer, proxy: ProxyServer) -> None:
    body = json.dumps({"choices": choices(1), "usage": counts(5, 2)}).replace('"usage"', '"us\\u0061ge"')
    backend.routes[CHAT] = whole(body)
    assert chat_of(proxy)["tokens"] == 7


@pytest.mark.parametrize("streamed", [False, True])
def test_metadata_behind_the_counts_of_responses(backend: ChatServer, proxy: ProxyServer, streamed: bool) -> None:
    used = {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14}
    response = {
        "object": "response",
        "status": "completed",
        "error": None,
        "output": [{"type": "message"}],
        "usage": used,
    }
    response["metadata"] = {f"key{at}": "x" * 500 for at in range(16)}
    delta = event({"type": "response.output_text.delta", "delta": "a"})
    ended = event({"type": "response.completed", "response": response})
    backend.routes[RESPONSES] = stream(delta, ended) if streamed else whole(response)
    charged = post(proxy, RESPONSES, {"input": "Hi", "stream": streamed})
    assert (charged["tokens"], charged["stopped"]) == (14, "finished")


@pytest.mark.parametrize("told", [{"prompt_tokens": 5, "total_tokens": 5}, {"prompt_tokens": 5}, {"total_tokens": 5}])
def test_embeddings_have_no_completion(backend: ChatServer, proxy: ProxyServer, told: dict[str, int]) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [0.5] * 3}]
    backend.routes[EMBEDDINGS] = whole({"object": "list", "data": data, "usage": told})
    charged = post(proxy, EMBEDDINGS, {"input": "hello"})
    assert (charged["tokens"], charged["estimated"]) == (5, False)


def test_many_embeddings_are_read_beside_the_event_loop(backend: ChatServer, proxy: ProxyServer) -> None:
    data = [{"object": "embedding", "index": at, "embedding": [0.123456789] * 500} for at in range(300)]
    backend.routes[EMBEDDINGS] = whole({"object": "list", "data": data, "usage": {"prompt_tokens": 900}})
    assert post(proxy, EMBEDDINGS, {"input": ["hello"] * 300})["tokens"] == 900


SEVERAL: dict[str, tuple[str, dict[str, Any], int]] = {
    "n": (CHAT, {"messages": [{"role": "user", "content": "Hi"}], "n": 3, "max_tokens": 8}, 24),
    "best_of": (COMPLETIONS, {"prompt": "Hi", "best_of": 3, "max_tokens": 8}, 24),
    "prompts": (COMPLETIONS, {"prompt": ["a", "b", "c"], "max_tokens": 8}, 24),
    "prompts of tokens": (COMPLETIONS, {"prompt": [[1], [2], [3]], "max_tokens": 8}, 24),
}


@pytest.mark.parametrize("key", ["daily", "free"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("case", SEVERAL)
def test_choices_that_a_server_may_not_have_counted_are_charged_at_the_bound(
    backend: ChatServer, proxy: ProxyServer, ledger: Charging, case: str, streamed: bool, key: str
) -> None:
    path, body, bound = SEVERAL[case]
    # As of one choice, as no single one can have, and as nobody has who heeds the length.
    for told, known in ((8, False), (9, True), (24, True), (25, False)):
        deltas = [event({"choices": [{"index": at, "text": "a", "delta": {"content": "a"}}]}) for at in range(3)]
        replies: dict[bool, Reply] = {
            False: whole({"choices": choices(3), "usage": counts(5, told)}),
            True: stream(*deltas, usage(5, told), DONE),
        }
        backend.routes[path] = replies[streamed]
        left = ledger.left
        charged = post(proxy, path, {**body, "stream": streamed}, key)
        if known:
            assert (charged["tokens"], charged["estimated"]) == (5 + told, False)
        else:
            assert (charged["tokens"], charged["estimated"]) == (None, True)
            if key == "daily":
                assert left - ledger.left >= bound


def test_a_server_that_is_known_to_count_all_choices_is_believed(backend: ChatServer, ledger: Charging) -> None:
    from outthink.core.paths import cache_dir

    facts = Facts()
    facts.learn(n=True, usage_sums=True)
    base = Address.parse(backend.url).base
    remember(file_for(cache_dir() / "servers", base, "toy"), facts, base, "toy")
    backend.routes[CHAT] = whole({"choices": choices(3), "usage": counts(5, 6)})
    with ProxyServer(backend.url, ledger=ledger) as proxy:
        assert chat_of(proxy, n=3, max_tokens=8)["tokens"] == 11


def test_events_that_nobody_asked_for_are_counted(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = stream(chunk("a"), chunk(finish="stop"), usage(5, 2), DONE)
    assert chat_of(proxy)["tokens"] == 7


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain"])
def test_an_object_instead_of_a_stream_is_counted(backend: ChatServer, proxy: ProxyServer, kind: str) -> None:
    reply = {"choices": choices(1), "usage": counts(5, 2)}
    backend.routes[CHAT] = whole(reply, kind=kind)
    got = proxy.chat("toy", stream=True, headers={"Authorization": "Bearer daily"})
    assert got.json == reply
    assert record(proxy, got)["tokens"] == 7


def ask_and_leave(proxy: ProxyServer, key: str, read: int) -> None:
    body = {"model": "toy", "stream": True, "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
    asked = json.dumps({**body, "stream_options": {"include_usage": True}})
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    connection.request("POST", CHAT, asked, {"Authorization": f"Bearer {key}"})
    reply = connection.getresponse()
    reply.read(read)
    connection.close()


def used(tokens: int) -> dict[str, Any]:
    return {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}


CONTINUOUS = [chunk("a", usage=used(at)) for at in range(1, 20)]


def test_usage_of_each_piece_is_no_total(backend: ChatServer, proxy: ProxyServer) -> None:
    for tokens, end in ((None, []), (None, [usage(5, 2)]), (20, [usage(5, 15)])):
        pieces = [chunk("a", usage=used(count)) for count in (5, 3, 5, 2)]
        backend.routes[CHAT] = stream(*pieces, chunk(finish="stop"), *end, DONE)
        for model in ("toy", "outthink/single"):
            charged = chat_of(proxy, model=model, stream=True)
            assert (charged["tokens"], charged["estimated"]) == (tokens, tokens is None)


CUT: dict[str, tuple[list[Any], int | None]] = {
    "no counts": ([chunk("a")] * 19, None),
    "continuous counts": (CONTINUOUS, None),  # more may have been on its way
    "all choices ended": ([*CONTINUOUS, chunk(finish="stop", usage=used(19))], 24),
    "counts at the end": ([*CONTINUOUS[:3], usage(5, 19)], 24),
    "text behind the counts": ([usage(5, 1), chunk("a")], None),
}


@pytest.mark.parametrize("case", CUT)
@pytest.mark.parametrize("cut", ["seconds", "client", "backend"])
def test_a_stream_that_is_cut_is_charged_for_all_that_it_can_have_cost(
    backend: ChatServer, proxy: ProxyServer, ledger: Charging, case: str, cut: str
) -> None:
    steps, tokens = CUT[case]
    backend.routes[CHAT] = stream(*steps, Drop() if cut == "backend" else Hang(), together=False)
    left = ledger.left
    if cut == "client":
        ask_and_leave(proxy, "daily", len(b"".join(steps)))
    elif cut == "seconds":
        got = proxy.chat("toy", stream=True, max_tokens=100, headers={"Authorization": "Bearer quick"})
        assert (got.status, got.events[-1]["error"]["code"]) == (200, "budget:seconds")
    else:
        got = proxy.chat("toy", stream=True, max_tokens=100, headers={"Authorization": "Bearer daily"})
        assert got.events[-1]["error"]["code"] == "backend_error"
    until(lambda: len(proxy.ledger.records) == 1, "the record")  # type: ignore[attr-defined]
    (made,) = proxy.ledger.records.values()  # type: ignore[attr-defined]
    assert (made.tokens, made.estimated) == (tokens, tokens is None)
    assert left - ledger.left == (made.at_most_tokens if tokens is None else tokens)
    assert left - ledger.left >= (100 if tokens is None else 24)
    assert made.stopped in ("error", "interrupted")


def test_a_whole_reply_that_takes_too_long_is_charged_as_reserved(
    backend: ChatServer, proxy: ProxyServer, ledger: Charging
) -> None:
    backend.routes[CHAT] = stream(before=(Hang(),))
    for key in ("quick", "hasty"):
        left = ledger.left
        got = proxy.chat("toy", max_tokens=100, headers={"Authorization": f"Bearer {key}"})
        assert (got.status, got.error["code"]) == (504, "budget:seconds")
        until(lambda left=left: ledger.left < left, "the charge")  # type: ignore[misc]
        assert left - ledger.left >= 100


@pytest.mark.parametrize("model", ["toy", "outthink/single"])
@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_gateway_has_not_waited_for_is_charged_as_reserved(
    backend: ChatServer, proxy: ProxyServer, ledger: Charging, model: str, streamed: bool
) -> None:
    by = {"Authorization": "Bearer daily"}
    for status, body in ((504, b"<html>504</html>"), (524, {"error": {"message": "late"}}), (500, {"error": "no"})):
        backend.routes[CHAT], left = whole(body, status), ledger.left
        assert proxy.chat(model, max_tokens=100, stream=streamed, headers=by).status >= 500
        spent = left - ledger.left
        assert spent == 0 if status == 500 else spent >= 100


def test_a_refusal_that_counts_is_charged(backend: ChatServer, proxy: ProxyServer, ledger: Charging) -> None:
    backend.routes[CHAT] = whole({"error": {"message": "ran out of memory"}, "usage": counts(5, 40)}, 500)
    left = ledger.left
    assert proxy.chat("toy", headers={"Authorization": "Bearer daily"}).status == 500
    assert left - ledger.left == 45


def test_a_request_that_was_never_sent_costs_nothing(backend: ChatServer, ledger: Charging) -> None:
    backend.routes[CHAT] = stream(before=(Hang(),))
    left, headers = ledger.left, {"Authorization": "Bearer quick"}
    backends = BackendSettings(url=backend.url, limit=1)
    with ProxyServer(backends, ledger=ledger) as proxy, ThreadPoolExecutor(1) as pool:
        first = pool.submit(proxy.chat, "toy", max_tokens=100, headers={"Authorization": "Bearer free"})
        until(lambda: len(backend.calls) == 1, "the place is taken")
        got = proxy.chat("toy", max_tokens=100, headers=headers)
        assert (got.status, got.error["code"]) == (504, "budget:seconds")
        assert len(backend.calls) == 1
        until(lambda: len(ledger.records) == 1, "the record")
        assert ledger.left == left
        backend.hang_up()
        assert first.result().status == 502
