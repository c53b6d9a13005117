"""Samples that share a call: one request with `n` choices, where `doctor` has seen that all of them are counted."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.engines.openai.body import Facts, file_for, remember
from outthink.serving.pool import BackendSettings
from support.chat_server import (
    DONE,
    ChatServer,
    Drop,
    Hang,
    Reply,
    Seen,
    Step,
    chat,
    event,
    refusal,
    stream,
    token,
    usage,
    whole,
)
from support.proxy_server import ProxyServer, all_brief, left_to_collect
from support.waiting import PATIENCE, until

PROMPT = 5
TEXTS = ("The answer is ", "4", ".")


def piece(at: int, text: str | None = None, finish: str | None = None, *, counted: bool = True) -> bytes:
    """A chunk of one choice."""
    received = {"content": [token(text)]} if text and counted else None
    choice = {"index": at, "delta": {"content": text} if text else {}, "finish_reason": finish, "logprobs": received}
    return event({"id": "c", "object": "chat.completion.chunk", "choices": [choice]})


def choices(count: int, *, total: int | None = None, counted: bool = True, tail: tuple[Step, ...] = ()) -> Reply:
    """Choices that take turns, and one count for all of them; `tail` comes before their ends."""
    steps: list[Step] = [piece(at, text, counted=counted) for text in TEXTS for at in range(count)]
    steps += [*tail, *(piece(at, finish="stop") for at in range(count))]
    return stream(*steps, usage(PROMPT, count * len(TEXTS) if total is None else total), DONE)


def obliging(seen: Seen) -> Reply:
    """As many choices as are asked for."""
    return choices(seen.body.get("n", 1))


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes down what `doctor` finds out about a server that counts every choice."""
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path))

    def write(url: str) -> None:
        facts = Facts()
        facts.learn(n=True, usage_sums=True)
        remember(file_for(tmp_path / "servers", url, "toy"), facts, url, "toy")

    return write


@pytest.fixture
def backend(known: Callable[[str], None]) -> Iterator[ChatServer]:
    with ChatServer(obliging) as server:
        known(server.url)
        yield server


def asked(server: ChatServer) -> list[int]:
    """The choices that each call asked for."""
    return [seen.body.get("n", 1) for seen in server.calls]


def ask(proxy: ProxyServer, n: int = 2, **fields: Any) -> dict[str, Any]:
    """The receipt of a vote that must succeed. Of two samples none is cancelled because the other has decided."""
    got = proxy.chat(f"outthink/self-consistency@{n}", **fields)
    assert got.status == 200, got.content
    receipt: dict[str, Any] = got.json["outthink"]["receipt"]
    assert receipt["answer"] == "4"
    assert got.json["usage"]["total_tokens"] == receipt["tokens"]
    return receipt


def test_one_call_reads_the_prompt_once(backend: ChatServer, proxy: ProxyServer) -> None:
    receipt = ask(proxy)
    assert asked(backend) == [2]
    assert receipt["tokens"] == PROMPT + 2 * len(TEXTS)
    assert sorted(entry["prompt_tokens"] for entry in receipt["entries"]) == [0, PROMPT]
    assert [entry["completion_tokens"] for entry in receipt["entries"]] == [len(TEXTS)] * 2
    assert not any(entry["estimated"] for entry in receipt["entries"])
    assert any("shared a call" in note for note in receipt["notes"])


def test_long_shared_replies_hold_nobody_up(backend: ChatServer) -> None:
    entries = [token("4", -1.0, [-2.0] * 5)] * 5000
    told = [{"index": at, "message": {"content": "4"}, "logprobs": {"content": entries}} for at in range(4)]
    for choice in told:
        choice["finish_reason"] = "stop"
    counts = {"prompt_tokens": PROMPT, "completion_tokens": 20_000, "total_tokens": PROMPT + 20_000}
    with ProxyServer(backend.url, timed=True) as proxy:
        ask(proxy)  # what is imported on first use is now
        backend.routes["/v1/chat/completions"] = whole({"choices": told, "usage": counts})

        def ask_long() -> None:
            assert ask(proxy, 4)["tokens"] == PROMPT + 20_000

        all_brief(proxy, ask_long)
    assert asked(backend)[:2] == [2, 4]


def test_fields_of_the_reply_belong_to_all(backend: ChatServer, proxy: ProxyServer) -> None:
    beside = event({"choices": [], "citations": ["u"]})
    backend.routes["/v1/chat/completions"] = choices(2, tail=(beside,))
    got = proxy.chat("outthink/self-consistency@2").json
    assert (asked(backend), got["citations"]) == ([2], ["u"])


