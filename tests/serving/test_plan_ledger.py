"""`outthink plan` of what a proxy has served: real requests in both kinds of database, which it never changes."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.cli.main import main
from outthink.serving.ledger import DurableLedger, open_durable
from outthink.serving.ledger.database import MIGRATIONS
from outthink.serving.protocols import RequestRecord, Reservation
from support.chat_server import ChatServer, Hang, chat, chunk, stream
from support.ledgers import connected, doing, record
from support.proxy_server import CHAT, ProxyServer

SERVER = ("--kv-tokens", "40000", "--step-seconds", "0.02")
Plan = Callable[..., dict[str, Any]]
Refusal = Callable[..., str]


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str]) -> Plan:
    """Plans with a server of bare numbers; the plan as JSON."""

    def run(*arguments: object, server: tuple[str, ...] = SERVER) -> dict[str, Any]:
        code = main(["plan", *map(str, arguments), *server, "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return dict(json.loads(captured.out))

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Plans in vain; the one line that is said."""

    def run(*arguments: object, code: int = 2) -> str:
        assert main(["plan", *map(str, arguments)]) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        return line

    return run


def kept(url: str, *records: RequestRecord) -> None:
    """Settle requests."""

    async def job(ledger: DurableLedger) -> None:
        for each in records:
            await ledger.settle(Reservation(each.id, each.key_id), each)

    doing(url, job)


def known(number: str, started: float, prompt: int = 100, output: int = 50, **more: Any) -> RequestRecord:
    tokens = {"prompt_tokens": prompt, "completion_tokens": output, "cancelled_tokens": 0, "tokens": prompt + output}
    return record(number, "a", started=started, **{**tokens, **more})


