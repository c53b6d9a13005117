"""A PostgreSQL server of our own on a loopback port, for tests that skip where there is none."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from support.waiting import until


def _programs() -> Path | None:
    result = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if (named := shutil.which("initdb")) is not None:
        result.append(Path(named).resolve().parent)
    return next((folder for folder in sorted(result, reverse=True) if (folder / "postgres").exists()), None)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


class PostgresServer:
    """`with PostgresServer() as server: server.url`. Skips the test where PostgreSQL or psycopg is missing."""

    def __init__(self) -> None:
        pytest.importorskip("psycopg")
        programs = _programs()
        if programs is None:
            pytest.skip("PostgreSQL is not installed")
        self._programs = programs
        self._user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        if self._user is not None and not _exists(self._user):
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        self._folder = Path(tempfile.mkdtemp(prefix="outthink-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    @property
    def url(self) -> str:
        """For the ledger."""
        return f"postgresql://ledger@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        options = [
            "-D",
            str(self._folder / "data"),
            "-U",
            "ledger",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        ]
        subprocess.run(
            [self._programs / "initdb", *options], check=True, user=self._user, stdout=subprocess.DEVNULL, cwd="/"
        )
        self.start()
        return self

    def start(self) -> None:
        """Run, and wait until it answers."""
        import psycopg

        settings = ("listen_addresses=127.0.0.1", f"unix_socket_directories={self._folder}", "fsync=off")
        options = [part for setting in settings for part in ("-c", setting)]
        command = [self._programs / "postgres", "-D", str(self._folder / "data"), "-p", str(self.port), *options]

        def answers() -> bool:
            if self._process is None or self._process.poll() is not None:  # it does not start while an old one ends
                with (self._folder / "log").open("ab") as log:
                    self._process = subprocess.Popen(command, user=self._user, stdout=log, stderr=log, cwd="/")
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        try:
            until(answers, "PostgreSQL")
        except AssertionError as error:
            raise AssertionError((self._folder / "log").read_text()[-2000:]) from error

    def stop(self) -> None:
        """End now: connections break."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(20)
            self._process = None

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Every process of it is stopped: connections stay, and nothing comes over them."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        processes = [self._process.pid, *map(int, children)]
        for number in processes:
            os.kill(number, signal.SIGSTOP)
        try:
            yield
        finally:
            for number in processes:
                os.kill(number, signal.SIGCONT)

    def database(self, name: str) -> str:
        """The URL of a new, empty database."""
        self._execute(f'CREATE DATABASE "{name}"')
        return self.url.rpartition("/")[0] + "/" + name

    def schema(self, name: str) -> str:
        """The URL of a new, empty schema: as good as a database, and made at once."""
        self._execute(f'CREATE SCHEMA "{name}"')
        return f"{self.url}?options=-csearch_path%3D{name}"

    def _execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
