"""Streams on their way through: marks are events, ends are ends, and only the counts that we asked for are hidden."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outthink.serving.forward.stream import EventReader
from outthink.serving.protocols import Key
from support.chat_server import DONE, ChatServer, Gate, Hang, chunk, event, stream, usage
from support.ledgers import Charging
from support.proxy_server import CHAT, Got, ProxyServer
from support.waiting import PATIENCE, until

CRLF = b"\r\n"
WORDS = [
    "a",
    "usage",
    '"usage": {"completion_tokens": 1}',
    "[DONE]",
    "error",
    "\u00e9",
    'data: {"error"',
    "timings",
    "\\",
]
COUNTED = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture
def ledger() -> Charging:
    return Charging(10_000, Key("daily", limited=True))


@pytest.fixture
def proxy(backend: ChatServer, ledger: Charging) -> Iterator[ProxyServer]:
    with ProxyServer(backend.url, ledger=ledger) as running:
        yield running


def ask(proxy: ProxyServer, **fields: Any) -> Got:
    """A stream of a key with a budget by day."""
    return proxy.chat("toy", headers={"Authorization": "Bearer daily"}, stream=True, max_tokens=50, **fields)


def receipt(proxy: ProxyServer, got: Got) -> dict[str, Any]:
    number = got.headers["x-outthink-receipt"]
    return dict(proxy.get(f"/v1/receipts/{number}", Authorization="Bearer daily").json)


@pytest.mark.parametrize("end", [b"\n", CRLF, b"\r"])
def test_each_event_goes_on_when_it_is_whole_and_our_counts_are_hidden(
    backend: ChatServer, proxy: ProxyServer, end: bytes
) -> None:
    gates = [Gate() for _ in range(3)]
    texts = [chunk(text).replace(b"\n", end) for text in ("a", "b", "c")]
    steps = [step for gate, text in zip(gates, texts, strict=True) for step in (text, gate)]
    last = [chunk(finish="stop"), usage(5, 3), DONE]
    backend.routes[CHAT] = stream(*steps, *(piece.replace(b"\n", end) for piece in last), together=False)
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)
    body = json.dumps({"model": "toy", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
    connection.request("POST", CHAT, body, {"Authorization": "Bearer daily"})
    reply = connection.getresponse()
    seen = b""
    for gate, text in zip(gates, texts, strict=True):
        # The line feed of a pair may follow with the next event.
        while not seen.endswith(text.removesuffix(b"\n")) and not seen.endswith(text):
            seen += reply.read1(1000)
        gate.open()
    seen += reply.read()
    connection.close()
    assert seen == b"".join(texts) + (last[0] + DONE).replace(b"\n", end)
    assert proxy.ledger.records[reply.headers["x-outthink-receipt"]].tokens == 8  # type: ignore[attr-defined]


def test_a_byte_order_mark_is_no_part_of_the_stream(backend: ChatServer, proxy: ProxyServer) -> None:
    for cut in (1, 2, 3, 9):
        body = b"\xef\xbb\xbf" + chunk("Hello") + chunk(finish="stop") + usage(5, 2) + DONE
        backend.routes[CHAT] = stream(body[:cut], 0.01, body[cut:])
        got = ask(proxy)
        assert got.content == chunk("Hello") + chunk(finish="stop") + DONE
        assert receipt(proxy, got)["tokens"] == 7
        assert proxy.chat("outthink/single", headers={"Authorization": "Bearer daily"}, stream=True).text == "Hello"


def test_counts_over_several_data_lines(backend: ChatServer, proxy: ProxyServer) -> None:
    counts = json.dumps({"id": "c", "choices": [], "usage": COUNTED}, indent=1).encode().split(b"\n")
    counted = b": counts\n" + b"".join(b"data:" + line + b"\n" for line in counts) + b"\n"
    backend.routes[CHAT] = stream(chunk("Hello"), chunk(finish="stop"), counted, DONE)
    got = ask(proxy)
    assert got.content == chunk("Hello") + chunk(finish="stop") + DONE
    assert receipt(proxy, got)["tokens"] == 14


@pytest.mark.parametrize(
    "passes",
    [
        {"choices": [], "usage": None, "prompt_filter_results": [{"prompt_index": 0}]},
        {"choices": [], "usage": COUNTED, "prompt_filter_results": [{"prompt_index": 0}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": COUNTED},
        {"choices": [], "citations": ["https://example.com"]},
        {"usage": COUNTED},
        {"choices": None, "usage": COUNTED},
    ],
)
def test_what_holds_more_than_our_counts_goes_on(backend: ChatServer, proxy: ProxyServer, passes: Any) -> None:
    shown = (event(passes), chunk("Hello"), chunk(finish="stop"))
    backend.routes[CHAT] = stream(*shown, event({"id": "c", "choices": [], "usage": COUNTED}), DONE)
    got = ask(proxy)
    assert got.content == b"".join(shown) + DONE
    assert receipt(proxy, got)["tokens"] == 14


@pytest.mark.parametrize(
    "beside", [{"timings": {"predicted_n": 3}}, {"provider": "X"}, {"x_nothing": None}, {"own": 7}]
)
def test_what_says_nothing_new_beside_our_counts_is_hidden(
    backend: ChatServer, proxy: ProxyServer, beside: Any
) -> None:
    first = event({"choices": [{"index": 0, "delta": {"content": "a"}}], "own": 7})
    backend.routes[CHAT] = stream(first, event({"id": "c", "choices": [], "usage": COUNTED, **beside}), DONE)
    assert ask(proxy).content == first + DONE


def test_the_counts_that_the_client_asks_for_are_shown(backend: ChatServer, proxy: ProxyServer) -> None:
    sent = (chunk("Hello"), chunk(finish="stop"), usage(5, 2), DONE)
    backend.routes[CHAT] = stream(*sent)
    assert ask(proxy, stream_options={"include_usage": True}).content == b"".join(sent)


@pytest.mark.parametrize("text", WORDS)
def test_what_a_model_writes_is_no_mark(backend: ChatServer, proxy: ProxyServer, text: str) -> None:
    def used(tokens: int) -> dict[str, int]:
        return {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}

    deltas = [chunk("x", usage=used(1)), chunk(text, usage=used(8)), *(chunk("y", usage=used(at)) for at in (9, 40))]
    backend.routes[CHAT] = stream(*deltas, chunk(finish="length", usage=used(40)), usage(5, 40), DONE)
    got = ask(proxy)
    assert got.content.startswith(b"".join(deltas))
    assert receipt(proxy, got)["tokens"] == 45


def test_after_the_end_the_client_is_done_and_its_place_is_free(backend: ChatServer) -> None:
    backend.routes[CHAT] = stream(chunk("Hello"), chunk(finish="stop"), usage(5, 2), DONE, Hang(), together=False)
    with ProxyServer(backend.url, limits={"backend_seconds": PATIENCE}, admission={"concurrency": 1}) as proxy:
        for model in ("toy", "toy", "outthink/single"):
            got = proxy.chat(model, stream=True)  # `Hang` would outlast the client's patience
            assert got.events[-1] == "[DONE]"
        until(lambda: proxy.app.admission.active == 0 and all(backend.active == 0 for backend in proxy.pool.backends))
        until(lambda: all(seen.gone.is_set() for seen in backend.calls), "the connections are closed")


def test_nothing_behind_the_end_is_shown(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = stream(chunk("a"), usage(5, 2), DONE + chunk("b") + usage(5, 1), chunk("c"))
    got = ask(proxy)
    assert got.content == chunk("a") + DONE
    assert receipt(proxy, got)["tokens"] == 7


@pytest.mark.parametrize(
    ("steps", "tokens"),
    [
        ([chunk("a", usage=COUNTED), chunk("b"), chunk(finish="stop"), DONE], None),
        ([chunk("a"), usage(5, 0), DONE], None),
        ([chunk("a"), usage(0, 0), DONE], None),
        ([chunk("a"), usage(32, 9, total_tokens=135), DONE], 135),
        ([chunk("a"), usage(32, 9, total_tokens=12), DONE], 41),
        ([chunk("a"), chunk(finish="stop", timings={"predicted_n": 4, "prompt_n": 3, "cache_n": 2}), DONE], 9),
        ([chunk("a"), usage(5, 2), chunk(finish="stop"), DONE], 7),
        ([chunk("a"), usage(5, 2)], 7),
        ([chunk("a"), b'data: {"choices": [], "us\\u0061ge": ' + json.dumps(COUNTED).encode() + b"}\n\n", DONE], 14),
    ],
)
def test_counts_that_cover_what_came_are_charged_others_as_reserved(
    backend: ChatServer, proxy: ProxyServer, ledger: Charging, steps: list[bytes], tokens: int | None
) -> None:
    backend.routes[CHAT] = stream(*steps)
    record = receipt(proxy, ask(proxy))
    assert (record["tokens"], record["estimated"]) == (tokens, tokens is None)
    assert 10_000 - ledger.left == (record["at_most_tokens"] if tokens is None else tokens)
    assert record["at_most_tokens"] >= 50 or tokens is not None


BROKEN_OFF = {
    "between two events": (chunk("a"), chunk("b")),
    "within an event": (chunk("a"), chunk("b")[:-20]),
    "within a name": (chunk("a"), b"dat"),
    "by a page": (chunk("a"), b"<html>502 Bad Gateway</html>"),
    "before its text": (b": ping\n\n", b"retry: 3000\n\n"),
}


@pytest.mark.parametrize("case", BROKEN_OFF)
@pytest.mark.parametrize("model", ["toy", "outthink/single"])
def test_a_stream_that_stops_without_an_end_was_broken_off(
    backend: ChatServer, proxy: ProxyServer, case: str, model: str
) -> None:
    backend.routes[CHAT] = stream(*BROKEN_OFF[case])
    got = proxy.chat(model, headers={"Authorization": "Bearer daily"}, stream=True)
    events = [event for event in got.events if event != "[DONE]"] if got.status == 200 else [got.json]
    assert events[-1]["error"]["code"] == "backend_error"
    assert receipt(proxy, got)["stopped"] == "error"


@pytest.mark.parametrize("end", [chunk(finish="stop"), chunk("b", finish="length")[:-2], usage(5, 2)])
def test_a_stream_that_has_told_its_end_needs_no_mark_behind_it(
    backend: ChatServer, proxy: ProxyServer, end: bytes
) -> None:
    texts = [chunk("a"), chunk("b"), chunk("c")]
    backend.routes[CHAT] = stream(*texts, end)
    got = proxy.chat("toy", headers={"Authorization": "Bearer daily"}, stream=True)
    assert b"error" not in got.content
    assert receipt(proxy, got)["stopped"] == "finished"


@pytest.mark.parametrize("body", [b"", b"\0\xff", b"<html>no</html>", b"\x1f\x8b packed"])
def test_a_stream_of_which_nothing_could_be_shown_has_a_status(
    backend: ChatServer, proxy: ProxyServer, body: bytes
) -> None:
    backend.routes[CHAT] = stream(body)
    got = ask(proxy)
    assert (got.status, got.error["code"]) == (502, "backend_error")
    assert receipt(proxy, got)["stopped"] == "error"


def test_one_long_event_takes_no_longer_than_its_text() -> None:
    long = chunk("x" * (16 << 20))
    reader, began = EventReader(), time.thread_time()
    assert reader.feed(long) == long
    assert time.thread_time() - began < 1.0  # it was 4 s


CHUNKS = st.lists(
    st.fixed_dictionaries(
        {"text": st.sampled_from(WORDS) | st.text(max_size=5)},
        optional={"more": st.integers(1, 30), "noise": st.sampled_from([b": ping", b"id: 7", b"event: chunk"])},
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    given_chunks=CHUNKS,
    cuts=st.lists(st.floats(0, 1), max_size=14),
    end=st.sampled_from([b"\n", CRLF, b"\r"]),
    ascii=st.booleans(),
    last=st.none() | st.integers(1, 30),
    mark=st.booleans(),
)
def test_cuts_and_line_ends_change_neither_text_nor_counts_nor_what_is_hidden(
    given_chunks: list[dict[str, Any]], cuts: list[float], end: bytes, ascii: bool, last: int | None, mark: bool
) -> None:
    shown, covered, told = [], None, 0
    for given_chunk in given_chunks:
        value: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": given_chunk["text"]}}]}
        told += given_chunk.get("more", 0)
        if "more" in given_chunk:
            value["usage"] = {"prompt_tokens": 3, "completion_tokens": told}
            covered = told
        elif given_chunk["text"]:
            covered = None
        lines = [b"data: " + json.dumps(value, ensure_ascii=ascii).encode("utf-8", "surrogatepass")]
        shown.append(b"".join(line + end for line in [*filter(None, [given_chunk.get("noise")]), *lines]) + end)
    total = {"prompt_tokens": 3, "completion_tokens": told + (last or 0)}
    counts = b"data: " + json.dumps({"choices": [], "usage": total}).encode()
    hidden = counts + end + end if last is not None else b""
    body = b"\xef\xbb\xbf" * mark + b"".join(shown) + hidden + b"data: [DONE]" + end + end
    places = [0, *sorted(int(cut * len(body)) for cut in cuts), len(body)]
    reader = EventReader(hide_usage=True)
    got = b"".join(reader.feed(body[start:stop]) for start, stop in pairwise(places)) + reader.close()
    assert got.replace(CRLF, b"\n") == (b"".join(shown) + b"data: [DONE]" + end + end).replace(CRLF, b"\n")
    assert reader.done
    assert reader.usage.total().completion == (covered if last is None else told + last)


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/octet-stream"])
def test_events_are_known_by_their_bytes_and_come_one_by_one(
    backend: ChatServer, proxy: ProxyServer, kind: str
) -> None:
    gate = Gate()
    backend.routes[CHAT] = stream(chunk("a"), gate, chunk("b"), usage(5, 2), DONE, kind=kind, together=False)
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)
    body = json.dumps({"model": "toy", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
    connection.request("POST", CHAT, body, {"Authorization": "Bearer daily"})
    reply = connection.getresponse()
    seen = b""
    while seen != chunk("a"):
        seen += reply.read1(1000)
    gate.open()
    assert seen + reply.read() == chunk("a") + chunk("b") + DONE
    connection.close()
    backend.routes[CHAT] = stream(chunk("a"), usage(5, 2), DONE, kind=kind)
    got = proxy.chat("toy", headers={"Authorization": "Bearer daily"})  # no stream was asked for
    assert (got.status, receipt(proxy, got)["tokens"]) == (200, 7)


@pytest.mark.parametrize("last", ["completed", "incomplete", "failed"])
def test_after_the_last_event_of_a_response_nobody_waits_for_the_connection(
    backend: ChatServer, proxy: ProxyServer, last: str
) -> None:
    response = {"status": last, "usage": {"input_tokens": 5, "output_tokens": 2}}
    sent = [event({"type": "response.output_text.delta", "delta": "a"})]
    sent.append(f"event: response.{last}\n".encode() + event({"type": f"response.{last}", "response": response}))
    for more in (b"", DONE):
        backend.routes["/v1/responses"] = stream(sent[0], sent[1] + more, Hang(), together=False)
        body = {"model": "toy", "input": "Hi", "stream": True}
        got = proxy.send("POST", "/v1/responses", body, Authorization="Bearer daily")
        assert got.content == b"".join(sent) + more
        made = receipt(proxy, got)
        assert (made["tokens"], made["stopped"]) == (7, "error" if last == "failed" else "finished")
