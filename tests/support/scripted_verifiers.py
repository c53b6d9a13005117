"""Verifiers for the child processes of tests: what they judge stands in a folder, where they wait for the test.

A test that opens a gate for writing waits until the child waits there too, and lets it go on by closing the gate.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest

from outthink.core.errors import BadInput
from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.verifiers.process import ProcessVerifier
from outthink.verifiers.protocol import Batches, Score, Verifier, question_of
from support.plugins import install

TOO_LONG, DEADLY, SWALLOWED, OF_AN_ARRAY = "far too long", "this one fails", "this one is lost", "as of an array"
ROOT = Path(__file__).parents[1]


class ScriptedVerifier(Verifier):
    """Likes texts by their last digit, at a token a word; `judged` in its folder holds a line a batch."""

    kind = "outcome"
    model = "scripted"
    parameters = 1000
    separator = "\n"
    aggregation = "min"

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._wait("opening")
        if not self.folder.is_dir():
            raise BadInput("verifier", folder, "is no folder", "make one")
        if (self.folder / "dies").exists():
            os._exit(3)
        name = self.folder / "id"
        self.id = name.read_text() if name.exists() else "scripted-1"

    def _wait(self, gate: str) -> None:
        if (path := self.folder / gate).exists():
            path.read_text()

    def bound(self, request: Request, candidate: Candidate) -> int:
        if TOO_LONG in candidate.text:
            raise BadInput("candidate", candidate.text, "is too long", "shorten it")
        candidate.text.encode()  # as a tokeniser, which knows no lone surrogates
        return tokens(request, candidate) + 5

    @property
    def score_many(self):
        return self.judge

    def judge(self, work: Batches) -> list[list[Score]]:
        with (self.folder / "judged").open("a") as file:
            file.write(json.dumps([[each.text for each in candidates] for _, candidates in work]) + "\n")
        self._wait("gate")
        if any(DEADLY in each.text for _, candidates in work for each in candidates):
            raise RuntimeError("a kernel is missing")
        return [
            [self.scored(request, each) for each in candidates if SWALLOWED not in each.text]
            for request, candidates in work
        ]

    def scored(self, request: Request, candidate: Candidate) -> Score:
        last = next(letter for letter in reversed(candidate.text) if letter.isdigit())
        value = int(last) / 10
        if OF_AN_ARRAY in candidate.text:
            return Score((numpy.float64(value).astype(numpy.float32),), numpy.int64(tokens(request, candidate)))  # type: ignore[arg-type]
        return Score((value,), tokens(request, candidate))

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        return self.judge([(request, candidates)])[0]


class SingleVerifier(ScriptedVerifier):
    """The same without batches of its own."""

    score_many = None


def tokens(request: Request, candidate: Candidate) -> int:
    """Words that it reads."""
    return len(question_of(request).split()) + len(candidate.text.split())


def process_verifier(folder: Path, opener: str = "ScriptedVerifier", **settings) -> ProcessVerifier:
    """One in a child process, which is yet to be started."""
    return ProcessVerifier(f"{__name__}:{opener}", str(folder), **settings)


def judged(folder: Path) -> list[list[list[str]]]:
    """What has been judged together, by batch and request."""
    file = folder / "judged"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def importable(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Let child processes import this, and what is in the folders."""
    path = [str(ROOT), *map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


def plugged(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for `scripted:FOLDER`, which child processes know as a plugin from now on."""
    (path / "verifier").mkdir()
    install(path / "site", "judges", {"verifiers": {"scripted": f"{__name__}:ScriptedVerifier"}})
    importable(monkeypatch, path / "site")
    return path / "verifier"


def make_gate(folder: Path, name: str = "gate") -> Path:
    """Whoever comes there from now on waits for the test; `unlink` it to let all pass."""
    os.mkfifo(folder / name)
    return folder / name


@contextmanager
def waiting_at(gate: Path) -> Iterator[None]:
    """The child waits there within the block, and goes on behind it."""
    with gate.open("w"):
        yield


class WaitingAt:
    """The same inside an event loop."""

    def __init__(self, gate: Path) -> None:
        self._gate = gate

    async def __aenter__(self) -> None:
        self._file = await asyncio.to_thread(self._gate.open, "w")

    async def __aexit__(self, *_: object) -> None:
        self._file.close()