def test_what_only_the_total_counts_is_charged_too(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes["/v1/chat/completions"] = choices(2, total=2 * len(TEXTS) + 2)  # an end-of-text token each
    assert ask(proxy)["tokens"] == PROMPT + 2 * len(TEXTS) + 2
    assert asked(backend) == [2]


def test_a_total_without_entries_is_shared(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes["/v1/chat/completions"] = choices(2, total=7, counted=False)
    receipt = ask(proxy)
    assert receipt["tokens"] == PROMPT + 7
    assert sorted(entry["completion_tokens"] for entry in receipt["entries"]) == [3, 4]


def test_without_proof_every_sample_has_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path))
    with ChatServer(obliging) as backend, ProxyServer(backend.url) as proxy:
        assert ask(proxy)["tokens"] == 2 * (PROMPT + len(TEXTS))
        assert asked(backend) == [1] * 2


def test_every_backend_of_a_model_must_be_known(backend: ChatServer) -> None:
    with ChatServer(obliging) as other, ProxyServer(backend.url, other.url) as proxy:
        ask(proxy)
        assert asked(backend) + asked(other) == [1] * 2


def test_seeds_and_strategies_that_may_stop_need_calls_of_their_own(backend: ChatServer, proxy: ProxyServer) -> None:
    ask(proxy, seed=7)
    assert sorted(seen.body["seed"] for seen in backend.calls) == [7, 8]
    assert proxy.chat("outthink/esc@4:window=2").status == 200
    assert set(asked(backend)) == {1}


def test_a_backend_that_takes_only_so_many_calls_gets_them_one_by_one(backend: ChatServer) -> None:
    with ProxyServer(BackendSettings(url=backend.url, limit=2)) as proxy:
        ask(proxy)
        assert asked(backend) == [1] * 2


@pytest.mark.parametrize(
    ("first", "calls", "tokens"),
    [
        # Fewer choices than were asked for: the others are asked for by themselves, and nothing is lost.
        (choices(1), [2, 1], 2 * (PROMPT + len(TEXTS))),
        # `n` refused: nothing was generated.
        (refusal("n must be 1"), [2, 1, 1], 2 * (PROMPT + len(TEXTS))),
        # A count of one choice for all of them: entries tell.
        (choices(2, total=len(TEXTS)), [2], PROMPT + 2 * len(TEXTS)),
    ],
)
def test_a_backend_that_has_changed_is_believed_once(
    backend: ChatServer, proxy: ProxyServer, first: Reply, calls: list[int], tokens: int
) -> None:
    backend.routes["/v1/chat/completions"] = lambda seen: first if seen.body.get("n", 1) > 1 else choices(1)
    assert ask(proxy)["tokens"] == tokens
    assert asked(backend) == calls
    ask(proxy)
    assert asked(backend)[len(calls) :] == [1] * 2


