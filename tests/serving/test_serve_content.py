"""What clients and models say to each other: on no disk unless it is asked for, and gone when it is deleted."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("opentelemetry.sdk")

from outthink.http.errors import trace_of
from outthink.serving import dashboard
from outthink.serving.ledger import Rules, open_durable
from outthink.serving.ledger.outage import Spool
from outthink.serving.ledger.reservations import Settlement
from outthink.serving.observe import logs, telemetry
from outthink.serving.protocols import RequestRecord, Reservation
from support.chat_server import DONE, Answer, ChatServer, Seen, chat, chunk, event, models, refusal, stream, whole
from support.ledgers import written
from support.proxy_server import CHAT, ProxyServer
from support.waiting import until

PROMPT, ANSWER = "promptneedle", "answerneedle"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALLED = {"name": "look", "arguments": json.dumps({"at": ANSWER})}
PATHS = ("/v1/completions", "/v1/responses", "/v1/embeddings")


class Kept:
    """A proxy and everything that it writes to disk or sends to a collector."""

    def __init__(self, proxy: ProxyServer, folder: Path) -> None:
        self.proxy, self.folder = proxy, folder

    def disk(self) -> bytes:
        """All files, the ledger's log included."""
        return written(self.folder)

    def pages(self) -> bytes:
        """All pages that show finished requests."""
        rows = self.proxy.get("/dashboard/api/requests").json["rows"]
        paths = [f"{start}{row['id']}" for row in rows for start in ("/v1/receipts/", "/dashboard/api/requests/")]
        return b"".join(self.proxy.get(path).content for path in ["/dashboard/api/live", *paths])

    def settled(self, count: int) -> None:
        """Wait until so many requests are in the ledger."""
        until(lambda: len(self.proxy.get("/dashboard/api/requests").json["rows"]) >= count)


@contextmanager
def kept(backend: ChatServer, folder: Path, **rules: Any) -> Iterator[Kept]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

    ledger = open_durable(f"sqlite:///{folder}/ledger.db", Rules(**rules), spool=folder / "spool")
    with ProxyServer(backend.url, ledger=ledger) as proxy, (folder / "spans").open("w") as spans:
        dashboard.attach(proxy.app)
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=spans)))
        proxy.app.watchers.add(telemetry.Telemetry(provider))
        log = proxy.app.watchers.add(logs.Logs("debug", folder / "log"))
        yield Kept(proxy, folder)
        log.close()


def quoting(seen: Seen) -> str:
    """What a backend says that quotes the prompt."""
    return f"cannot answer {PROMPT}: {ANSWER}"


REPLIES: dict[str, Answer] = {
    "an answer": chat([f"The answer is {ANSWER}."]),
    "a refusal": lambda seen: refusal(quoting(seen), 400),
    "a failure": lambda seen: refusal(quoting(seen), 500),
    "an error event": lambda seen: stream(event({"error": {"message": quoting(seen), "code": quoting(seen)}})),
    "a late error": lambda seen: stream(chunk(ANSWER), event({"error": {"message": quoting(seen)}}), DONE),
    "garbled": whole(f"{{{ANSWER}", kind="application/json"),
    "a call": stream(
        chunk(delta={"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": CALLED}]}),
        chunk(finish="tool_calls"),
        DONE,
    ),
    "JSON": chat([json.dumps({"at": ANSWER})]),
    "an odd reason": stream(chunk(ANSWER), chunk(finish=ANSWER), DONE),
}
ASKED: list[dict[str, Any]] = [
    {"model": "tiny"},
    {"model": "outthink/single"},
    {"model": "outthink/self-consistency@2"},
    {"model": "outthink/self-consistency@2", "tools": [TOOL]},
    {"model": "outthink/self-consistency@2", "response_format": {"type": "json_object"}},
    {"model": "outthink/single", "outthink": {"answer": "math"}},
    {"model": "outthink/atom-of-thoughts"},
    {"model": "outthink/best-of-n@2", "outthink": {"verifier": "judge"}},
    {"model": f"outthink/budget-forcing:max_think=9,inject={PROMPT} 1,cue={PROMPT} 2"},
    {"model": f"outthink/early-exit:cue={PROMPT}", "outthink": {"strategy": f"think-with-me:cue={PROMPT}"}},
    {"model": f"outthink/{PROMPT}", "outthink": {"strategy": f"self-consistency:n=2,ties={PROMPT}"}},
    {"model": "tiny", "headers": {"x-outthink-strategy": f"beam:n=2,separator={PROMPT}"}},
]


@pytest.mark.parametrize("name", REPLIES)
def test_nothing_that_was_said_reaches_a_disk(name: str, tmp_path: Path) -> None:
    routes: dict[str, Answer] = dict.fromkeys((CHAT, *PATHS), REPLIES[name])
    with ChatServer(routes={**routes, "/v1/models": models("tiny")}) as backend, kept(backend, tmp_path) as running:
        proxy = running.proxy
        for fields in ASKED if "fail" not in name and "error" not in name else ASKED[:2]:
            for streamed in (False, True):
                said = proxy.chat(content=f"What is {PROMPT}?", stream=streamed, **fields)
                assert name != "a refusal" or PROMPT in said.content.decode()  # the client may see the words
        for path in PATHS:
            proxy.send("POST", path, {"model": "tiny", "input": PROMPT, "prompt": PROMPT})
        running.settled(7)
        assert ANSWER.encode() not in running.disk()
        assert PROMPT.encode() not in running.disk()
        shown = b"".join(
            proxy.get(f"/v1/receipts/{row['id']}").content for row in proxy.get("/dashboard/api/requests").json["rows"]
        )
        assert ANSWER.encode() not in shown
        assert PROMPT.encode() not in shown
    assert ANSWER.encode() not in running.disk()
    assert PROMPT.encode() not in running.disk()


