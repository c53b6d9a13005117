"""Keys with ceilings and budgets, receipts of others, idempotency, and `outthink/auto` under a policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from outthink.core.request import Budget
from outthink.serving.chat.backends import Policies
from outthink.serving.forward.stream import EventReader
from outthink.serving.ledger.memory import MemoryLedger
from outthink.serving.protocols import Key, OverBudget, RequestRecord, Reservation
from support.chat_server import ChatServer, Drop, chat, stream, whole
from support.policies import policy
from support.proxy_server import CHAT, ProxyServer
from support.samples import question

KEYS = {
    "plain": Key("k1"),
    "other": Key("k2"),
    "admin": Key("k0", admin=True),
    "daily": Key("k3", limited=True),
    "small": Key("k4", budget=Budget(tokens=300)),
    "narrow": Key("k5", models=("outthink/single",)),
    "voter": Key("k6", strategy="self-consistency@3"),
    "quick": Key("k7", budget=Budget(seconds=0.2)),
}


class Keyed(MemoryLedger):
    """Knows the keys above; remembers reservations; replays bodies; `left` tokens for limited keys."""

    guarded = True

    def __init__(self) -> None:
        super().__init__()
        self.left = 10_000
        self.reserved: list[int | None] = []

    async def authorise(self, bearer: str | None) -> Key | None:
        return KEYS.get(bearer or "")

    async def reserve(
        self, key: Key, tokens: int | None, usd: float | None, request_id: str, idempotency_key: str | None = None
    ) -> Reservation:
        self.reserved.append(tokens)
        if key.limited and (tokens or 0) > self.left:
            raise OverBudget("this key's tokens of the day are used up", currency="tokens", period="day", retry_after=9)
        before = next((record for record in self.records.values() if idempotency_key and record.body is not None), None)
        if before is not None:
            return Reservation(before.id, key.id, replay=before.body, status=before.status)
        return Reservation(request_id, key.id, tokens, usd)

    async def settle(self, reservation: Reservation, record: RequestRecord) -> None:
        await super().settle(reservation, record)
        self.left -= record.tokens if record.tokens is not None else record.at_most_tokens or 0


@pytest.fixture
def ledger() -> Keyed:
    return Keyed()


@pytest.fixture
def proxy(backend: ChatServer, ledger: Keyed) -> Iterator[ProxyServer]:
    with ProxyServer(backend.url, ledger=ledger) as running:
        yield running


def by(name: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}", **more}


def test_a_key_is_needed(proxy: ProxyServer) -> None:
    for headers in ({}, by("nobody"), {"authorization": "Basic plain"}):
        got = proxy.chat("tiny", headers=headers)
        assert (got.status, got.error["code"]) == (401, "invalid_api_key")
    assert proxy.get("/healthz").status == 200
    assert proxy.chat("tiny", headers=by("plain")).status == 200


def test_the_clients_key_stays_here(backend: ChatServer, proxy: ProxyServer) -> None:
    for model in ("tiny", "outthink/single"):
        proxy.chat(model, headers=by("plain"))
    assert all("plain" not in str(seen.headers) for seen in backend.seen)


def test_receipts_are_for_their_key_and_for_admins(proxy: ProxyServer) -> None:
    number = proxy.chat("outthink/single", headers=by("plain")).headers["x-outthink-receipt"]
    path = f"/v1/receipts/{number}"
    assert [proxy.get(path, **by(name)).status for name in ("plain", "admin", "other")] == [200, 200, 404]
    assert proxy.get(path).status == 401


def test_models_that_a_key_may_use(proxy: ProxyServer) -> None:
    assert proxy.chat("outthink/single", headers=by("narrow")).status == 200
    got = proxy.chat("tiny", headers=by("narrow"))
    assert (got.status, got.error["param"]) == (403, "model")
    own = {"outthink": {"strategy": "esc@64"}}
    assert proxy.chat("outthink/single", headers=by("narrow"), **own).status == 403
    assert proxy.chat("outthink/single", headers=by("narrow"), outthink={"model": "tiny"}).status == 403


def test_a_keys_default_strategy(proxy: ProxyServer) -> None:
    got = proxy.chat("outthink/auto", headers=by("voter"))
    assert got.json["outthink"]["receipt"]["strategy"] == "self-consistency:n=3"


def test_ceilings_win_over_what_is_asked(backend: ChatServer, proxy: ProxyServer) -> None:
    got = proxy.chat("outthink/self-consistency@64", headers=by("small"), outthink={"budget": "tokens=90000"})
    # What a cancelled sample has cost may be unknown: its bound counts.
    assert got.json["outthink"]["receipt"]["at_most"]["tokens"] <= 300
    assert proxy.chat("tiny", "by itself", headers=by("small"), max_tokens=5000).status == 200
    (seen,) = [seen for seen in backend.calls if seen.body["messages"][-1]["content"] == "by itself"]
    assert seen.body["max_tokens"] + len(seen.content) <= 320
    got = proxy.chat("tiny", "x" * 400, headers=by("small"))
    assert (got.status, got.error["param"]) == (400, "max_tokens")


def test_a_ceiling_of_seconds_ends_pass_through(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = chat(["late"], delay=3.0)
    assert proxy.chat("tiny", headers=by("quick")).status == 504


def test_a_budget_by_day_is_reserved_settled_and_ends(ledger: Keyed, proxy: ProxyServer) -> None:
    assert proxy.chat("outthink/self-consistency@2", headers=by("daily"), max_tokens=64).status == 200
    assert ledger.left == 10_000 - 14
    assert ledger.reserved[0] is not None
    got = proxy.chat("tiny", headers=by("daily"), max_tokens=50_000)
    assert (got.status, got.error["code"], got.headers["retry-after"]) == (429, "insufficient_quota", "9")


def test_streams_of_limited_keys_are_counted_and_look_the_same(
    backend: ChatServer, ledger: Keyed, proxy: ProxyServer
) -> None:
    backend.routes[CHAT] = chat(["a", "b"], counts=(5, 2), together=False)
    asked = proxy.chat("tiny", headers=by("daily"), stream=True, stream_options={"include_usage": True})
    hidden = proxy.chat("tiny", headers=by("daily"), stream=True)
    assert [event for event in asked.events if event == "[DONE]" or event["choices"]] == hidden.events
    assert len(hidden.events) == len(asked.events) - 1
    assert ledger.left == 10_000 - 14
    assert backend.calls[1].body["stream_options"] == {"include_usage": True}


def test_a_broken_stream_of_a_limited_key_is_charged_as_reserved(
    backend: ChatServer, ledger: Keyed, proxy: ProxyServer
) -> None:
    backend.routes[CHAT] = stream(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n', Drop())
    proxy.chat("tiny", headers=by("daily"), stream=True, max_tokens=100)
    assert ledger.left < 10_000 - 100


def test_an_idempotency_key_answers_twice_and_spends_once(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = whole({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    first, second = (proxy.chat("tiny", headers=by("plain", Idempotency_Key="i-1")) for _ in range(2))
    assert first.content == second.content
    assert first.headers["x-outthink-receipt"] == second.headers["x-outthink-receipt"]
    assert len(backend.calls) == 1


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_hiding_takes_out_one_chunk_in_any_cuts(size: int) -> None:
    shown = b'data: {"choices": [{"delta": {"content": "a \\"usage\\""}}], "usage": null}\n\n'
    text = shown + b'data: {"choices": [], "usage": {"prompt_tokens": 1}}\n\n' + b"data: [DONE]\n\n"
    hiding = EventReader(hide_usage=True)
    got = b"".join(hiding.feed(text[at : at + size]) for at in range(0, len(text), size)) + hiding.close()
    assert got == shown + b"data: [DONE]\n\n"


def test_auto_follows_the_policy(backend: ChatServer, tmp_path: Path) -> None:
    made = policy()
    made.save(tmp_path / "policy.json")
    with ProxyServer(backend.url, policies=Policies(tmp_path / "policy.json")) as proxy:
        got = proxy.chat("outthink/auto", question(3), outthink={"answer": "number"}, seed=0)
        receipt = got.json["outthink"]["receipt"]
        assert made.id in " ".join(receipt["notes"])
        assert receipt["strategy"].startswith("auto (")
        assert receipt["answer"] == "4"
        assert len(receipt["entries"]) == 4
        for effort, n in (("minimal", 1), ("low", 1), ("medium", 4), ("high", 8)):
            got = proxy.chat("outthink/auto", question(3), outthink={"answer": "number"}, reasoning_effort=effort)
            assert got.json["outthink"]["receipt"]["strategy"] == f"auto (fixed@{n})"
        assert "reasoning_effort" not in backend.calls[-1].body
        odd = proxy.chat("outthink/auto", question(3), outthink={"answer": "number"}, reasoning_effort="hihg")
        assert (odd.status, odd.error["param"]) == (400, "reasoning_effort")
        outside = proxy.chat("outthink/auto", "?" * 3000, outthink={"answer": "number"})
        assert any("outside" in note for note in outside.json["outthink"]["receipt"]["notes"])
