"""Runs commands as a user would, in this process, against a scripted server on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from outthink.cli.main import main
from support.chat_server import ChatServer, Seen, chat


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch) -> Callable[..., Outcome]:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
    for name in ("OUTTHINK_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def answering(seen: Seen):
    """Two of three samples say 42, by seed; each is five tokens of a seven-token prompt."""
    number = 42 if seen.body.get("seed", 0) % 3 else 41
    return chat(["The ", "answer ", "is ", str(number), "."], counts=(7, 5))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(answering) as running:
        yield running
