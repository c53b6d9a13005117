"""A client keeps what it has opened, shares it fairly, and says in one line what cannot be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import outthink as ot
from outthink.client.options import Options
from outthink.core.receipt import Verdict
from outthink.engines.protocol import Call, RealTimeEngine
from support.chat_server import ChatServer, Hang, Seen, chat, chunk, stream

PROMPT = "What is 17 * 23?"
FAST = ot.Speed(stream=50_000, total=1e9, prefill=5e6, concurrency=16)


def scripted(*answers: str, **options: Any) -> ot.ScriptedEngine:
    """An engine that writes these answers, in turn."""
    return ot.ScriptedEngine.sequence(list(answers or ["391"]), speed=FAST, **options)


class Counted(RealTimeEngine):
    """An engine that counts how often it was made ready and closed."""

    def __init__(self, inner: ot.ScriptedEngine) -> None:
        super().__init__(inner)
        self.prepared = self.closed = 0

    async def prepare(self, call: Call) -> None:
        """Count."""
        self.prepared += 1

    async def aclose(self) -> None:
        """Count."""
        self.closed += 1


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """In an event loop of its own, in which nothing is left behind."""

    async def alone() -> None:
        await test()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(alone())


def test_an_engine_is_opened_once_and_closed_by_who_opened_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Counted] = []

    def locate(model: str, **_: Any) -> Counted:
        made.append(Counted(scripted()))
        return made[-1]

    monkeypatch.setattr("outthink.configuration.models.locate", locate)

    async def test() -> None:
        given = Counted(scripted())
        async with ot.Client(model="http://a.invalid/v1", answer="number") as client:
            assert not made
            first, second = await client.ask(PROMPT), await client.ask(PROMPT)
            await client.ask(PROMPT, model=given)
            await client.ask(PROMPT, model="http://b.invalid/v1")
            assert first.answer == second.answer == "391"
            assert [engine.closed for engine in made] == [0, 0]
        assert [engine.closed for engine in made] == [1, 1]
        assert (given.closed, given.prepared > 0) == (0, True)

    run(test)


def test_options_of_one_call_win() -> None:
    async def test() -> None:
        async with ot.Client(model=scripted(), answer="number", strategy="single", budget="tokens=300") as client:
            assert (await client.ask(PROMPT)).strategy == "single"
            result = await client.ask(PROMPT, strategy="self-consistency:n=2", budget=None)
            assert (result.strategy, len(result.receipt.entries)) == ("self-consistency:n=2", 2)

    run(test)


@pytest.mark.parametrize("budget", ["tokens=300", {"tokens": 300}, ot.Budget(tokens=300)])
def test_a_budget_is_a_text_a_mapping_or_a_budget(budget: Any) -> None:
    result = ot.ask_sync(PROMPT, model=scripted(tokens=200), answer="number", budget=budget)
    assert result.stopped == "budget:tokens"
    assert (result.receipt.tokens or 0) <= 300


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"token": 5}, "budget: 'token' names no known currency"),
        ({"tokens": -1}, "budget tokens: -1 is not a positive number"),
        (500, "budget: 500 is no budget"),
    ],
)
def test_what_is_no_budget_is_refused(budget: Any, message: str) -> None:
    with pytest.raises(ot.BadInput, match=message):
        ot.ask_sync(PROMPT, model=scripted(), budget=budget)


def test_an_unknown_option_is_refused_in_one_line() -> None:
    async def test() -> None:
        wrong: Any = {"strategi": "single"}
        with pytest.raises(ot.BadInput, match="option: 'strategi' is not known; use any of ahead, answer, budget"):
            ot.Client(**wrong)
        async with ot.Client(model=scripted()) as client:
            with pytest.raises(ot.BadInput, match="option: 'strategi' is not known"):
                await client.ask(PROMPT, **wrong)
            with pytest.raises(ot.BadInput, match="option: 'strategy' is not known"):
                await client.ask_batch([PROMPT], strategy="single")  # type: ignore[arg-type]

    run(test)


def test_a_closed_client_says_so() -> None:
    async def test() -> None:
        client = ot.Client(model="embedded")
        await client.aclose()
        await client.aclose()
        with pytest.raises(ot.BadInput, match=r"client: Client\(model='embedded'\) is closed; make a new one"):
            await client.ask(PROMPT)
        with pytest.raises(ot.BadInput, match="is closed"):
            await client.ask_batch([PROMPT])
        with pytest.raises(ot.BadInput, match="is closed"):
            async for _ in client.stream(PROMPT):
                pass
        with pytest.raises(ot.BadInput, match="is closed"):
            async with client.session():
                pass

    run(test)


def test_a_client_belongs_to_one_event_loop() -> None:
    client = ot.Client(model=scripted().live(), answer="number")
    assert asyncio.run(client.ask(PROMPT)).answer == "391"
    with pytest.raises(
        ot.BadInput, match="belongs to another event loop; make one in each event loop, or a SyncClient"
    ):
        asyncio.run(client.ask(PROMPT))


def test_requests_share_an_engines_places_in_turns() -> None:
    with ChatServer(chat("391")) as server:

        async def test() -> None:
            engine = ot.OpenAIEngine(server.url, "toy", concurrency=1, memory=None)
            async with ot.Client(model=engine, answer="number") as client:
                large = client.ask(PROMPT, strategy="self-consistency:n=6")
                small = [client.ask(f"{PROMPT} {i}", strategy="single") for i in range(3)]
                await asyncio.gather(large, *small)
            await engine.aclose()

        run(test)
        asked = [seen.body["messages"][0]["content"] for seen in server.calls]
    assert server.most_at_once <= 2  # the second is the one that asks for the models
    assert max(asked.index(f"{PROMPT} {i}") for i in range(3)) <= 5
    assert asked.count(PROMPT) == 6


def test_the_deadline_covers_opening_the_engine() -> None:
    def slow(_: Seen) -> Any:
        return stream(Hang())

    with ChatServer(chat("391"), routes={"/v1/models": slow}) as server:

        async def test() -> None:
            async with ot.Client(model=server.url) as client:
                result = await client.ask(PROMPT, budget="seconds=0.2")
            assert (result.stopped, result.answer, result.receipt.entries) == ("budget:seconds", None, ())
            assert result.receipt.notes == ("the engine was not ready before the deadline",)

        run(test)


def test_the_deadline_covers_opening_the_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def open_verifier(text: str, **options: Any) -> Any:
        go_on.wait(10)
        raise ot.BadInput("verifier", text, "has come too late", "wait")

    monkeypatch.setattr("outthink.client.client.open_verifier", open_verifier)

    async def test() -> None:
        async with ot.Client(model=scripted().live(), answer="number", verifier="slow") as client:
            result = await client.ask(PROMPT, budget="seconds=0.05")
            assert (result.stopped, result.receipt.entries) == ("budget:seconds", ())
            go_on.set()
            with pytest.raises(ot.BadInput, match="has come too late"):
                await client.ask(PROMPT)

    run(test)


def test_closing_stops_what_runs() -> None:
    with ChatServer(stream(chunk("The answer is \\boxed{391}."), Hang())) as server:

        async def test() -> None:
            client = ot.Client(model=server.url, answer="number", strategy="single")
            seen = asyncio.Event()

            def observer(event: str, *_: Any) -> None:
                if event == "delta":
                    seen.set()

            task = asyncio.create_task(client.ask(PROMPT, observer=observer))
            await seen.wait()
            await client.aclose()
            result = await task
            assert (result.stopped, result.answer) == ("interrupted", "391")

        run(test)


def test_closing_does_not_wait_for_an_engine_that_is_not_ready() -> None:
    asked = threading.Event()

    def slow(_: Seen) -> Any:
        asked.set()
        return stream(Hang())

    with ChatServer(chat("391"), routes={"/v1/models": slow}) as server:

        async def test() -> None:
            client = ot.Client(model=server.url)
            task = asyncio.create_task(client.ask(PROMPT))
            await asyncio.to_thread(asked.wait)
            await client.aclose()
            result = await task
            assert (result.stopped, result.receipt.entries) == ("interrupted", ())
            assert result.receipt.notes == ("the engine was not ready when the request was ended",)

        run(test)


def test_a_stream_tells_what_happens_and_ends_with_the_result() -> None:
    with ChatServer(stream(chunk("The answer "), chunk("is 391."), chunk(finish="stop"))) as server:

        async def test() -> None:
            async with ot.Client(model=server.url, answer="number") as client:
                events = [event async for event in client.stream(PROMPT, strategy="self-consistency:n=2")]
            kinds = [event.kind for event in events]
            assert kinds.count("launched") == kinds.count("finished") == 2
            assert kinds[-1] == "answered"
            first = [event.text for event in events if event.kind == "delta" and event.sample == 1]
            assert "".join(first) == "The answer is 391."
            last = events[-1]
            assert last.result is not None
            assert (last.answer, last.result.answer, dict(last.votes)) == ("391", "391", {"391": 2})
            assert last.spent == last.result.receipt.known["tokens"]
            finished = next(event for event in events if event.kind == "finished")
            assert str(finished).startswith(f"sample {finished.sample}: 391 (")
            assert finished.seconds > 0
            assert str(last) == "391"

        run(test)


def test_leaving_a_stream_cancels_the_request() -> None:
    with ChatServer(stream(chunk("The"), Hang())) as server:

        async def test() -> None:
            async with ot.Client(model=server.url) as client:
                events = client.stream(PROMPT)
                async for event in events:
                    if event.kind == "delta":
                        break
                await events.aclose()
            assert await asyncio.to_thread(server.calls[0].gone.wait, 5)

        run(test)


def test_a_stream_raises_what_asking_raises() -> None:
    async def test() -> None:
        async with ot.Client(model=scripted()) as client:
            with pytest.raises(ot.BadInput, match="strategy"):
                async for _ in client.stream(PROMPT, strategy="no-such"):
                    pass

    run(test)


@pytest.mark.parametrize("live", [False, True])
def test_a_session_for_a_strategy_of_ones_own(live: bool) -> None:
    engine: Any = scripted("391", "17", "391", tokens=50)
    engine = engine.live() if live else engine

    async def test() -> None:
        request = ot.Request.of(PROMPT, answer="number")
        async with ot.Client(model=engine) as client:
            async with client.session(budget={"tokens": 2000}) as session:
                votes = [sample.answer async for sample in session.sample(request, n=3, ahead=2)]

                async def first(branch: ot.Session) -> str | None:
                    async for sample in branch.sample(request):
                        return sample.answer
                    return None

                both = await session.together(first, first)
            assert votes == ["391", "17", "391"]
            assert set(both) <= {"391", "17"}
            receipt = session.receipt()
            assert receipt.tokens == sum(entry.tokens or 0 for entry in receipt.entries) > 0

            async with client.session(budget="tokens=100") as small:
                some = [sample async for sample in small.sample(request, n=9, ahead=1)]
            assert small.stopped == "budget:tokens"
            assert len(some) < 9

    run(test)


def test_a_session_left_early_cancels_what_is_in_flight() -> None:
    with ChatServer(stream(chunk("The"), Hang())) as server:

        async def test() -> None:
            seen = asyncio.Event()
            async with ot.Client(model=server.url, observer=lambda event, *_: event != "delta" or seen.set()) as client:  # type: ignore[func-returns-value]
                with pytest.raises(RuntimeError, match="enough"):
                    async with client.session() as session:
                        stream_of = session.sample(ot.Request.of(PROMPT))
                        waiting = asyncio.create_task(anext(stream_of))  # type: ignore[arg-type]
                        await seen.wait()
                        waiting.cancel()
                        raise RuntimeError("enough")
            assert [entry.status for entry in session.receipt().entries] == ["cancelled"]

        run(test)


def test_a_batch_goes_through_the_same_client(tmp_path: Path) -> None:
    async def test() -> None:
        engine = Counted(scripted("391", tokens=20))
        async with ot.Client(model=engine, answer="number", strategy="single") as client:
            batch = await client.ask_batch([PROMPT, "2 * 2?"], budget={"tokens": 5000}, journal=tmp_path / "journal")
            assert [result.answer for result in batch.results] == ["391", "391"]
            assert (await client.ask(PROMPT)).answer == "391"
            with pytest.raises(ot.BadInput, match="a batch draws from one"):
                await client.ask_batch([PROMPT], model=[engine, scripted(model="other").live()])
        assert engine.closed == 0

    run(test)


def test_a_verifier_is_opened_once_and_closed_with_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    class Judge:
        id = model = "judge"
        kind, parameters, separator, aggregation = "outcome", 0, "\n", "last"
        closed = 0

        def bound(self, request: ot.Request, candidate: Any) -> int:
            return 0

        async def score(self, request: ot.Request, candidates: Any) -> list[Any]:
            from outthink.verifiers.protocol import Score

            return [Score((1.0,)) for _ in candidates]

        async def aclose(self) -> None:
            self.closed += 1

    def open_verifier(text: str, **options: Any) -> Judge:
        opened.append(Judge())
        return opened[-1]

    monkeypatch.setattr("outthink.client.client.open_verifier", open_verifier)

    async def test() -> None:
        async with ot.Client(model=scripted().live(), answer="number", verifier="a judge") as client:
            for _ in range(2):
                assert (await client.ask(PROMPT, strategy="best-of-n:n=2")).answer == "391"
            assert [judge.closed for judge in opened] == [0]
        assert [judge.closed for judge in opened] == [1]

    run(test)


def test_the_client_without_async() -> None:
    with ot.SyncClient(model=scripted("391", tokens=20).live(), answer="number") as client:
        assert client.ask(PROMPT, strategy="single").answer == "391"
        assert client.ask_batch([PROMPT], at_most=2).results[0].answer == "391"
        events = list(client.stream(PROMPT, strategy="single"))
        assert (events[0].kind, events[-1].kind, events[-1].answer) == ("launched", "answered", "391")
        early = client.stream(PROMPT, strategy="single")
        assert next(early).kind == "launched"
        early.close()
        with pytest.raises(ot.BadInput, match="strategy"):
            client.ask(PROMPT, strategy="no-such")
    client.close()
    with pytest.raises(ot.BadInput, match="is closed; make a new one"):
        client.ask(PROMPT)


def test_the_client_without_async_works_inside_a_running_event_loop() -> None:
    async def test() -> None:
        with ot.SyncClient(model=scripted().live(), answer="number") as client:
            assert client.ask(PROMPT, strategy="single").answer == "391"
        assert ot.ask_sync(PROMPT, model=scripted().live(), answer="number").answer == "391"

    run(test)


def test_a_strategy_of_ones_own_and_a_pool() -> None:
    async def both(session: ot.Session, request: ot.Request) -> Verdict:
        answers = [sample.answer for where in (session, session.on("large")) async for sample in where.sample(request)]
        return Verdict(answers[1], str(answers))

    async def test() -> None:
        models = [scripted("1", model="small").live(), scripted("2", model="large").live()]
        async with ot.Client(model=models, answer="number", price=[None, ot.Price(1.0, 2.0)]) as client:
            result = await client.ask(PROMPT, strategy=both)
            assert (result.answer, result.model, result.strategy) == ("2", "small,large", "both")
            assert [entry.usd is None for entry in result.receipt.entries] == [True, False]
            with pytest.raises(ot.BadInput, match=r"price: .* is given for 1 of 2 models"):
                await client.ask(PROMPT, price=ot.Price(1.0, 2.0))

    run(test)


def test_the_options_are_those_of_the_documentation() -> None:
    documented = {line.strip().partition(":")[0] for line in (Options.__doc__ or "").splitlines() if ": " in line}
    assert {"strategy", "ahead", "policy"} <= documented