def test_a_client_whose_request_is_refused_changes_nothing_for_others(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes["/v1/chat/completions"] = refusal("this model's maximum context length is 8 tokens")
    assert proxy.chat("outthink/self-consistency@2").status == 400
    backend.routes["/v1/chat/completions"] = obliging
    ask(proxy)
    assert asked(backend)[-1] == 2


def test_a_reply_without_choices_was_one_sample_and_leaves_the_others_to_themselves(
    backend: ChatServer, proxy: ProxyServer
) -> None:
    empty = stream(usage(PROMPT, 0), DONE)
    backend.routes["/v1/chat/completions"] = lambda seen: empty if seen.body.get("n", 1) > 1 else choices(1)
    ask(proxy)
    assert asked(backend) == [2, 1]


def test_a_call_that_breaks_off_is_charged_and_not_made_again(backend: ChatServer, proxy: ProxyServer) -> None:
    replies = iter([stream(*(piece(at, "The") for at in range(2)), Drop())])
    backend.routes["/v1/chat/completions"] = lambda seen: next(replies, None) or obliging(seen)
    got = proxy.chat("outthink/self-consistency@2")
    assert (got.status, got.error["code"]) == (502, "backend_error")
    receipt = proxy.get("/v1/receipts/" + got.headers["x-outthink-receipt"]).json
    assert receipt["tokens"] is None, "how much of the prompt the broken call had read is not known"
    assert sum(entry["status"] == "failed" for entry in receipt["receipt"]["entries"]) == 2
    assert asked(backend) == [2]


def test_a_decided_vote_closes_the_call_and_does_not_guess_its_prompt(backend: ChatServer, proxy: ProxyServer) -> None:
    said: list[Step] = [piece(3, "The"), *(piece(at, text) for text in TEXTS for at in range(3))]
    backend.routes["/v1/chat/completions"] = stream(*said, *(piece(at, finish="stop") for at in range(3)), Hang())
    receipt = proxy.chat("outthink/self-consistency@4").json["outthink"]["receipt"]
    assert (receipt["answer"], receipt["stopped"]) == ("4", "consensus")
    assert receipt["tokens"] is None
    assert receipt["known"]["tokens"] >= 3 * len(TEXTS) + 1
    assert [entry["estimated"] for entry in receipt["entries"]].count(True) == 1
    assert backend.calls[0].gone.wait(PATIENCE)


def test_a_client_that_leaves_closes_the_call(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes["/v1/chat/completions"] = choices(4, tail=(Hang(),))
    body = json.dumps({"model": "outthink/self-consistency@4", "messages": [{"role": "user", "content": "Hello"}]})
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall((head + body).encode())
        until(lambda: backend.calls)
    (seen,) = backend.calls
    assert seen.gone.wait(PATIENCE)


def test_a_budget_holds(backend: ChatServer, proxy: ProxyServer) -> None:
    receipt = ask(proxy, 8, max_tokens=64, outthink={"budget": "tokens=700"})
    assert receipt["tokens"] <= 700
    assert all(seen.body["max_tokens"] == 64 for seen in backend.calls)


def test_streamed_answers_and_whole_replies(backend: ChatServer, proxy: ProxyServer) -> None:
    got = proxy.chat("outthink/self-consistency@2", stream=True)
    assert got.text == "".join(TEXTS)
    received = {"content": [token(text) for text in TEXTS]}
    rows = [
        {"index": at, "message": {"content": "".join(TEXTS)}, "finish_reason": "stop", "logprobs": received}
        for at in range(2)
    ]
    counts = {"prompt_tokens": PROMPT, "completion_tokens": 2 * len(TEXTS)}
    backend.routes["/v1/chat/completions"] = Reply(
        stream(event({"id": "c", "choices": rows, "usage": counts})[6:]).steps, kind="application/json"
    )
    assert ask(proxy)["tokens"] == PROMPT + 2 * len(TEXTS)
    assert asked(backend) == [2, 2]


def test_answers_that_differ_reach_their_votes(backend: ChatServer, proxy: ProxyServer) -> None:
    def answer(seen: Seen) -> Reply:
        words = ["The answer is 5.", "The answer is 4.", "The answer is 4.", "The answer is 7."]
        steps = [piece(at, word) for at, word in enumerate(words)]
        return stream(*steps, *(piece(at, finish="stop") for at in (2, 0, 3, 1)), usage(PROMPT, 4), DONE)

    backend.routes["/v1/chat/completions"] = answer
    assert proxy.chat("outthink/self-consistency@4").json["outthink"]["receipt"]["answer"] == "4"
    assert asked(backend) == [4]


def test_one_sample_needs_no_n(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes["/v1/chat/completions"] = chat(["The answer is 4."])
    assert proxy.chat("outthink/self-consistency@1").status == 200
    assert asked(backend) == [1]


@pytest.mark.parametrize("status", [400, 422, 429, 503])
def test_a_refusal_inside_a_reply_is_none_that_was_unread(backend: ChatServer, proxy: ProxyServer, status: int) -> None:
    told = event({"error": {"message": "n is not supported: the model is loading", "code": status}})
    backend.routes["/v1/chat/completions"] = lambda seen: stream(told) if seen.body.get("n") else obliging(seen)
    assert proxy.chat("outthink/self-consistency@4").status >= 400
    assert asked(backend) == [4]


@pytest.mark.parametrize("cuts", ["together", "one by one"])
def test_what_came_before_a_failure_is_charged(backend: ChatServer, proxy: ProxyServer, cuts: str) -> None:
    told = event({"error": {"message": "out of memory", "code": 500}})
    for before in ((), (piece(0, "a"),), (piece(1, "a"),), (piece(0, "a"), piece(1, "b"))):
        content = b"".join((*before, told))
        steps = (content,) if cuts == "together" else tuple(content[at : at + 1] for at in range(len(content)))
        backend.routes["/v1/chat/completions"] = stream(*steps, together=False)
        got = proxy.chat("outthink/self-consistency@2")
        assert got.error["code"] == "backend_error"
        record = proxy.ledger.records[got.headers["x-outthink-receipt"]]  # type: ignore[attr-defined]
        assert record.tokens == (None if before else 0)
    assert asked(backend) == [2] * 4


ENDS: dict[str, Reply] = {
    "answered": choices(4),
    "a choice missing": choices(3),
    "n refused": refusal("n must be 1"),
    "broken off": stream(*(piece(at, "The") for at in range(4)), Drop()),
    "an error in it": stream(piece(0, "The"), event({"error": {"message": "out of memory", "code": 500}})),
    "decided": choices(3, tail=(piece(3, "The"),)),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_shared_call_leaves_nothing_to_be_collected(
    backend: ChatServer, known: Callable[[str], None], end: str
) -> None:
    """Samples and their call refer to each other; hundreds of them took a tenth of a second to collect."""
    backend.routes["/v1/chat/completions"] = lambda seen: ENDS[end] if seen.body.get("n", 1) > 1 else choices(1)
    for _ in range(2):  # what is imported and learned on first use is by the second
        known(backend.url)
        with ProxyServer(backend.url) as proxy, left_to_collect(proxy) as left:
            proxy.chat("outthink/self-consistency@4")
            assert asked(backend)[-1 if end in ("answered", "broken off", "an error in it") else 0] == 4
    assert not left
