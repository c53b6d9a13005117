"""Databases for the ledger's tests: a SQLite file, and PostgreSQL where it is installed; a state folder for each.

And the proxy that most tests want, before one server that answers always the same; files have others of these names.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.chat_server import ChatServer, chat, models
from support.postgres import PostgresServer

if TYPE_CHECKING:
    from support.proxy_server import ProxyServer

_NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a proxy or a command remembers things that concern this test alone."""
    folder = tmp_path / "state"
    monkeypatch.setenv("OUTTHINK_STATE", str(folder))
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests of a process; skips without PostgreSQL or psycopg."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    return str(request.getfixturevalue("postgres").schema(f"ledger{next(_NUMBERS)}"))


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    """A server with the model `tiny`."""
    with ChatServer(chat(["The answer is 4."]), routes={"/v1/models": models("tiny")}) as server:
        yield server


@pytest.fixture
def proxy(backend: ChatServer) -> Iterator[ProxyServer]:
    """A proxy before it, without keys."""
    from support.proxy_server import ProxyServer  # the files of tests that want one skip without its extra

    with ProxyServer(backend.url) as running:
        yield running
