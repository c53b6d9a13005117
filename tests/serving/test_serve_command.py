"""`outthink serve` as a process: it starts, answers, checks, refuses, and ends in order."""

from __future__ import annotations

import http.client
import json
import os
import signal
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from outthink.cli.main import main
from support.chat_server import ChatServer, Hang, chat, chunk, stream
from support.proxy_process import serving
from support.waiting import PATIENCE, until

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is configured from outside."""
    for name in list(os.environ):
        if name.startswith("OUTTHINK_SERVE_") or name in ("OUTTHINK_MODEL", "OPENAI_API_KEY"):
            monkeypatch.delenv(name)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command here; its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["serve", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def ready(root: str) -> int:
    """The status with which a proxy says whether it is ready."""
    try:
        with urllib.request.urlopen(f"{root}/readyz", timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_it_serves_and_ends_on_a_signal() -> None:
    with ChatServer(chat(["Hello"])) as backend, serving("--model", backend.url) as (process, url):
        with urllib.request.urlopen(f"{url}/models", timeout=10) as reply:
            assert json.load(reply)["data"][0]["id"] == "toy"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_the_first_start_keeps_a_ledger_in_the_users_state_folder(tmp_path: Path) -> None:
    with ChatServer(chat(["Hello"])) as backend:
        with serving("--model", backend.url) as (process, url):
            body = json.dumps({"model": "toy", "messages": [{"role": "user", "content": "Hi"}]}).encode()
            asked = urllib.request.Request(f"{url}/chat/completions", body, {"content-type": "application/json"})
            with urllib.request.urlopen(asked, timeout=10) as reply:
                number = reply.headers["x-outthink-receipt"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        with (
            serving("--model", backend.url) as (_, url),
            urllib.request.urlopen(f"{url}/receipts/{number}", timeout=10) as reply,
        ):
            assert json.load(reply)["id"] == number
    assert [path.name for path in tmp_path.rglob("*.sqlite")] == ["ledger.sqlite"]


def test_it_starts_without_its_backend_and_serves_when_that_comes() -> None:
    with ChatServer(chat(["Hello"])) as gone:
        port = gone.port
    arguments = ("--model", f"http://127.0.0.1:{port}/v1", "--ledger", "memory:", "--set", "pool.interval=0.1")
    with serving(*arguments) as (_, url):
        root = url.removesuffix("/v1")
        assert ready(root) == 503
        with ChatServer(chat(["Hello"]), port=port):
            until(lambda: ready(root) == 200)


def test_watchers_hear_of_a_backend_that_comes(tmp_path: Path) -> None:
    with ChatServer(chat(["Hello"])) as gone:
        port = gone.port
    backend, log = f"http://127.0.0.1:{port}/v1", tmp_path / "log"
    every = ("--set", "pool.interval=0.1", "--set", f"logs.file={log}")
    with serving("--model", backend, "--ledger", "memory:", *every) as (_, url):

        def shown() -> list[dict[str, object]]:
            with urllib.request.urlopen(f"{url.removesuffix('/v1')}/dashboard/api/live", timeout=10) as reply:
                backends: list[dict[str, object]] = json.load(reply)["backends"]
                return backends

        assert shown() == [{"url": backend, "healthy": False}]
        with ChatServer(chat(["Hello"]), port=port):
            until(lambda: shown() == [{"url": backend, "healthy": True}])
            until(lambda: log.exists() and f"backend {backend} is healthy" in log.read_text())


def test_it_reads_a_file_and_flags_win(tmp_path: Path) -> None:
    with ChatServer(chat(["Hello"])) as backend:
        file = tmp_path / "outthink.toml"
        file.write_text(
            f'[serve.listen]\nport = 1\n[serve.ledger]\nurl = "memory:"\n[[serve.backends]]\nurl = "{backend.url}"\n'
        )
        with serving("--config", str(file)) as (_, url), urllib.request.urlopen(f"{url}/models", timeout=10) as reply:
            assert json.load(reply)["data"][0]["id"] == "toy"


def test_a_second_signal_does_not_wait_for_running_requests() -> None:
    for_ever = ("--set", "limits.stop_seconds=3600")
    with (
        ChatServer(stream(chunk("a"), Hang())) as backend,
        serving("--model", backend.url, *for_ever) as (process, url),
    ):
        host, _, port = url.removeprefix("http://").removesuffix("/v1").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        body = json.dumps({"model": "toy", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        connection.getresponse()
        process.send_signal(signal.SIGINT)
        until(lambda: ready(url.removesuffix("/v1")) == 503)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        connection.close()


def test_check_shows_what_holds_and_says_that_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setenv("TOY_KEY", "sesame-4711")
    with ChatServer(chat(["Hello"])) as backend:
        file = tmp_path / "outthink.toml"
        file.write_text(
            f'[[serve.backends]]\nurl = "{backend.url}"\nkey_env = "TOY_KEY"\n[serve.admission]\nqueue = 7\n'
        )
        code, out, err = command("--config", str(file), "--check", "--port", "8123")
    assert (code, err) == (0, "")
    assert "sesame" not in out
    assert tomllib.loads(out.partition("\nbackend ")[0])["serve"]["admission"]["queue"] == 7
    assert f"queue = 7  # {file}: serve.admission.queue" in out
    assert "port = 8123  # --port" in out
    assert f"backend {backend.url}: serves toy" in out
    assert out.endswith("\nok\n")
    assert not (tmp_path / "state").exists()


def test_check_names_everything_that_is_wrong(tmp_path: Path, command: Command) -> None:
    with ChatServer(chat(["Hello"])) as backend:
        file = tmp_path / "outthink.toml"
        rows = "".join(f'[[serve.backends]]\nurl = "{url}"\n' for url in (backend.url, "http://127.0.0.1:9/v1"))
        file.write_text(rows + 'key_env = "NOBODY_SETS_THIS"\n[[serve.backends]]\nurl = "http://127.0.0.1:10/v1"\n')
        wrong = ("--policy", "no-such-file", "--host", "0.0.0.0", "--set", "logs.file=no-such-folder/log")
        code, out, err = command("--config", str(file), "--check", *wrong)
    assert code == 1
    lines = err.splitlines()
    parts = ("NOBODY_SETS_THIS", "127.0.0.1:10", "no-such-file", "API keys", "no-such-folder")
    assert len(lines) == len(parts)
    assert all(any(part in line for line in lines) for part in parts), lines
    assert out.endswith("\n5 wrong\n")


def test_check_looks_for_model_files(command: Command) -> None:
    code, _, err = command("--model", "no-such.gguf", "--check")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "no-such.gguf" in err


def test_the_example_is_printed_and_can_be_read(command: Command) -> None:
    code, out, _ = command("--print-config")
    assert code == 0
    assert tomllib.loads(out)["serve"]["backends"][0]["url"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "--model URL"),
        (["--model", "no-url"], "no-url"),
        (["--model", "http://127.0.0.1:9/v1", "--port", "99999"], "--port"),
        (["--model", "http://127.0.0.1:9/v1", "--host", "0.0.0.0"], "API keys"),
        (["--model", "http://127.0.0.1:9/v1", "--policy", "no-such-file"], "no-such-file"),
        (["--model", "http://127.0.0.1:9/v1", "--ledger", "mysql://x"], "--ledger"),
        (["--model", "http://127.0.0.1:9/v1", "--ledger", ""], "--ledger"),
        (["--model", "no-such.gguf", "--ledger", "sqlite:////no/such/ledger"], "/no/such/ledger"),
        (["--config", "no-such-file"], "no-such-file"),
    ],
)
def test_what_cannot_be_served_is_one_line(command: Command, arguments: list[str], part: str) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert part in err
    assert len(err.strip().splitlines()) == 1


def test_a_port_in_use_is_named(command: Command) -> None:
    with ChatServer(chat(["Hello"])) as backend:
        code, _, err = command("--model", backend.url, "--port", str(backend.port))
    assert code == 2
    assert str(backend.port) in err


@pytest.mark.parametrize(
    "host", ["[::1]", "[::]", "127.0.0.1:8000", "http://localhost", "::1%", " 127.0.0.1", "a b", "::g"]
)
def test_a_host_stands_alone(command: Command, host: str) -> None:
    code, _, err = command("--model", "http://127.0.0.1:9/v1", "--host", host)
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert f"--host: {host!r} is neither a name nor a number; give it alone" in err


@pytest.mark.parametrize("host", ["no-such.invalid", "203.0.113.9", "2001:db8::1"])
def test_a_host_that_is_not_ours_is_named_and_not_the_port(command: Command, host: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    assert main(["keys", "add", "a", "--ledger", url]) == 0
    code, _, err = command("--model", "http://127.0.0.1:9/v1", "--ledger", url, "--host", host)
    assert code == 2
    assert f"host: {host!r} is no address of this machine" in err
