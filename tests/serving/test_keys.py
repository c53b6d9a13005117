"""API keys: made, listed and revoked by the command, and what the proxy makes of them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from outthink.cli.main import main
from outthink.core.errors import BadInput
from outthink.core.request import Budget
from outthink.serving.ledger import DurableLedger, open_durable
from outthink.serving.protocols import Terms, digest, new_secret
from support.ledgers import Clock, doing, opened, rows
from support.waiting import PATIENCE

pytest.importorskip("aiohttp")

from support.chat_server import ChatServer, Drop, Reply, chat, chunk, stream
from support.proxy_server import CHAT, ProxyServer


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The usual ledger of this test."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    monkeypatch.setenv("OUTTHINK_SERVE_LEDGER", url)
    return url


def keys(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What `outthink keys` prints as JSON."""
    assert main(["keys", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_key_is_shown_once_and_kept_hashed(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "add", "team a"]) == 0
    secret = capsys.readouterr().out.strip()
    assert secret.startswith("ot-")
    assert len(secret) > 40
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        assert secret.encode() not in path.read_bytes()
    assert rows(url, "SELECT digest FROM keys") == [(digest(secret),)]
    assert main(["keys", "list"]) == 0
    assert secret not in capsys.readouterr().out
    assert oct((tmp_path / "ledger.sqlite").stat().st_mode)[-3:] == "600"


def test_keys_go_where_serve_would_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OUTTHINK_SERVE_LEDGER", "OUTTHINK_SERVE_LEDGER_URL", "OUTTHINK_SERVE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    urls = {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("file", "secret", "named")}
    (tmp_path / "url").write_text(urls["secret"])
    config = tmp_path / "outthink.toml"
    config.write_text(f'[serve.ledger]\nurl = "{urls["file"]}"\n')
    monkeypatch.setenv("OUTTHINK_SERVE_CONFIG", str(config))
    keys(capsys, "add", "a")
    monkeypatch.setenv("OUTTHINK_SERVE_LEDGER_URL_FILE", str(tmp_path / "url"))
    keys(capsys, "add", "b")
    keys(capsys, "add", "c", "--ledger", urls["named"])
    result = {name: keys(capsys, "list", "--ledger", url) for name, url in urls.items()}
    assert {name: [item["name"] for item in listed] for name, listed in result.items()} == {
        "file": ["a"],
        "secret": ["b"],
        "named": ["c"],
    }


def test_a_list_in_a_pipe_is_not_cut(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--budget-day tokens=1000000,usd=5 --ceiling tokens=50000,seconds=30 --strategy self-consistency@16"
    made = keys(capsys, "add", "a-team-with-a-long-name", *flags.split(), "--model", "outthink/self-consistency")
    assert main(["keys", "list"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if made["id"] in line]
    for part in (made["name"], "tokens=1000000,usd=5", "tokens=50000,seconds=30", "self-consistency@16"):
        assert part in line


def test_secrets_differ() -> None:
    assert len({new_secret() for _ in range(100)}) == 100


def test_all_terms_are_kept(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--admin --budget-day tokens=1000,usd=0.5 --budget-month tokens=9000 --ceiling tokens=100,seconds=5"
    made = keys(
        capsys, "add", "a", *flags.split(), "--strategy", "self-consistency@3", "--model", "x", "--model", "y/z",
        "--expires", "30d",
    )  # fmt: skip
    (kept,) = doing(url, DurableLedger.list_keys)
    assert kept.terms == Terms(
        admin=True,
        day=Budget(tokens=1000, usd=0.5),
        month=Budget(tokens=9000),
        ceiling=Budget(tokens=100, seconds=5),
        strategy="self-consistency@3",
        models=("x", "y/z"),
        expires=kept.terms.expires,
    )
    assert kept.terms.expires == pytest.approx(time.time() + 30 * 86_400, abs=60)
    key = doing(url, lambda ledger: ledger.authorise(made["secret"]))
    assert key is not None
    assert (key.id, key.admin, key.limited, key.budget.tokens, key.models) == (
        made["id"],
        True,
        True,
        100,
        ("x", "y/z"),
    )


def test_a_revoked_key_stays_in_the_list_and_frees_its_name(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = keys(capsys, "add", "a")
    assert keys(capsys, "revoke", "a")["revoked"]
    second = keys(capsys, "add", "a")
    keys(capsys, "revoke", second["id"])
    assert [(key["id"], key["revoked"] is not None) for key in keys(capsys, "list")] == [
        (first["id"], True),
        (second["id"], True),
    ]
    assert all("secret" not in key for key in keys(capsys, "list"))

    async def closed(ledger: DurableLedger) -> None:
        assert ledger.guarded  # a ledger whose keys are all revoked is not open to everyone
        assert await ledger.authorise(None) is None
        assert await ledger.authorise(first["secret"]) is None

    doing(url, closed)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["add", ""], "name"),
        (["add", "a\nb"], "name"),
        (["add", "taken"], "taken"),
        (["add", "x", "--budget-day", "seconds=5"], "budget-day"),
        (["add", "x", "--budget-day", "tokens=0"], "budget-day"),
        (["add", "x", "--ceiling", "euros=5"], "euros"),
        (["add", "x", "--strategy", "no-such"], "no-such"),
        (["add", "x", "--expires", "soon"], "--expires"),
        (["add", "x", "--expires", "0d"], "--expires"),
        (["add", "x", "--expires", "99999999999w"], "--expires"),
        (["revoke", "nobody"], "nobody"),
        (["list", "--ledger", "mysql://x"], "mysql"),
        (["list", "--ledger", "memory:"], None),
        (["add", "x", "--ledger", "memory:"], "memory:"),
    ],
)
def test_bad_input_is_one_line(url: str, arguments: list[str], part: str | None) -> None:
    doing(url, lambda ledger: ledger.add_key("taken", Terms()))
    done = subprocess.run(
        [sys.executable, "-c", "from outthink.cli.main import entry; entry()", "keys", *arguments],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == (0 if part is None else 2)
    if part is not None:
        assert part in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_terms_that_make_no_sense() -> None:
    with pytest.raises(BadInput, match="joules"):
        Terms(month=Budget(joules=3))


def test_a_key_expires(ledger_url: str) -> None:
    clock = Clock()

    async def job(ledger: DurableLedger) -> None:
        _, secret = await ledger.add_key("a", Terms(expires=clock.now + 10))
        assert await ledger.authorise(secret) is not None
        clock.now += 10
        assert await ledger.authorise(secret) is None

    doing(ledger_url, job, clock=clock)


def test_other_processes_hear_of_keys_within_the_refresh(ledger_url: str) -> None:
    async def job() -> None:
        async with opened(ledger_url, refresh=0.05) as one, opened(ledger_url) as two:
            assert not one.guarded
            _, secret = await two.add_key("a", Terms())
            for known in (True, False):
                async with asyncio.timeout(PATIENCE):
                    while (await one.authorise(secret) is not None) != known or not one.guarded:
                        await asyncio.sleep(0)
                if known:
                    await two.revoke_key("a")

    asyncio.run(job())


def test_when_a_key_was_last_used(ledger_url: str) -> None:
    clock = Clock()

    async def job(ledger: DurableLedger) -> None:
        _, secret = await ledger.add_key("a", Terms(day=Budget(tokens=10)))
        key = await ledger.authorise(secret)
        assert key is not None
        (kept,) = await ledger.list_keys()
        assert kept.last_used is None
        clock.now += 5
        await ledger.reserve(key, 1, None, "r1")
        (kept,) = await ledger.list_keys()
        assert kept.last_used == clock.now

    doing(ledger_url, job, clock=clock)


def by(secret: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}", **more}


def test_the_proxy_holds_a_budget_across_restarts(url: str, backend: ChatServer) -> None:
    _, secret = doing(url, lambda ledger: ledger.add_key("a", Terms(day=Budget(tokens=1000))))
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        assert proxy.chat("tiny").status == 401
        assert proxy.chat("tiny", headers=by("ot-wrong")).status == 401
        first = proxy.chat("tiny", headers=by(secret), max_tokens=500)
        assert first.status == 200
        number = first.headers["x-outthink-receipt"]
    for _ in range(3):
        with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
            got = proxy.get(f"/v1/receipts/{number}", **by(secret)).json
            assert got["tokens"] == got["prompt_tokens"] + got["completion_tokens"]
            refused = proxy.chat("tiny", headers=by(secret), max_tokens=1000)
            assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
            assert 0 < int(refused.headers["retry-after"]) <= 86_400
            assert proxy.chat("outthink/single", headers=by(secret), max_tokens=64).status == 200


def test_the_proxy_answers_an_idempotency_key_once(url: str, backend: ChatServer) -> None:
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        for model in ("tiny", "outthink/single"):
            before = len(backend.calls)
            asked = {"headers": {"Idempotency_Key": f"i-{model}"}}
            first, second = (proxy.chat(model, "Hello", **asked) for _ in range(2))
            assert first.status == second.status == 200
            assert first.content == second.content
            assert first.headers["x-outthink-receipt"] == second.headers["x-outthink-receipt"]
            assert len(backend.calls) == before + 1
            other = proxy.chat(model, "Something else", **asked)
            assert (other.status, other.error["code"]) == (409, "idempotency_conflict")
        (spent,) = proxy.do(proxy.ledger.spend("day"))
        assert spent.requests == 2


def test_all_that_shapes_a_reply_is_part_of_what_an_idempotency_key_stands_for(url: str, backend: ChatServer) -> None:
    shaping = [
        {"x_outthink_strategy": "self-consistency@2"},
        {"X_Outthink_Strategy": "single"},
        {"x_outthink_budget": "tokens=5000"},
        {"x_outthink_anything": "at all"},
        {"openai_beta": "assistants=v2"},
        {"accept": "text/event-stream"},
    ]
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        for model in ("tiny", "outthink/single"):
            asked = {"Idempotency_Key": f"i-{model}"}
            first = proxy.chat(model, headers=asked)
            for more in shaping:
                other = proxy.chat(model, headers={**asked, **more})
                assert (other.status, other.error["code"]) == (409, "idempotency_conflict"), (model, more)
            tracing = {"x_request_id": "another", "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
            assert proxy.chat(model, headers={**asked, **tracing}).content == first.content
        strategy = {"Idempotency_Key": "i-3", "x_outthink_strategy": "single"}
        first, second = (proxy.chat("outthink/auto", headers=strategy) for _ in range(2))
        assert (first.status, first.content) == (200, second.content)
        assert proxy.chat("outthink/auto", headers={"Idempotency_Key": "i-3"}).status == 409


@pytest.mark.parametrize("empty", ["", " ", "\t "])
def test_an_empty_idempotency_key_is_none(url: str, backend: ChatServer, empty: str) -> None:
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        for model in ("tiny", "outthink/single"):
            before = len(backend.calls)
            asked = [proxy.chat(model, text, headers={"Idempotency_Key": empty}) for text in ("a", "b", "a")]
            assert [got.status for got in asked] == [200] * 3
            assert len(backend.calls) == before + 3


def test_a_stream_is_repeated_as_well(url: str, backend: ChatServer) -> None:
    secret = doing(url, lambda ledger: ledger.add_key("a", Terms(day=Budget(tokens=100_000))))[1]
    backend.routes[CHAT] = chat(["The answer", " is 4."])
    fields = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 50}
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        for model in ("tiny", "outthink/self-consistency@2"):
            asked = {"headers": by(secret, Idempotency_Key=f"i-{model}"), **fields}
            first = proxy.chat(model, **asked)
            before = len(backend.calls)
            second = proxy.chat(model, **asked)
            assert len(backend.calls) == before
            assert first.status == second.status == 200
            assert first.text == second.text == "The answer is 4."
            assert first.events[-3:] == second.events[-3:]  # the finish with its receipt, the usage, the end
            for name in ("x-outthink-receipt", "content-type"):
                assert first.headers[name] == second.headers[name]
            again = proxy.chat(model, **asked | {"max_tokens": 51})
            assert (again.status, again.error["code"]) == (409, "idempotency_conflict")
        (spent,) = proxy.do(proxy.ledger.spend("day"))
        assert spent.requests == 2


def test_a_stream_that_broke_off_is_served_anew(url: str, backend: ChatServer) -> None:
    broken = stream(chunk("The"), Drop())
    backend.routes[CHAT] = lambda seen: broken if seen.number < 3 else chat(["The answer is 4."])
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        asked = {"headers": {"Idempotency_Key": "i"}, "stream": True}
        assert "error" in proxy.chat("tiny", **asked).events[-1]
        while "error" in (last := proxy.chat("tiny", **asked)).events[-1]:
            pass
        assert last.text == "The answer is 4."


@pytest.mark.parametrize("whole", [False, True])
def test_a_stream_that_only_its_connection_ended_is_repeated_if_it_was_finished(
    url: str, backend: ChatServer, whole: bool
) -> None:
    end = chunk("The", finish="stop") if whole else chunk('The "finish_reason": "stop"')
    head = b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    backend.routes[CHAT] = Reply((), before=(head + end, Drop()))
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        asked = {"headers": {"Idempotency_Key": "i"}, "stream": True}
        assert [proxy.chat("tiny", **asked).status for _ in range(2)] == [200, 200]
    assert len(backend.calls) == (1 if whole else 2)


def test_a_stream_without_its_usage_is_repeated_without_it(url: str, backend: ChatServer) -> None:
    """A key with a budget makes the proxy ask for counts that the client has not asked for."""
    secret = doing(url, lambda ledger: ledger.add_key("a", Terms(day=Budget(tokens=100_000))))[1]
    backend.routes[CHAT] = chat(["4"])
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        asked = {"headers": by(secret, Idempotency_Key="i"), "stream": True, "max_tokens": 50}
        first, second = (proxy.chat("tiny", **asked) for _ in range(2))
    assert first.content == second.content
    assert first.events[-1] == "[DONE]"
    assert all(event["choices"] for event in first.events[:-1])
