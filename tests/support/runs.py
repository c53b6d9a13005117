"""Runs one strategy over a scripted engine, in virtual or in real time, and keeps everything it did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from outthink import Message, Request, Result, Sampling, ScriptedEngine, Session
from outthink.core.receipt import Entry, Receipt
from outthink.core.request import Budget
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call, Engine
from outthink.session.calls import RunningCall
from outthink.session.live import LiveRunner
from outthink.session.live import drive as drive_live
from outthink.session.virtual.runner import RateRunner, drive

Function = Callable[[Session, Request], Coroutine[Any, Any, Any]]
PROMPT = "What is 17 * 23?"
BYTE_BOUND = len(PROMPT) + 16 + 64


def question(**fields: Any) -> Request:
    """A request; `max_tokens` goes to its sampling."""
    cap = fields.pop("max_tokens", 512)
    fields.setdefault("answer", "number")
    return Request(messages=(Message("user", PROMPT),), sampling=Sampling(max_tokens=cap), **fields)


class RecordingRunner(RateRunner):
    """A virtual runner that remembers what was launched and how many calls were in flight."""

    def __init__(self, engine: ScriptedEngine) -> None:
        super().__init__(engine)
        self.launched: list[RunningCall] = []
        self.peak = 0

    def launch(self, running: RunningCall, delay: float = 0.0) -> None:
        """Note the call, then launch it."""
        if running not in self.launched:
            self.launched.append(running)
        self.peak = max(self.peak, len(running.stream.in_flight))
        super().launch(running, delay)


@dataclass
class Run:
    """A finished virtual run."""

    value: Any
    session: Session
    runner: RecordingRunner
    receipt: Receipt
    error: Exception | None = None
    calls: list[Call] = field(default_factory=list)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Ledger entries in the order in which the calls ended."""
        return self.receipt.entries

    def count(self, status: str) -> int:
        """How many calls ended so."""
        return sum(entry.status == status for entry in self.entries)


def virtual(
    function: Function,
    engine: ScriptedEngine,
    request: Request | None = None,
    *,
    price: Any = None,
    energy: Any = None,
    prepare: Callable[[Session, RecordingRunner], None] | None = None,
    **options: Any,
) -> Run:
    """Run on the virtual clock; an exception of the strategy is kept in `error`."""
    request = request or question()
    runner = RecordingRunner(engine)
    tariff = Tariff.of(engine.model, price=price, energy=energy)
    session = Session(runner, tariff, budget=request.budget, **options)
    if prepare is not None:
        prepare(session, runner)
    value, error = None, None
    try:
        value = drive(function(session, request), session, runner)
    except Exception as raised:  # noqa: BLE001 - handed to the test
        error = raised
    return Run(value, session, runner, session.receipt(), error, list(engine.calls))


def live(
    function: Function, engine: Engine, request: Request | None = None, *, price: Any = None, **options: Any
) -> tuple[Any, Session]:
    """Run in real time with asyncio; exceptions pass through."""
    request = request or question()

    async def run() -> tuple[Any, Session]:
        runner = LiveRunner(engine)
        session = Session(runner, Tariff.of(engine.model, price=price), budget=request.budget, **options)
        value = await drive_live(function(session, request), session, runner)
        assert session.account.outstanding == 0
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left
        return value, session

    return asyncio.run(run())


def collect(**options: Any) -> Function:
    """A strategy that takes every sample of one stream and returns them."""

    async def strategy(session: Session, request: Request) -> list[Any]:
        return [sample async for sample in session.sample(request, **options)]

    return strategy


def answers(samples: list[Any]) -> list[str | None]:
    """Canonical answers in the order given."""
    return [sample.answer for sample in samples]


__all__ = ["BYTE_BOUND", "PROMPT", "Budget", "Result", "Run", "answers", "collect", "live", "question", "virtual"]
