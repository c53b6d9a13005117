"""Runs a strategy over several scripted engines behind one session, in virtual or in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outthink import Request, ScriptedEngine, Session
from outthink.controller.policy.rules import rule_from_json
from outthink.core.receipt import Receipt
from outthink.economics.tariff import Tariff
from outthink.session.calls import RunningCall
from outthink.session.live import LiveRunner
from outthink.session.live import drive as drive_live
from outthink.session.runner import Member
from outthink.session.virtual.runner import RateRunner, drive
from support.runs import Function, question

read_rule = rule_from_json


@dataclass
class PoolRun:
    """A finished run; an exception of the strategy is kept in `error`."""

    value: Any
    session: Session
    receipt: Receipt
    launched: list[RunningCall]
    error: Exception | None = None

    def of(self, model: str) -> list[Any]:
        """Entries of one model."""
        return [entry for entry in self.receipt.entries if entry.model == model]


def _tariff(engine: ScriptedEngine, prices: Mapping[str, Any], energies: Mapping[str, Any]) -> Tariff:
    return Tariff.of(engine.model, price=prices.get(engine.model), energy=energies.get(engine.model))


def virtual_pool(
    function: Function,
    engines: Sequence[ScriptedEngine],
    request: Request | None = None,
    *,
    prices: Mapping[str, Any] | None = None,
    energies: Mapping[str, Any] | None = None,
    **options: Any,
) -> PoolRun:
    """Run on the virtual clock; the first engine is the session's own."""
    request = request or question()
    launched: list[RunningCall] = []

    class Noting(RateRunner):
        def launch(self, running: RunningCall, delay: float = 0.0) -> None:
            if running not in launched:
                launched.append(running)
            super().launch(running, delay)

    tariffs = [_tariff(engine, prices or {}, energies or {}) for engine in engines]
    first = Noting(engines[0])
    others = [
        Member(Noting(engine, beside=first), tariff) for engine, tariff in zip(engines[1:], tariffs[1:], strict=True)
    ]
    session = Session(first, tariffs[0], budget=request.budget, pool=others, **options)
    value, error = None, None
    try:
        value = drive(function(session, request), session, first)
    except Exception as raised:  # noqa: BLE001 - handed to the test
        error = raised
    return PoolRun(value, session, session.receipt(), launched, error)


def live_pool(
    function: Function, engines: Sequence[ScriptedEngine], request: Request | None = None, **options: Any
) -> PoolRun:
    """Run in real time with asyncio; exceptions pass through."""
    request = request or question()

    async def run() -> PoolRun:
        first = LiveRunner(engines[0].live())
        others = [Member(LiveRunner(engine.live(), beside=first), Tariff.of(engine.model)) for engine in engines[1:]]
        session = Session(first, Tariff.of(engines[0].model), budget=request.budget, pool=others, **options)
        value = await drive_live(function(session, request), session, first)
        assert session.account.outstanding == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return PoolRun(value, session, session.receipt(), [])

    return asyncio.run(run())
