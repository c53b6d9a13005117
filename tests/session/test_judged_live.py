"""Judged streams in real time: an engine and a verifier that go on when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import outthink as ot
from outthink.core.sample import Candidate, Sample
from outthink.engines.protocol import Call, Delta, Engine, Event, Features, Finish
from outthink.verifiers import ConfidenceVerifier, Score, Verifier
from support.runs import collect, live, question


class Gates:
    """Events by name; who passes one has been seen there."""

    def __init__(self) -> None:
        self.events: dict[str, asyncio.Event] = {}
        self.seen: list[str] = []
        self.changed = asyncio.Condition()

    def open(self, *names: str) -> None:
        for name in names:
            self.events.setdefault(name, asyncio.Event()).set()

    async def pass_by(self, name: str) -> None:
        self.seen.append(name)
        async with self.changed:
            self.changed.notify_all()
        await self.events.setdefault(name, asyncio.Event()).wait()

    async def reached(self, *names: str) -> None:
        """Return when somebody has come to each of them."""
        async with self.changed:
            await self.changed.wait_for(lambda: set(names) <= set(self.seen))


class GatedEngine(Engine):
    """Call i writes its number when the gate `call i` opens."""

    model = "gated"
    features = Features(logprobs=True, top_logprobs=20, prefix=True, counted=True)
    concurrency = 16

    def __init__(self) -> None:
        self.gates = Gates()
        self.asked: list[Call] = []

    async def generate(self, call: Call) -> AsyncIterator[Event]:  # type: ignore[override]
        self.asked.append(call)
        await self.gates.pass_by(f"call {call.index}")
        yield Delta(f"The answer is {call.index + 1}.", tokens=10, logprobs=[-0.5] * 10, confidences=[2.0] * 10)
        yield Finish("stop", prompt_tokens=5, completion_tokens=10)


class GatedVerifier(Verifier):
    """Judges when the gate `judge TEXTS` opens, their numbers joined by +."""

    id = model = "gated-judge"
    parameters = 1000

    def __init__(self, gates: Gates) -> None:
        self.gates = gates

    def bound(self, request: ot.Request, candidate: Candidate) -> int:
        return 30

    async def score(self, request: ot.Request, candidates: Sequence[Candidate]) -> list[Score]:
        numbers = ["".join(filter(str.isdigit, candidate.text)) for candidate in candidates]
        await self.gates.pass_by(f"judge {'+'.join(numbers)}")
        return [Score((int(name) / 100,), 20) for name in numbers]


def play(script: Any, taken: list[Sample], *, budget: ot.Budget | None = None, **options: Any) -> ot.Session:
    """Take judged samples while `script` opens gates; everything is over when it returns."""
    engine = GatedEngine()

    async def strategy(session: ot.Session, request: ot.Request) -> None:
        director = asyncio.create_task(script(engine.gates))
        leave = options.pop("leave", None)
        async for sample in session.sample(request, judged=True, **options):
            taken.append(sample)
            if len(taken) == leave:
                break
        session.close()
        await director

    _, session = live(strategy, engine, question(budget=budget or ot.Budget()), verifier=GatedVerifier(engine.gates))
    return session


def numbers(samples: Sequence[Sample]) -> list[tuple[str | None, Sequence[float]]]:
    return [(sample.answer, sample.scores) for sample in samples]


def test_samples_are_judged_as_they_finish_and_come_in_launch_order() -> None:
    taken: list[Sample] = []

    async def script(gates: Gates) -> None:
        await gates.reached("call 0", "call 1", "call 2")
        gates.open("call 2")
        await gates.reached("judge 3")  # while two still generate
        gates.open("judge 3", "call 1")
        await gates.reached("judge 2")
        gates.open("call 0")
        await gates.reached("judge 1")
        assert taken == []
        gates.open("judge 1", "judge 2")

    session = play(script, taken, n=3, ahead=3)
    assert numbers(taken) == [("1", (0.01,)), ("2", (0.02,)), ("3", (0.03,))]
    assert [sample.verifier_tokens for sample in taken] == [20] * 3
    assert session.receipt().tokens == 3 * (15 + 20)


def test_what_finishes_in_one_turn_is_judged_in_one_call() -> None:
    taken: list[Sample] = []

    async def script(gates: Gates) -> None:
        await gates.reached("call 0", "call 1", "call 2")
        gates.open("call 0", "call 1", "call 2")
        await gates.reached("judge 1+2+3")
        gates.open("judge 1+2+3")

    session = play(script, taken, n=3, ahead=3)
    assert numbers(taken) == [("1", (0.01,)), ("2", (0.02,)), ("3", (0.03,))]
    assert [entry.prompt_tokens for entry in session.receipt().entries if entry.role == "verifier"] == [60]


def test_a_call_starts_when_one_in_flight_has_its_score() -> None:
    taken: list[Sample] = []

    async def script(gates: Gates) -> None:
        await gates.reached("call 0", "call 1")
        gates.open("call 0")
        await gates.reached("judge 1")
        assert "call 2" not in gates.seen
        gates.open("judge 1")
        await gates.reached("call 2")
        gates.open("call 1", "call 2", "judge 2", "judge 3", "judge 2+3")

    play(script, taken, n=3, ahead=2)
    assert [sample.answer for sample in taken] == ["1", "2", "3"]


def test_leaving_cancels_a_judgement_that_is_charged_as_bounded() -> None:
    taken: list[Sample] = []

    async def script(gates: Gates) -> None:
        await gates.reached("call 0", "call 1")
        gates.open("call 1")
        await gates.reached("judge 2")
        gates.open("call 0", "judge 1")

    session = play(script, taken, budget=ot.Budget(tokens=5000), n=2, ahead=2, leave=1)
    assert numbers(taken) == [("1", (0.01,))]
    receipt = session.receipt()
    (lost,) = [entry for entry in receipt.entries if entry.role == "verifier" and entry.status == "cancelled"]
    assert (lost.tokens, lost.estimated, lost.reserved_tokens) == (None, True, 30)
    assert (receipt.tokens, receipt.at_most["tokens"]) == (None, 2 * 15 + 20 + 30)
    assert session.account.spent["tokens"] == 2 * 15 + 20 + 30
    assert not any(session.account.reserved.values())


def test_an_end_delivers_finished_samples_without_the_scores_that_are_under_way() -> None:
    taken: list[Sample] = []
    sessions: list[ot.Session] = []

    async def script(gates: Gates) -> None:
        await gates.reached("call 0", "call 1", "call 2")
        gates.open("call 0")
        await gates.reached("judge 1")
        gates.open("judge 1", "call 1")
        await gates.reached("judge 2")
        sessions[0].stop("interrupted")

    engine = GatedEngine()

    async def strategy(session: ot.Session, request: ot.Request) -> None:
        sessions.append(session)
        director = asyncio.create_task(script(engine.gates))
        taken.extend([sample async for sample in session.sample(request, n=3, ahead=3, judged=True)])
        await director

    live(strategy, engine, verifier=GatedVerifier(engine.gates))
    assert numbers(taken) == [("1", (0.01,)), ("2", ())]


def test_the_models_own_confidence_is_asked_for_and_costs_nothing() -> None:
    engine = GatedEngine()
    engine.gates.open("call 0", "call 1")
    samples, session = live(collect(n=2, ahead=2, judged=True), engine, verifier=ConfidenceVerifier())
    assert [sample.scores for sample in samples] == [(2 / 3,), (2 / 3,)]
    assert [call.top_logprobs for call in engine.asked] == [20, 20]
    judged = [entry for entry in session.receipt().entries if entry.role == "verifier"]
    assert sum(entry.tokens or 0 for entry in judged) == 0
    assert session.receipt().tokens == 2 * 15


def test_a_verifier_that_breaks_in_the_middle_reaches_nobody_but_the_notes() -> None:
    class Breaks(GatedVerifier):
        def bound(self, request: ot.Request, candidate: Candidate) -> int:
            raise KeyError("bug")

    engine = GatedEngine()
    engine.gates.open("call 0")
    samples, session = live(collect(n=1, judged=True), engine, verifier=Breaks(engine.gates))
    assert numbers(samples) == [("1", ())]
    assert list(session.receipt().notes) == ["gated-judge: some samples cannot be judged: KeyError: 'bug'"]
