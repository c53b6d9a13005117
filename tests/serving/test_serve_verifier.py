"""A proxy that serves a verifier: who is judged by it, what that costs, and what happens while it is away."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from outthink.economics.price import Price
from outthink.serving.chat.backends import Policies
from outthink.serving.ledger.memory import MemoryLedger
from outthink.serving.observe import metrics
from outthink.serving.pool import BackendSettings
from outthink.serving.protocols import Key
from outthink.serving.verifier import ServedVerifier
from outthink.verifiers.process import ProcessVerifier
from support.chat_server import ChatServer, chat, models
from support.proxy_server import Got, ProxyServer
from support.scripted_verifiers import TOO_LONG, judged, make_gate, plugged, waiting_at
from support.tiny_models import tiny_model, tiny_tokenizer
from support.waiting import until

VOTE, QUESTION = "outthink/weighted-vote@4", "What is the number?"
ANSWERS = ["It is 2.\n2", "It is 2.\n2", "It is 9.\n9", "It is 2.\n2"]
"""The verifier likes the one that the majority is against: 9 outweighs three times 2."""
READ = 4 * (4 + 4)
"""Words of the question and of a sample, four times."""


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    numbers = itertools.count()
    in_turn = lambda seen: chat([ANSWERS[next(numbers) % 4]])  # noqa: E731
    with ChatServer(in_turn, routes={"/v1/models": models("tiny")}) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a scripted verifier, which the proxy's child process finds."""
    return plugged(tmp_path, monkeypatch)


@contextmanager
def proxied(
    backend: ChatServer | BackendSettings, folder: Path, *, pause: float = 0.0, **more: object
) -> Iterator[ProxyServer]:
    """A proxy with the verifier, and metrics."""
    policies = Policies()
    served = ServedVerifier(f"scripted:{folder}", policies.check_verifier, pause=pause)
    where = backend if isinstance(backend, BackendSettings) else backend.url
    with ProxyServer(where, policies=policies, verifier=served, **more) as proxy:
        metrics.attach(proxy.app, policies, served)
        proxy.do(served.start())
        try:
            yield proxy
        finally:
            proxy.do(served.stop())


@pytest.fixture
def proxy(backend: ChatServer, folder: Path) -> Iterator[ProxyServer]:
    with proxied(backend, folder) as running:
        yield running


def ask(proxy: ProxyServer, model: str = VOTE, **more: object) -> Got:
    own = {"answer": "number", **more.pop("outthink", {})}  # type: ignore[dict-item]
    return proxy.chat(model, QUESTION, outthink=own, **more)  # type: ignore[arg-type]


def receipt(got: Got) -> dict[str, object]:
    assert got.status == 200, got.content
    return dict(got.json["outthink"]["receipt"])


def entries(got: Got, role: str = "verifier") -> list[dict[str, object]]:
    return [entry for entry in receipt(got)["entries"] if entry["role"] == role]  # type: ignore[union-attr,attr-defined]


def gauges(proxy: ProxyServer) -> tuple[float, float]:
    """Whether it is up, and how many requests went without."""
    lines = dict(line.rsplit(" ", 1) for line in proxy.get("/metrics").content.decode().splitlines())
    return float(lines["outthink_verifier_up"]), float(lines["outthink_without_verifier_total"])


def child_of(proxy: ProxyServer) -> ProcessVerifier:
    verifier = proxy.endpoints.backends.verifier
    assert verifier is not None
    assert isinstance(verifier.verifier, ProcessVerifier)
    return verifier.verifier


def kill(proxy: ProxyServer) -> None:
    pid = child_of(proxy).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_a_strategy_that_judges_uses_it_and_pays_for_it(proxy: ProxyServer, folder: Path) -> None:
    got = ask(proxy)
    assert receipt(got)["answer"] == "9"
    (entry,) = entries(got)
    assert (entry["model"], entry["prompt_tokens"], entry["status"]) == ("scripted", READ, "finished")
    assert entry["flops"] == 2 * 1000 * READ
    sampled = sum(each["prompt_tokens"] + each["completion_tokens"] for each in entries(got, "policy"))  # type: ignore[operator]
    assert receipt(got)["tokens"] == sampled + READ
    assert receipt(got)["notes"] == []
    stored = proxy.get(f"/v1/receipts/{got.headers['x-outthink-receipt']}").json
    assert stored["tokens"] == sampled + READ
    assert len(judged(folder)) == 1
    assert gauges(proxy) == (1, 0)