def files(folder: Path) -> dict[str, str]:
    """Digests of all files below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_requests_that_a_proxy_has_served_are_planned_for(backend: ChatServer, ledger_url: str, plan: Plan) -> None:
    slow = stream(*[chunk("on and on ")] * 3, Hang())
    backend.routes[CHAT] = lambda seen: slow if seen.body.get("seed") == 2 else chat(["\\boxed{4}"], counts=(100, 50))
    with ProxyServer(backend.url, ledger=open_durable(ledger_url)) as proxy:
        assert proxy.chat("tiny").status == 200
        assert proxy.chat("outthink/self-consistency@3", seed=0).status == 200
        assert proxy.chat("nobody").status == 404
        values = plan("--ledger", ledger_url)  # while it runs
    assert values["prompt_tokens"] == 100
    assert 75 <= values["output_tokens"] <= 75 + 3 / 2  # what was seen of the third sample before it was cancelled
    notes = " | ".join(values["notes"])
    assert "2 requests of" in notes
    assert "only what was seen is known and counted: 1" in notes
    assert plan("--ledger", ledger_url)["g"] == values["g"]  # when it has ended


def test_the_rate_is_that_of_the_span(ledger_url: str, plan: Plan) -> None:
    now = time.time()
    rows = [known(f"r{at}", now - 60 * at - 1) for at in range(30)]
    kept(ledger_url, *rows)
    young = plan("--ledger", ledger_url)["rate"]
    assert young == pytest.approx(30 / (29 * 60 + 1), rel=0.05)
    kept(ledger_url, known("old", now - 86_400 * 3))
    assert plan("--ledger", ledger_url, "--since", "1d")["rate"] == pytest.approx(30 / 86_400)
    assert plan("--ledger", ledger_url, "--since", "10m")["rate"] == pytest.approx(10 / 600)
    assert plan("--ledger", ledger_url, "--since", "1d", "--rate", 7)["rate"] == 7


def test_more_requests_than_a_page_are_all_read(ledger_url: str, plan: Plan) -> None:
    now = time.time()
    kept(ledger_url, *(known(f"r{at:04d}", now - 60, output=at % 5 + 1) for at in range(2003)))
    values = plan("--ledger", ledger_url, "--since", "1h", "--rate", 5)
    assert values["output_tokens"] == pytest.approx(sum(at % 5 + 1 for at in range(2003)) / 2003)
    assert any("2,003 requests" in note for note in values["notes"])


def test_the_arrivals_of_a_ledger_can_be_simulated(ledger_url: str, plan: Plan) -> None:
    pytest.importorskip("numba")
    kept(ledger_url, *(known(f"r{at}", time.time() - 3 * at - 1) for at in range(20)))
    simulated = plan("--ledger", ledger_url, "--simulate")["simulated"]
    assert simulated["requests"] == 20
    assert simulated["throughput_requests_per_second"] == pytest.approx(20 / 59, rel=0.2)


def test_nothing_is_changed(tmp_path: Path, plan: Plan) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    kept(f"sqlite:///{folder / 'ledger.sqlite'}", known("r1", time.time() - 5))
    before = files(folder)
    plan("--ledger", folder / "ledger.sqlite")
    assert files(folder) == before
    (folder / "ledger.sqlite").chmod(0o400)
    plan("--ledger", folder / "ledger.sqlite")
    assert files(folder) == before


def test_what_is_no_ledger_is_refused_and_stays(tmp_path: Path, refused: Refusal) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "text").write_text("no database")
    with sqlite3.connect(folder / "other.sqlite") as other:
        other.execute("CREATE TABLE songs (name TEXT)")
    other.close()
    before = files(folder)
    for name, problem in (("gone", "does not exist"), ("text", "is no ledger"), ("other.sqlite", "holds no ledger")):
        assert problem in refused("--ledger", folder / name, *SERVER)
    assert "is no file" in refused("--ledger", folder, *SERVER)
    assert files(folder) == before


@pytest.mark.parametrize(
    ("version", "problem"), [(len(MIGRATIONS) + 1, "written by a newer outthink"), (0, "holds no ledger")]
)
def test_another_schema_is_refused(ledger_url: str, refused: Refusal, version: int, problem: str) -> None:
    kept(ledger_url, known("r1", time.time()))
    database = connected(ledger_url)
    database.execute("UPDATE schema_version SET version = ?", (version,))
    database.close()
    assert problem in refused("--ledger", ledger_url, *SERVER)


def test_a_database_out_of_reach_is_told_without_its_password(refused: Refusal) -> None:
    pytest.importorskip("psycopg")
    line = refused("--ledger", "postgresql://us:secret@127.0.0.1:1/there", *SERVER, code=1)
    assert "the ledger cannot be read: postgresql://us@127.0.0.1:1/there" in line
    assert "secret" not in line


def test_an_empty_span_says_what_to_do(ledger_url: str, refused: Refusal) -> None:
    kept(ledger_url, known("r1", time.time() - 7200), record("r2", "a", started=time.time() - 5))
    line = refused("--ledger", ledger_url, "--since", "1h", *SERVER)
    assert "holds no request of the last 1h whose tokens are known; give a longer --since" in line


@pytest.mark.parametrize("age", ["", "7", "d", "7y", "1e9d", "0m", "nan d", "٣d", "99999999999999999999d", "7d\n"])
def test_an_age_is_a_number_and_a_unit(age: str, refused: Refusal) -> None:
    assert refused("--ledger", "x", "--since", age, *SERVER).startswith("outthink plan: --since: ")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("--ledger", "x", "--trace", "y"), "--trace"),
        (("--ledger", "x", "--prompt-tokens", "3"), "--prompt-tokens"),
        (("--since", "7d", "--trace", "y"), "--since"),
        (("--ledger", "memory:"), "ledger"),
        (("--ledger", "mysql://us:secret@there/x"), "ledger"),
    ],
)
def test_words_that_do_not_go_together(arguments: tuple[str, ...], field: str, refused: Refusal) -> None:
    line = refused(*arguments, *SERVER)
    assert line.startswith(f"outthink plan: {field}: ")
    assert "secret" not in line


def configured(tmp_path: Path, capacity: str, ledger: str = "url = 'memory:'") -> Path:
    """A file for the proxy."""
    file = tmp_path / "serve.toml"
    file.write_text(f"[serve.ledger]\n{ledger}\n[serve.capacity]\n{capacity}\n")
    return file


def test_a_configuration_of_serve_names_ledger_and_server(
    tmp_path: Path, ledger_url: str, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_LEDGER", ledger_url)
    kept(ledger_url, *(known(f"r{at}", time.time() - 3 * at) for at in range(20)))
    text = "kv_tokens = 40000\nstep_seconds = 0.02\ngpus = 3\nutilisation = 0.5\ngpu_hour = 2"
    values = plan("--config", configured(tmp_path, text, "url_env = 'THE_LEDGER'"), server=())
    assert values["g"] == plan("--ledger", ledger_url)["g"]
    assert (values["utilisation"], values["kv_tokens"], values["usd_per_hour"]) == (0.5, 40_000, 2)
    assert any("20 requests of" in note for note in values["notes"])


def test_flags_win_over_the_configuration(tmp_path: Path, plan: Plan) -> None:
    file = configured(tmp_path, "kv_tokens = 40000\nstep_seconds = 0.02\ntensor_parallel = 2")
    lengths = ("--config", file, "--prompt-tokens", 100, "--output-tokens", 50, "--rate", 1)
    assert plan(*lengths, server=())["kv_tokens"] == 40_000
    values = plan(*lengths, "--kv-tokens", 5000, "--tensor-parallel", 1, server=())
    assert (values["kv_tokens"], values["tensor_parallel"], values["step_seconds"]) == (5000, 1, 0.02)
    profile = tmp_path / "profile.json"
    profile.write_text('{"schema": "outthink.step-profile/1", "base": [[0, 0.5]]}')
    assert plan(*lengths, "--speed", profile, server=())["step_seconds"] == 0.5


@pytest.mark.parametrize(
    ("text", "flags", "told"),
    [
        ("step_second = 1", (), "serve.capacity: 'step_second' is no key; did you mean step_seconds?"),
        ("kv_tokens = -1", (), "serve.capacity.kv_tokens: -1.0 is not a positive number"),
        ("kv_tokens = 5\ngpu = 'h9'", (), "serve.capacity.gpu: 'h9' is not known"),
        ("kv_tokens = 5\ngpu = 'h9'", ("--gpu", "h8"), "outthink plan: --gpu: 'h8' is not known"),
        ("kv_tokens = 5", (), "--step-seconds: None is missing"),
        ("tensor_parallel = 2\ngpus = 3", (), "serve.capacity.gpus: 3 is no multiple of the 2"),
        ("gpus = 3", ("--tensor-parallel", "2"), "serve.capacity.gpus: 3 is no multiple of the 2"),
        ("kv_type = 'int3'", (), "serve.capacity.kv_type: 'int3' is not known; use one of bf16"),
        ("memory_share = 1.5", (), "serve.capacity.memory_share: 1.5 is not above 0"),
        ("step_seconds = 1\nspeed = 'x.json'", (), "serve.capacity.step_seconds: 1.0 does not go with"),
    ],
)
def test_errors_name_the_place(tmp_path: Path, refused: Refusal, text: str, flags: tuple[str, ...], told: str) -> None:
    assert told in refused("--config", configured(tmp_path, text), *flags)