@pytest.mark.parametrize(("kind", "text", "answer"), [("number", "So \\boxed{42}", "42"), ("choice", "(B)", "B")])
def test_numbers_and_letters_may_stay(kind: str, text: str, answer: str, tmp_path: Path) -> None:
    with ChatServer(chat([text]), routes={"/v1/models": models("tiny")}) as backend, kept(backend, tmp_path) as running:
        number = running.proxy.chat("outthink/single", outthink={"answer": kind}).headers["x-outthink-receipt"]
        assert running.proxy.get(f"/v1/receipts/{number}").json["receipt"]["answer"] == answer


def test_what_is_deleted_is_on_no_page_and_soon_in_no_file(tmp_path: Path) -> None:
    with (
        ChatServer(chat([f"The answer is {ANSWER}."]), routes={"/v1/models": models("tiny")}) as backend,
        kept(backend, tmp_path, logs_content=True) as running,
    ):
        proxy = running.proxy
        numbers = [
            proxy.chat(
                content=PROMPT + "x" * size,
                stream=streamed,
                headers={"idempotency-key": f"{size}{streamed}{model}"},
                model=model,
            ).headers["x-outthink-receipt"]
            for size in (0, 30_000)
            for streamed in (False, True)
            for model in ("tiny", "outthink/single")
        ]
        assert ANSWER in proxy.get(f"/v1/receipts/{numbers[1]}").content.decode()
        assert ANSWER.encode() in running.disk()
        assert proxy.get(f"/dashboard/api/requests?text={ANSWER}").json["rows"]
        for number in numbers:
            assert proxy.send("DELETE", f"/v1/receipts/{number}/content").json["deleted"] is True
        pages = running.pages()
        assert ANSWER.encode() not in pages
        assert PROMPT.encode() not in pages
        assert not proxy.get(f"/dashboard/api/requests?text={ANSWER}").json["rows"]
        until(lambda: ANSWER.encode() not in running.disk())
        assert PROMPT.encode() not in running.disk()


def test_what_is_too_old_is_gone_as_if_it_had_been_deleted(tmp_path: Path) -> None:
    with (
        ChatServer(chat([f"The answer is {ANSWER}."]), routes={"/v1/models": models("tiny")}) as backend,
        kept(backend, tmp_path, logs_content=True) as running,
    ):
        number = running.proxy.chat("outthink/single", PROMPT).headers["x-outthink-receipt"]
    later, url = time.time() + 31 * 86_400, f"sqlite:///{tmp_path}/ledger.db"
    ledger = open_durable(url, Rules(logs_content=True), spool=tmp_path / "spool", clock=lambda: later)

    async def looked() -> RequestRecord | None:
        await ledger.open()
        await ledger.forget("")  # the round of upkeep that follows opening has run when this has
        found = await ledger.receipt(number)
        await ledger.close()
        return found

    record = asyncio.run(looked())
    assert record is not None
    assert record.receipt is not None
    assert (record.receipt["answer"], record.stopped) == (None, "finished")
    assert ANSWER.encode() not in running.disk()


def test_deleting_waits_for_those_who_read(tmp_path: Path) -> None:
    import sqlite3

    with (
        ChatServer(chat([f"The answer is {ANSWER}."]), routes={"/v1/models": models("tiny")}) as backend,
        kept(backend, tmp_path, logs_content=True) as running,
    ):
        number = running.proxy.chat("outthink/single", PROMPT).headers["x-outthink-receipt"]
        reader = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT COUNT(*) FROM requests").fetchall() == [(1,)]
        running.proxy.send("DELETE", f"/v1/receipts/{number}/content")
        assert running.proxy.chat("outthink/single", "another").status == 200
        assert ANSWER.encode() in running.disk()
        reader.execute("COMMIT")
        until(lambda: PROMPT.encode() not in running.disk())
        reader.close()


def test_a_trace_in_the_log_quotes_no_value() -> None:
    try:
        try:
            int(PROMPT)
        except ValueError as error:
            raise KeyError(PROMPT) from error
    except KeyError as error:
        trace = trace_of(error)
    assert PROMPT not in trace.replace("PROMPT", "")
    assert ("ValueError" in trace, "KeyError" in trace, "test_serve_content.py" in trace) == (True, True, True)


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with ChatServer(REPLIES["an answer"], routes={"/v1/models": models("tiny")}) as backend:
            ledger = open_durable(f"sqlite:///{tmp_path}/deep/ledger.db", spool=tmp_path / "deeper" / "spool")
            with ProxyServer(backend.url, ledger=ledger) as proxy:
                log = proxy.app.watchers.add(logs.Logs("info", tmp_path / "log"))
                proxy.chat("tiny")
                until(lambda: (tmp_path / "log").stat().st_size)
                (tmp_path / "log").rename(tmp_path / "deep" / "log.1")  # as logrotate does it
                proxy.chat("tiny")
                until(lambda: (tmp_path / "log").exists() and (tmp_path / "log").stat().st_size)
                spool = Spool(tmp_path / "deeper" / "spool", "me")
                spool.append(
                    [Settlement(Reservation("a", "k"), RequestRecord("a", "k", "/", "m", "m", "s", "e", 0, 0, 200))]
                )
                files = [path for path in tmp_path.rglob("*") if path.is_file()]
                names = {path.name for path in files}
                assert names >= {"ledger.db", "ledger.db-wal", "ledger.db-shm", "log", "log.1", "me.jsonl"}
                assert {oct(path.stat().st_mode)[-3:] for path in files} == {"600"}
                assert {oct(path.stat().st_mode)[-3:] for path in tmp_path.rglob("*") if path.is_dir()} == {"700"}
                spool.close()
                log.close()
    finally:
        os.umask(before)