def test_others_are_not_judged_and_a_request_may_name_another(proxy: ProxyServer, folder: Path) -> None:
    assert receipt(ask(proxy, "outthink/self-consistency@4"))["answer"] == "2"
    named = ask(proxy, outthink={"verifier": "judge"})
    assert all(entry["model"] == "tiny" for entry in entries(named))
    got = ask(proxy, outthink={"verifier": f"scripted:{folder}"})
    assert (got.status, got.error["param"]) == (400, "outthink.verifier")
    assert judged(folder) == []


def test_a_keys_budget_pays_for_it_to_the_token(backend: ChatServer, folder: Path) -> None:
    class Limited(MemoryLedger):
        left = 100_000

        async def authorise(self, bearer: str | None) -> Key | None:
            return Key("k", limited=True)

        async def settle(self, reservation, record) -> None:
            await super().settle(reservation, record)
            self.left -= record.tokens

    ledger = Limited()
    with proxied(backend, folder, ledger=ledger) as proxy:
        got = ask(proxy)
    assert entries(got)[0]["prompt_tokens"] == READ
    assert 100_000 - ledger.left == receipt(got)["tokens"]


def test_a_budget_that_samples_use_up_leaves_them_unjudged(backend: ChatServer, folder: Path) -> None:
    ledger = MemoryLedger()
    with proxied(backend, folder, ledger=ledger) as proxy:
        got = ask(proxy, outthink={"budget": {"tokens": 300}})
    assert receipt(got)["tokens"] <= 300  # type: ignore[operator]


def test_dollars_of_a_verifier_without_a_price_are_refused(backend: ChatServer, folder: Path) -> None:
    priced = BackendSettings(url=backend.url, price=Price.parse("1,2"))
    with proxied(priced, folder) as proxy:
        got = ask(proxy, outthink={"budget": {"usd": 1.0}})
    assert got.status == 400
    assert "what the verifier scripted-1 costs in it is unknown" in got.error["message"]
    assert judged(folder) == []


def test_requests_that_wait_are_judged_together_and_a_small_one_in_its_turn(backend: ChatServer, folder: Path) -> None:
    with proxied(backend, folder) as proxy, ThreadPoolExecutor(3) as threads:
        verifier = child_of(proxy)
        gate = make_gate(folder)
        first = threads.submit(ask, proxy)
        with waiting_at(gate):
            large = threads.submit(ask, proxy, "outthink/weighted-vote@64")
            until(lambda: waits(verifier) == 1)
            small = threads.submit(ask, proxy, "outthink/weighted-vote@2")
            until(lambda: waits(verifier) == 2)
            gate.unlink()
        for future in (first, large, small):
            assert receipt(future.result())["notes"] == []
    first_batch, second, *_ = judged(folder)
    assert [len(group) for group in first_batch] == [4]
    sizes = [len(group) for group in second]
    assert sizes[1] == 2, "the small one is judged with the first of the large one's"
    assert sum(sizes) == 64 + 2, "all that waited is judged in one call"


def waits(verifier: ProcessVerifier) -> int:
    """Requests that wait for it."""
    return sum(len(requests) for requests in list(verifier._line._turns.values()))


def test_a_client_that_leaves_takes_its_candidates_along(backend: ChatServer, folder: Path) -> None:
    with proxied(backend, folder) as proxy, ThreadPoolExecutor(1) as threads:
        verifier = child_of(proxy)
        gate = make_gate(folder)
        first = threads.submit(ask, proxy)
        with waiting_at(gate):
            proxy.abandon(VOTE, lambda: waits(verifier) == 1)
            until(lambda: waits(verifier) == 0)
            gate.unlink()
        assert receipt(first.result())["answer"] == "9"
    assert len(judged(folder)) == 1


