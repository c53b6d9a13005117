"""Databases for the ledger's tests: a SQLite file, and PostgreSQL where it is installed; a state folder for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.postgres import PostgresServer

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
