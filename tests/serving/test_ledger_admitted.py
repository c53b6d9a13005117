"""Requests that were being served when their process was killed are in the ledger, once, and never at zero."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("aiohttp")

from outthink.core.request import Budget
from outthink.serving.ledger import DurableLedger, Rules, open_durable
from outthink.serving.ledger.admitted import AdmissionNotes, record_orphans
from outthink.serving.protocols import AdmittedRequest, RequestRecord, Reservation, Terms, new_id
from support.chat_server import ChatServer, Gate, chat, models, whole
from support.ledgers import connected, doing, opened, record
from support.proxy_process import serving
from support.proxy_server import CHAT, ProxyServer
from support.waiting import PATIENCE, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks of this kind")
EMBEDDINGS = "/v1/embeddings"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


def admitted(number: str, key: str = "anyone", **more: object) -> AdmittedRequest:
    values = {"model": "tiny", "strategy": "single", "stream": False, "started": 1.7e9, "tokens": 300, "usd": None}
    return AdmittedRequest(number, key, CHAT, **values | more)  # type: ignore[arg-type]


async def everything(ledger: DurableLedger) -> dict[str, RequestRecord]:
    return {found.id: found for found in await ledger.search(limit=1000)}


def ask(address: str, body: dict[str, object], secret: str | None) -> None:
    """Send a request, and wait for a reply that never comes."""
    sent = {"messages": [{"role": "user", "content": "Hello"}], "model": "tiny", **body}
    path = EMBEDDINGS if "input" in body else CHAT
    head = {"content-type": "application/json"} | ({} if secret is None else {"authorization": f"Bearer {secret}"})
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request("POST", path, json.dumps(sent), head)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        pass  # the proxy was killed
    finally:
        connection.close()


@pytest.mark.faults
@pytest.mark.parametrize("keyed", [False, True])
def test_killed_while_it_serves(url: str, keyed: bool) -> None:
    gate = Gate()
    held = chat(["4"], before=(gate,))
    kinds: list[dict[str, object]] = [
        {"max_tokens": 100},
        {"max_tokens": 100, "n": 2},
        {"stream": True},
        {"stream": True, "max_tokens": "50", "model": "tiny"},
        {"max_tokens": 100, "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        {"model": "outthink/self-consistency@2", "max_tokens": 30},
        {"model": "outthink/single", "stream": True, "outthink": {"budget": "tokens=700"}},
        {"input": "Hello"},
    ]
    known = (True, True, False, True, False, True, True, True)
    secret = None
    if keyed:
        secret = doing(url, lambda ledger: ledger.add_key("free", Terms(models=())))[1]
    routes = {"/v1/models": models("tiny"), EMBEDDINGS: held}
    with ChatServer(held, routes=routes) as backend:
        with serving("--model", backend.url, "--ledger", url, "--new-ledger") as (process, address):
            host = address.removeprefix("http://").removesuffix("/v1")
            backend.routes[CHAT] = whole({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
            for _ in range(3):
                ask(host, {"max_tokens": 5}, secret)
            backend.routes[CHAT] = held
            clients = [threading.Thread(target=ask, args=(host, body, secret)) for body in kinds]
            for client in clients:
                client.start()
            until(lambda: sum(seen.path in (EMBEDDINGS, CHAT) for seen in backend.seen) == 3 + len(kinds) + 1)
            process.send_signal(signal.SIGKILL)
            process.wait(20)
        gate.open()
        for client in clients:
            client.join(60)
    for _ in range(2):  # the next one to open the ledger records them, and the one after it finds nothing more
        found = doing(url, everything)
        lost = [one for one in found.values() if one.stopped == "lost"]
        assert (len(found), len(lost)) == (3 + len(kinds), len(kinds))
    assert all(one.estimated and one.tokens is None and one.status == 0 for one in lost)
    assert sum(one.at_most_tokens is not None for one in lost) == sum(known)
    assert all(one.at_most_tokens is None or one.at_most_tokens > 30 for one in lost)
    assert sorted(one.stream for one in lost) == sorted(body.get("stream", False) for body in kinds)
    assert {one.endpoint for one in lost} == {CHAT, EMBEDDINGS}
    (spent,) = doing(url, lambda ledger: ledger.spend("key"))
    assert (spent.requests, spent.tokens, spent.unknown_tokens) == (3 + len(kinds), None, len(kinds))


SERVE = """
import asyncio, sys
from outthink.serving.ledger import open_durable
from outthink.serving.protocols import AdmittedRequest

async def run(url, *numbers):
    ledger = open_durable(url)
    await ledger.open()
    for number in numbers:
        ledger.note(AdmittedRequest(number, "anyone", "/v1/x", "tiny", "single", False, 1.7e9, 300, None))
    print("noted", flush=True)
    await asyncio.sleep(600)

