"""What an engine or verifier may offer has a default: for subclasses, and for plain objects that only look like one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from outthink import Completion, Request, ScriptedEngine, Speed
from outthink.core.sample import Candidate
from outthink.engines.protocol import Call, Delta, Engine, Event, Features, Finish, complete, is_simulated
from outthink.verifiers import protocol as verifiers
from outthink.verifiers.protocol import Score, Verifier

CALL: Any = None


class Plain:
    """A user's own engine that has the least and one thing more."""

    model = "mine"
    notes = ("a note",)

    async def generate(self, call: Call) -> AsyncIterator[Event]:
        yield Delta("four")
        yield Finish()


class Subclass(Engine):
    def __init__(self) -> None:
        self.model = "mine"
        self.parameters = 7

    async def generate(self, call: Call) -> AsyncIterator[Event]:
        yield Finish()


def offers(engine: Engine) -> tuple[Any, ...]:
    return engine.url, engine.revision, engine.speed, engine.parameters_told, engine.features, engine.concurrency


NOTHING = (None, None, None, False, Features(), 8)


def test_a_plain_engine_has_the_defaults_of_what_it_lacks() -> None:
    engine = complete(Plain())
    assert (engine.model, engine.notes, engine.parameters) == ("mine", ("a note",), None)
    assert offers(engine) == NOTHING
    assert complete(engine) is engine, "nothing is wrapped twice"

    async def run() -> tuple[Any, ...]:
        await engine.prepare(CALL)
        events = [event async for event in engine.generate(CALL)]
        await engine.aclose()
        return len(events), await engine.count_prompt(CALL), await engine.count_text("four")

    assert asyncio.run(run()) == (2, None, None)
    with pytest.raises(AttributeError, match="fly"):
        engine.fly()  # type: ignore[attr-defined]


def test_a_subclass_may_assign_what_the_protocol_has_as_a_property() -> None:
    engine = Subclass()
    assert (engine.model, engine.parameters, engine.notes) == ("mine", 7, ())
    assert offers(engine) == NOTHING
    assert complete(engine) is engine


def test_an_engine_without_a_name_says_so() -> None:
    class Nameless(Engine):
        async def generate(self, call: Call) -> AsyncIterator[Event]:
            yield Finish()

    with pytest.raises(NotImplementedError, match="Nameless names no model"):
        _ = Nameless().model


def test_a_plain_engine_that_knows_its_outcomes_runs_on_the_virtual_clock() -> None:
    inner = ScriptedEngine(lambda call: Completion(answer="4"))

    class Outcomes:
        model, speed, outcome = "mine", Speed(), inner.outcome

    assert is_simulated(complete(Outcomes()))
    assert not is_simulated(complete(Plain()))
    assert not is_simulated(inner.live())


class PlainVerifier:
    id = "mine@1"

    def bound(self, request: Request, candidate: Candidate) -> int:
        return 0

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        return [Score((1.0,)) for _ in candidates]


def test_a_plain_verifier_has_the_defaults_of_what_it_lacks() -> None:
    verifier = verifiers.complete(PlainVerifier())
    assert (verifier.id, verifier.model, verifier.kind, verifier.aggregation) == ("mine@1", "mine@1", "outcome", "last")
    assert (verifier.parameters, verifier.top_logprobs, verifier.notes, verifier.score_many) == (None, 0, (), None)
    assert verifiers.complete(verifier) is verifier

    async def run() -> list[Score]:
        await verifier.prepare()
        scores = await verifier.score(Request.of("2+2?"), [Candidate(("4",))])
        await verifier.aclose()
        return scores

    assert asyncio.run(run()) == [Score((1.0,))]


def test_a_subclass_of_verifier_is_taken_as_it_is() -> None:
    class Mine(Verifier):
        id = "mine@2"
        bound, score = PlainVerifier.bound, PlainVerifier.score

    mine = Mine()
    assert verifiers.complete(mine) is mine
    assert mine.model == "mine@2"
