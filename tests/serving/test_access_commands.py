"""`outthink serve` and `keys` on ledgers that are new, gone, emptied or mistyped, and what they say about keys."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from outthink.cli.main import main
from support.chat_server import ChatServer, chat
from support.ledgers import rows
from support.proxy_process import COMMAND, announced, serving

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OUTTHINK_SERVE_") or name == "OUTTHINK_MODEL":
            monkeypatch.delenv(name)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command here; its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def model() -> Iterator[str]:
    with ChatServer(chat(["4"])) as server:
        yield server.url


def status(url: str, secret: str | None = None, **headers: str) -> int:
    """Of the list of models."""
    sent = headers | ({} if secret is None else {"authorization": f"Bearer {secret}"})
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/models", headers=sent), timeout=20) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def ledger_of(path: Path) -> str:
    return f"sqlite:///{path}"


def made(run: Run, *arguments: str) -> str:
    """The secret of a new key."""
    code, out, _ = run("keys", "add", *arguments)
    assert code == 0
    return out.strip()


@pytest.mark.parametrize("how", ["flag", "environment", "file", "reference"])
def test_a_named_ledger_is_made_only_where_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, run: Run, how: str
) -> None:
    path, config = tmp_path / "ledgers" / "new.sqlite", tmp_path / "outthink.toml"
    (tmp_path / "url").write_text(ledger_of(path))
    named = {"file": f'url = "{ledger_of(path)}"', "reference": 'url_file = "url"'}.get(how, "")
    config.write_text(f'[serve.ledger]\n{named}\n[[serve.backends]]\nurl = "{model}"\n')
    arguments = ["serve", "--config", str(config)] + (["--ledger", ledger_of(path)] if how == "flag" else [])
    if how == "environment":
        monkeypatch.setenv("OUTTHINK_SERVE_LEDGER", ledger_of(path))
    for check in ([], ["--check"]):
        code, _, err = run(*arguments, *check)
        (line,) = err.splitlines()
        assert code == (1 if check else 2)
        assert all(part in line for part in ("ledger", str(path), "does not exist", "--new-ledger"))
    assert not path.parent.exists()
    assert run(*arguments, "--check", "--new-ledger")[0] == 0
    assert not path.parent.exists()
    for more in (["--new-ledger"], ["--new-ledger"], []):
        with serving(*arguments[1:], *more) as (_, url):
            assert status(url) == 200
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["empty", "another program's"])
def test_a_file_without_a_ledger_stays_as_it_is(tmp_path: Path, model: str, run: Run, kind: str) -> None:
    path = tmp_path / "file"
    path.touch()
    if kind != "empty":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE things (id)")
    before = path.read_bytes()
    for arguments in (["serve", "--model", model], ["keys", "list"], ["keys", "revoke", "a"]):
        code, _, err = run(*arguments, "--ledger", ledger_of(path))
        assert (code, len(err.splitlines())) == (2, 1)
        assert "holds no ledger" in err
    assert path.read_bytes() == before
    assert [other.name for other in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["revoke", "a"]])
@pytest.mark.parametrize("named", [True, False])
def test_keys_of_a_ledger_that_is_not_there(tmp_path: Path, arguments: list[str], named: bool) -> None:
    where = ["--ledger", ledger_of(tmp_path / "typo.sqlite")] if named else []
    done = subprocess.run([*COMMAND, "keys", *arguments, *where], capture_output=True, text=True)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert "does not exist" in done.stderr
    assert "outthink keys add NAME" in done.stderr
    assert not list(tmp_path.iterdir())


def test_postgres_without_a_ledger_is_refused_too(ledger_url: str, model: str, run: Run) -> None:
    if ledger_url.startswith("sqlite"):
        pytest.skip("files are another test's")
    for arguments in (["serve", "--model", model, "--ledger"], ["keys", "list", "--ledger"]):
        code, _, err = run(*arguments, ledger_url)
        assert (code, len(err.splitlines())) == (2, 1)
        assert "holds no ledger" in err
    secret = made(run, "a", "--ledger", ledger_url)
    with serving("--model", model, "--ledger", ledger_url) as (_, url):
        assert [status(url), status(url, secret)] == [401, 200]


@pytest.mark.parametrize("configured", [True, False])
def test_a_ledger_that_is_lost_after_a_key_opens_nothing(
    tmp_path: Path, model: str, run: Run, configured: bool
) -> None:
    path, config = tmp_path / "l.sqlite", tmp_path / "outthink.toml"
    config.write_text(f'[serve.ledger]\nurl = "{ledger_of(path)}"\n[[serve.backends]]\nurl = "{model}"\n')
    where = ["--config", str(config)] if configured else ["--ledger", ledger_of(path)]
    arguments = where if configured else ["--model", model, *where]
    old = made(run, "a", *where)
    for file in tmp_path.glob("l.sqlite*"):
        file.unlink()
    for more in ([], ["--new-ledger"], ["--new-ledger", "--keys", "open"]):
        code, _, err = run("serve", *arguments, *more)
        (line,) = err.splitlines()
        assert code == 2
        assert "outthink keys add NAME" in line
    new = made(run, "a", *where)
    with serving(*arguments, "--new-ledger") as (_, url):
        assert [status(url), status(url, old), status(url, new)] == [401, 401, 200]


def test_a_ledger_that_is_emptied_or_mistyped_stays_closed(tmp_path: Path, model: str, run: Run) -> None:
    config, path, other = tmp_path / "outthink.toml", tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    config.write_text(f'[serve.ledger]\nurl = "{ledger_of(path)}"\n[[serve.backends]]\nurl = "{model}"\n')
    made(run, "a", "--config", str(config))
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM keys")
    with announced("--config", str(config)) as (_, line):
        assert "an API key is needed, and there is none" in line
        assert status(line.split()[2]) == 401
    with serving("--model", model, "--ledger", ledger_of(other), "--new-ledger") as (_, url):
        assert status(url) == 200  # a ledger of its own, without any key
    with serving("--config", str(config), "--ledger", ledger_of(other)) as (_, url):
        assert status(url) == 401  # under the configuration a key was made


def test_the_unnamed_ledger_is_made_silently_and_remembers_keys(state: Path, model: str, run: Run) -> None:
    with announced("--model", model) as (_, line):
        assert line.rstrip().endswith("no API key is needed")
        root = line.split()[2].removesuffix("/v1")
        assert f"dashboard: {root}/;" in line
    secret = made(run, "a")
    shutil.rmtree(state / "keys")  # older versions made none, and a start makes up for it
    with announced("--model", model) as (_, line):
        assert line.rstrip().endswith("an API key is needed")
    for file in state.glob("ledger.sqlite*"):
        file.unlink()
    with serving("--model", model) as (_, url):
        assert [status(url), status(url, secret)] == [401, 401]


def test_open_takes_the_marker_away_and_says_what_that_changes(
    tmp_path: Path, state: Path, model: str, run: Run
) -> None:
    path, config = tmp_path / "l.sqlite", tmp_path / "outthink.toml"
    config.write_text(f'[serve.ledger]\nurl = "{ledger_of(path)}"\n[[serve.backends]]\nurl = "{model}"\n')
    made(run, "a", "--config", str(config))
    markers = [tmp_path / "outthink.toml.keys", *(state / "keys").iterdir()]
    assert len(markers) == 2
    assert all(marker.stat().st_mode & 0o777 == 0o600 for marker in markers)
    assert (state / "keys").stat().st_mode & 0o777 == 0o700
    code, out, _ = run("keys", "open", "--config", str(config))
    assert code == 0
    assert all(f"removed {marker}" in out for marker in markers)
    assert "holds 1 key" in out
    assert not any(marker.exists() for marker in markers)
    with serving("--config", str(config)) as (_, url):
        assert status(url) == 401  # the ledger holds one
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM keys")
    assert json.loads(run("keys", "open", "--config", str(config), "--json")[1])["keys"] == 0
    with serving("--config", str(config)) as (_, url):
        assert status(url) == 200
    code, out, _ = run("keys", "open", "--ledger", ledger_of(tmp_path / "nowhere"))
    assert code == 0
    assert "nothing said that a key was made" in out
    assert not (tmp_path / "nowhere").exists()


def test_the_first_key_says_what_it_changes(tmp_path: Path, run: Run) -> None:
    where = ["--ledger", ledger_of(tmp_path / "l.sqlite")]
    _, out, first = run("keys", "add", "a", *where)
    assert len(out.split()) == 1
    assert "every client needs one" in first
    assert "outthink keys add NAME --admin" in first
    second = run("keys", "add", "b", "--metrics", *where)[2]
    assert "every client" not in second
    assert "--admin" in second
    assert "--admin" not in run("keys", "add", "c", "--admin", *where)[2]
    assert "--admin" not in run("keys", "add", "d", *where)[2]
    run("keys", "revoke", "c", *where)
    assert "--admin" in run("keys", "add", "e", *where)[2]
    assert [
        json.loads(terms).get("metrics") for (terms,) in rows(where[1], "SELECT terms FROM keys WHERE name < 'c'")
    ] == [
        None,
        True,
    ]


def test_metrics_come_with_no_other_right(tmp_path: Path, run: Run) -> None:
    for more in (["--admin"], ["--budget-day", "tokens=5"], ["--ceiling", "tokens=5"], ["--model", "x"]):
        code, _, err = run("keys", "add", "a", "--metrics", *more, "--ledger", ledger_of(tmp_path / "l.sqlite"))
        assert (code, len(err.splitlines())) == (2, 1)
        assert "metrics" in err
    assert not list(tmp_path.iterdir())


def test_prometheus_scrapes_with_a_key_of_its_own(tmp_path: Path, model: str, run: Run) -> None:
    pytest.importorskip("prometheus_client")
    ledger = ledger_of(tmp_path / "l.sqlite")
    secret = made(run, "prometheus", "--metrics", "--expires", "30d", "--ledger", ledger)
    with serving("--model", model, "--ledger", ledger) as (_, url):
        root = url.removesuffix("/v1")
        asked = urllib.request.Request(f"{root}/metrics", headers={"authorization": f"Bearer {secret}"})
        with urllib.request.urlopen(asked, timeout=20) as reply:
            assert b"outthink_ready 1.0" in reply.read()
        for path in ("dashboard/api/requests", "dashboard/api/live", "v1/models"):
            asked = urllib.request.Request(f"{root}/{path}", headers={"authorization": f"Bearer {secret}"})
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(asked, timeout=20)
            assert refused.value.code == 403
            refused.value.close()


@pytest.mark.parametrize("how", ["flag", "environment", "file", "set"])
def test_the_mode_is_a_setting_like_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, how: str
) -> None:
    config = tmp_path / "outthink.toml"
    listen = 'keys = "required"' if how == "file" else ""
    config.write_text(f'[serve.listen]\n{listen}\n[[serve.backends]]\nurl = "{model}"\n')
    more = {"flag": ["--keys", "required"], "set": ["--set", "listen.keys=required"]}.get(how, [])
    if how == "environment":
        monkeypatch.setenv("OUTTHINK_SERVE_KEYS", "required")
    with announced("--config", str(config), *more) as (_, line):
        assert "an API key is needed, and there is none" in line
        assert status(line.split()[2]) == 401


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--keys", ""], ("--keys", "is no text")),
        (["--ledger", ""], ("--ledger", "is no text")),
        (["--keys", "maybe"], ("--keys", "maybe", "auto, required, open")),
        (["--keys", "required", "--ledger", "memory:"], ("memory:", "keeps no keys")),
        (["--keys", "open", "--host", "0.0.0.0"], ("0.0.0.0", "reachable from elsewhere", 'keys = "auto"')),
        (["--keys", "required", "--host", "::"], ("::", "reachable from elsewhere", "outthink keys add")),
        (["--host", "127.example.com"], ("127.example.com", "reachable from elsewhere")),
    ],
)
def test_what_cannot_be_guarded_is_not_started(
    model: str, run: Run, arguments: list[str], parts: tuple[str, ...]
) -> None:
    code, _, err = run("serve", "--model", model, *arguments)
    assert code == 2
    assert all(part in err for part in parts)
    assert len(err.splitlines()) == 1


def test_check_says_what_a_start_would(tmp_path: Path, state: Path, model: str, run: Run) -> None:
    (tmp_path / "file").touch()
    for ledger in ("/proc/ledger.sqlite", str(tmp_path / "file" / "ledger.sqlite")):
        where = ["--model", model, "--ledger", ledger_of(Path(ledger)), "--new-ledger"]
        assert run("serve", *where)[0] != 0
        code, _, err = run("serve", "--check", *where)
        assert (code, len(err.splitlines())) == (1, 1)
        assert ledger in err
    assert "has no API keys, and nobody needs one" in run("serve", "--check", "--model", model)[1]
    assert "every request needs one" in run("serve", "--check", "--model", model, "--keys", "required")[1]
    assert not state.exists()
    made(run, "a")
    assert "has API keys, and every request needs one" in run("serve", "--check", "--model", model)[1]
    assert "has API keys, but nobody needs one" in run("serve", "--check", "--model", model, "--keys", "open")[1]
    (state / "ledger.sqlite").unlink()
    assert "every request needs one: outthink keys add" in run("serve", "--check", "--model", model)[1]