asyncio.run(run(*sys.argv[1:]))
"""


def noted(url: str, *numbers: str) -> subprocess.Popen[str]:
    """A process that serves requests with these numbers."""
    command = [sys.executable, "-c", SERVE, url, *numbers]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    assert process.stdout.readline() == "noted\n"
    return process


def test_a_neighbour_records_what_a_killed_process_was_serving(ledger_url: str) -> None:
    async def run() -> None:
        async with opened(ledger_url, rules=Rules(lease=0.2)) as ledger:
            ledger.note(admitted(mine := new_id()))
            process = await asyncio.to_thread(noted, ledger_url, first := new_id(), second := new_id())
            try:
                async with opened(ledger_url):  # which looks for what ended processes have left
                    assert await ledger.receipt(first) is None, "it lives"
            finally:
                process.kill()
                process.communicate()
            async with asyncio.timeout(PATIENCE):
                while await ledger.receipt(second) is None:
                    await asyncio.sleep(0)
            found = await everything(ledger)
            assert set(found) == {first, second}
            await ledger.settle(Reservation(mine, "anyone"), record(mine, "anyone", tokens=5))
            # A true record that comes late, from the local disk, takes the place of a lost one.
            await ledger.settle(Reservation(first, "anyone"), record(first, "anyone", tokens=7, prompt_tokens=7))
            found = await everything(ledger)
            assert {number: (one.stopped, one.tokens) for number, one in found.items()} == {
                mine: ("finished", 5),
                first: ("finished", 7),
                second: ("lost", None),
            }
            assert sum(spent.known_tokens for spent in await ledger.spend("key")) == 12

    asyncio.run(run())


def test_what_is_in_the_ledger_already_is_not_counted_again(url: str, tmp_path: Path) -> None:
    """Killed after the commit, before the note was taken away."""
    number, folder = new_id(), tmp_path / "ledger.sqlite.spool"
    doing(url, lambda ledger: ledger.settle(Reservation(number, "anyone"), record(number, "anyone", tokens=7)))
    notes = AdmissionNotes(folder, "killed")
    notes.add(admitted(number))
    notes.close()
    assert [path.name for path in folder.iterdir()] == ["killed.admitted"]
    (spent,) = doing(url, lambda ledger: ledger.spend("key"))
    assert (spent.requests, spent.tokens) == (1, 7)
    assert not folder.exists() or not list(folder.iterdir())


def test_an_orderly_end_leaves_no_files(backend: ChatServer, url: str, tmp_path: Path) -> None:
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        for model in ("tiny", "outthink/self-consistency@2"):
            assert proxy.chat(model).status == 200
        (file,) = (tmp_path / "ledger.sqlite.spool").iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        answered = len(backend.calls)
        backend.routes[CHAT] = chat(["4"], before=(Gate(),))
        proxy.abandon("tiny", lambda: len(backend.calls) > answered)
        until(lambda: len(proxy.do(proxy.ledger.search())) == 3)
    assert not (tmp_path / "ledger.sqlite.spool").exists()
    assert "lost" not in {one.stopped for one in doing(url, everything).values()}


def test_reservations_are_noted_in_the_database_alone(backend: ChatServer, url: str, tmp_path: Path) -> None:
    secret = doing(url, lambda ledger: ledger.add_key("a", Terms(day=Budget(tokens=10_000))))[1]
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        assert proxy.chat("tiny", headers={"authorization": f"Bearer {secret}"}, max_tokens=5).status == 200
        assert not (tmp_path / "ledger.sqlite.spool").exists()


def test_requests_are_served_where_nothing_can_be_noted(
    backend: ChatServer, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with ProxyServer(backend.url, ledger=open_durable(url, spool=tmp_path / "file")) as proxy:
        assert [proxy.chat("tiny").status for _ in range(3)] == [200] * 3
    assert len([line for line in caplog.messages if "noted" in line]) == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.text(max_size=700), st.sampled_from([1, 40]))
def test_exactly_those_are_left_that_were_not_taken_away(kept: list[bool], name: str, times: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        folder, url = Path(place) / "spool", f"sqlite:///{place}/ledger.sqlite"
        notes = AdmissionNotes(folder, "a")
        expected = set()
        for _ in range(times):
            numbers = [new_id() for _ in kept]
            for number in numbers:
                notes.add(admitted(number, model=name, strategy=name))
            for number, stays in zip(numbers, kept, strict=True):
                if not stays:
                    notes.remove(number)
            expected |= {number for number, stays in zip(numbers, kept, strict=True) if stays}
        notes.close()
        doing(url, lambda ledger: ledger.list_keys())
        database = connected(url)
        assert record_orphans(database, folder) == len(expected)
        rows = database.execute("SELECT id FROM requests").fetchall()
        database.close()
        assert {number for (number,) in rows} == expected
        assert not list(folder.glob("*")) if folder.exists() else not expected


@pytest.mark.parametrize("damage", [b"\xff" * 3000, b"\x05\x00[1,2", b"\x02\x00{}" + bytes(508) + b"\x04\x00null"])
def test_a_damaged_file_holds_nothing_up(url: str, tmp_path: Path, damage: bytes) -> None:
    folder = tmp_path / "ledger.sqlite.spool"
    folder.mkdir()
    (folder / "old.admitted").write_bytes(damage)
    assert doing(url, everything) == {}
    assert not list(folder.iterdir())