def test_killed_in_the_middle_of_a_request(backend: ChatServer, folder: Path) -> None:
    with proxied(backend, folder) as proxy, ThreadPoolExecutor(1) as threads:
        opening, gate = make_gate(folder, "opening"), make_gate(folder)
        running = threads.submit(ask, proxy)
        with waiting_at(gate):
            kill(proxy)
            got = running.result()
        gate.unlink()
        failed = "scripted-1 failed, its scores are missing: its process has ended"
        assert receipt(got)["answer"] == "2", "the majority decides"
        assert receipt(got)["tokens"] is None, "nobody knows how far it had read"
        assert [note for note in receipt(got)["notes"] if "scripted" in note] == [failed]  # type: ignore[attr-defined]
        # It is started again, and waits for its gate: what comes meanwhile goes without.
        with waiting_at(opening):
            assert gauges(proxy) == (0, 1)
            without = ask(proxy)
            assert receipt(without)["answer"] == "2"
            assert [note for note in receipt(without)["notes"] if "scripted" in note] == [failed]  # type: ignore[attr-defined]
            (entry,) = entries(without)
            assert (entry["status"], entry["prompt_tokens"], entry["estimated"]) == ("failed", 0, False)
            sampled = sum(each["prompt_tokens"] + each["completion_tokens"] for each in entries(without, "policy"))  # type: ignore[operator]
            assert receipt(without)["tokens"] == sampled, "nothing is charged that was not read"
            ready = proxy.get("/readyz")
            assert (ready.status, ready.json["status"]) == (200, "ready")
            assert ready.json["verifier"]
            assert gauges(proxy) == (0, 2)
        until(lambda: gauges(proxy) == (1, 2))
        assert receipt(ask(proxy))["answer"] == "9"
        assert "verifier" not in proxy.get("/readyz").json


def test_why_samples_cannot_be_judged_is_said_once(folder: Path) -> None:
    long = lambda seen: chat([f"It is {TOO_LONG}.\n2"])  # noqa: E731
    with ChatServer(long, routes={"/v1/models": models("tiny")}) as server, proxied(server, folder) as proxy:
        got = ask(proxy)
    scripted = [note for note in receipt(got)["notes"] if "scripted" in note]  # type: ignore[attr-defined]
    assert scripted == ["scripted-1: some samples cannot be judged: is too long"]


def test_another_verifier_than_before_does_not_judge(backend: ChatServer, folder: Path) -> None:
    with proxied(backend, folder) as proxy:
        (folder / "id").write_text("scripted-2")
        kill(proxy)
        served = proxy.endpoints.backends.verifier
        assert served is not None
        until(lambda: served.problem is not None and "scripted-2" in served.problem)
        assert "is not what was served before (scripted-1)" in str(served.problem)
        assert receipt(ask(proxy))["answer"] == "2"
        (folder / "id").write_text("scripted-1")
        until(lambda: served.problem is None)
        assert receipt(ask(proxy))["answer"] == "9"


def test_a_real_reward_model_judges_beside_the_proxy(backend: ChatServer, tmp_path: Path) -> None:
    for name in ("torch", "transformers", "peft"):
        pytest.importorskip(name)
    tokenizer = tiny_tokenizer()
    model = tiny_model("TokenClassification", tokenizer)
    for each in (model, tokenizer):
        each.save_pretrained(tmp_path / "prm")
    (tmp_path / "prm" / "verifier.json").write_text(json.dumps({"id": "prm-1", "kind": "process"}))
    served = ServedVerifier(str(tmp_path / "prm"), lambda id: None)
    with ProxyServer(backend.url, verifier=served) as proxy:
        proxy.do(served.start())
        try:
            (entry,) = entries(ask(proxy))
        finally:
            proxy.do(served.stop())
    # A token a byte: the question, a blank line and the sample, four times.
    assert entry["prompt_tokens"] == 4 * (len(QUESTION) + 2 + len(ANSWERS[0]))
    assert (entry["model"], entry["status"]) == ("prm-1", "finished")
