"""A person judges at the terminal: asked once at a time, heard, and not waited for once nobody needs the reply."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import threading
from collections.abc import Iterator

import pytest

from outthink.cli.ask import TerminalJudge
from outthink.cli.main import main
from outthink.core.request import Request
from outthink.core.sample import Candidate
from support.waiting import eventually

REQUEST = Request.of("What is 17 * 23?")


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where to type what standard input reads."""
    typed, seen = pty.openpty()
    with os.fdopen(seen) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        yield typed
    os.close(typed)


def test_what_is_typed_becomes_the_score(keyboard: int) -> None:
    out = io.StringIO()
    os.write(keyboard, b"perhaps\nw because of the sign\n")
    (score,) = asyncio.run(TerminalJudge(out=out).score(REQUEST, [Candidate(("It is 381.",))]))
    assert (score.steps, score.message) == ((0.0,), "because of the sign")
    assert out.getvalue().count("It is 381.") == 1


def test_samples_that_end_together_are_asked_about_in_turn() -> None:
    asked = threading.Semaphore(1)

    def read() -> str:
        assert asked.acquire(blocking=False), "two questions at once"
        threading.Event().wait(0.02)
        asked.release()
        return "y"

    async def both() -> list[tuple[float, ...]]:
        judge = TerminalJudge(read, io.StringIO())
        scores = await asyncio.gather(*(judge.score(REQUEST, [Candidate((text,))]) for text in "ab"))
        return [score.steps for (score,) in scores]

    assert asyncio.run(both()) == [(1.0,), (1.0,)]


def test_a_deadline_does_not_wait_for_the_person(keyboard: int) -> None:
    async def hurried() -> None:
        out = io.StringIO()
        judging = asyncio.create_task(TerminalJudge(out=out).score(REQUEST, [Candidate(("It is 381.",))]))
        await eventually(lambda: "381" in out.getvalue())
        judging.cancel()
        await judging

    before = threading.active_count()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(hurried())  # ends only when the reading thread has ended
    assert threading.active_count() == before


def test_without_a_terminal_a_person_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    code = main(["ask", "What is 17 * 23?", "--strategy", "weighted-vote:n=2", "--verifier", "person"])
    assert code == 2
    assert "--verifier: 'person' needs a terminal to ask at" in capsys.readouterr().err
