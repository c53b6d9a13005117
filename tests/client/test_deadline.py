"""The seconds of a budget cover reading a verifier's model, and nobody waits for the end of that."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

import outthink as ot

PROMPT = "What is 17 * 23?"
FAST = ot.Speed(stream=50_000, total=1e9, prefill=5e6, concurrency=16)


def scripted() -> ot.ScriptedEngine:
    """An engine that answers in no time."""
    return ot.ScriptedEngine.sequence(["391"], speed=FAST)


def test_asking_does_not_wait_for_a_verifier_that_is_still_read_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on, read = threading.Event(), threading.Event()

    def open_verifier(text: str, **options: Any) -> Any:
        go_on.wait(30)
        read.set()

    monkeypatch.setattr("outthink.client.client.open_verifier", open_verifier)
    # What the caller waits for is the whole of `asyncio.run`, which ends the loop's own threads too.
    result = asyncio.run(
        ot.ask(PROMPT, model=scripted().live(), answer="number", verifier="slow", budget="seconds=0.05")
    )
    assert not read.is_set()
    go_on.set()
    assert (result.stopped, result.receipt.entries) == ("budget:seconds", ())
    assert 0.05 <= result.receipt.seconds < 5
    assert "the verifier slow was still being read" in result.receipt.notes[1]
    assert read.wait(10)


SLOW_VERIFIER = """
import sys, threading
import outthink.client.client as client
from outthink.cli.main import entry

client.open_verifier = lambda *_, **__: threading.Event().wait()
sys.argv = ["outthink", "ask", "x", "--model", "http://127.0.0.1:9/v1", "--answer", "number", "--verifier", "slow",
            "--budget", "seconds=0.05", "--json"]
entry()
"""


def test_the_command_ends_at_the_deadline_though_a_verifier_is_still_read() -> None:
    done = subprocess.run([sys.executable, "-c", SLOW_VERIFIER], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert json.loads(done.stdout)["stopped"] == "budget:seconds"


def test_the_receipt_counts_the_seconds_of_opening_a_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request's clock starts before the verifier is read, not behind it."""
    real, ahead = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + ahead[0])

    def open_verifier(text: str, **options: Any) -> Any:
        ahead[0] += 20.0
        return ot.FunctionVerifier(lambda request, answer: 1.0)

    monkeypatch.setattr("outthink.client.client.open_verifier", open_verifier)

    async def test() -> None:
        async with ot.Client(model=scripted().live(), answer="number", verifier="slow") as client:
            result = await client.ask(PROMPT, strategy="weighted-vote:n=2")
            assert result.receipt.seconds >= 20
            assert result.answer == "391"

    asyncio.run(test())
