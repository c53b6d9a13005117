"""`outthink serve` as a process: it starts, answers, checks, refuses, and ends in order."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("aiohttp")

from support.chat_server import ChatServer, chat

COMMAND = [sys.executable, "-c", "from outthink.cli.main import entry; entry()", "serve"]


def told(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its URL."""
    process = subprocess.Popen([*COMMAND, *arguments, "--port", "0"], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://\S+", line)
        assert found is not None, line
        yield process, found[0]
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_it_serves_and_ends_on_a_signal() -> None:
    with ChatServer(chat(["Hello"])) as backend, serving("--model", backend.url) as (process, url):
        with urllib.request.urlopen(f"{url}/models", timeout=10) as reply:
            assert json.load(reply)["data"][0]["id"] == "toy"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_check_says_what_is_served() -> None:
    with ChatServer(chat(["Hello"])) as backend:
        done = told("--model", backend.url, "--check")
    assert (done.returncode, done.stdout) == (0, "ok: 1 models (toy)\n")


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        ([], 2, "--model URL"),
        (["--model", "no-url"], 2, "no-url"),
        (["--model", "http://127.0.0.1:9/v1", "--check"], 1, "127.0.0.1:9"),
        (["--model", "http://127.0.0.1:9/v1", "--port", "99999"], 2, "port"),
        (["--model", "http://127.0.0.1:9/v1", "--host", "0.0.0.0"], 2, "API keys"),
        (["--model", "http://127.0.0.1:9/v1", "--policy", "no-such-file"], 2, "no-such-file"),
    ],
)
def test_what_cannot_be_served_is_one_line(arguments: list[str], code: int, part: str) -> None:
    done = told(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert part in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_port_in_use_is_named() -> None:
    with ChatServer(chat(["Hello"])) as backend:
        done = told("--model", backend.url, "--port", str(backend.port))
    assert done.returncode == 2
    assert str(backend.port) in done.stderr
