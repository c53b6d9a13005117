"""Which stop sequence was hit, wishes about thinking, and continuing a prefix: what servers tell and refuse."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from embedded_files import needs_model

import outthink as ot
from outthink.core.request import Message, Sampling
from outthink.engines.embedded import EmbeddedEngine
from outthink.engines.openai import Facts, OpenAIEngine
from outthink.engines.protocol import Call, Delta, Event, Finish
from support.chat_server import (
    DONE,
    Answer,
    ChatServer,
    Reply,
    Seen,
    chat,
    chunk,
    event,
    refusal,
    refusing,
    stream,
    token,
    usage,
    whole,
)

STOPS = ("\n\n", "END")


@pytest.fixture(autouse=True)
def _own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """What is learnt of a server stays in the test; the embedded model lies in the user's own folder."""
    if "embedded" not in request.keywords:
        monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path))


def call(*, prefix: str | None = None, **sampling: Any) -> Call:
    return Call((Message("user", "Hi"),), Sampling(max_tokens=64, **sampling), prefix=prefix)


def run(answer: Answer, *calls: Call, facts: Facts | None = None) -> tuple[list[list[Event]], list[Seen], OpenAIEngine]:
    """The events of each call, the chat requests, and the engine."""
    with ChatServer(answer) as server:
        engine = OpenAIEngine(server.url, "toy", memory=None, facts=facts)

        async def main() -> list[list[Event]]:
            try:
                return [[event async for event in engine.generate(item)] for item in calls or (call(),)]
            finally:
                await engine.aclose()

        return asyncio.run(main()), server.calls, engine


def ended(finish: str = "stop", *, beside: dict[str, Any] | None = None, **choice: Any) -> Reply:
    """A stream whose last chunk has these fields in its choice, and others beside it."""
    last = {"index": 0, "delta": {}, "finish_reason": finish, **choice}
    return stream(chunk("One."), event({"choices": [last], **(beside or {})}), usage(5, 2), DONE)


def stop_of(reply: Reply, stops: tuple[str, ...] = STOPS) -> str | None:
    (events,), _, _ = run(reply, call(stop=stops))
    assert isinstance(events[-1], Finish)
    return events[-1].stop


class TestStopSequences:
    @pytest.mark.parametrize(
        ("fields", "stop"),
        [
            ({"stop_reason": "END"}, "END"),  # vLLM
            ({"stop_reason": None}, ""),
            ({"stop_reason": 151645}, ""),
            ({"matched_stop": "\n\n"}, "\n\n"),  # SGLang
            ({"matched_stop": 2}, ""),
            ({"stop_reason": "stop"}, None),  # says no more than the finish reason
            ({}, None),  # OpenAI
            ({"finish": "length"}, ""),
            ({"finish": "length", "stop_reason": None}, ""),
            ({"beside": {"__verbose": {"stop_type": "word", "stopping_word": "END"}}}, "END"),  # llama.cpp
            ({"beside": {"__verbose": {"stop_type": "eos", "stopping_word": ""}}}, ""),
        ],
    )
    def test_as_the_server_tells_it(self, fields: dict[str, Any], stop: str | None) -> None:
        assert stop_of(ended(**fields)) == stop

    def test_without_stop_sequences_the_model_ended_by_itself(self) -> None:
        assert stop_of(ended(), stops=()) == ""

    def test_whole_replies_tell_it_too(self) -> None:
        message = {"role": "assistant", "content": "One."}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "stop_reason": "END"}
        assert stop_of(whole({"choices": [choice]})) == "END"

    def test_llama_cpp_is_asked_to_tell(self) -> None:
        _, (with_stop, without), _ = run(chat(), call(stop=STOPS), call(), facts=Facts(tokenizer="llama.cpp"))
        assert with_stop.body["verbose"] is True
        assert "verbose" not in without.body
        _, (other,), _ = run(chat(), call(stop=STOPS), facts=Facts(tokenizer="vllm"))
        assert "verbose" not in other.body

    def test_the_session_hands_it_to_the_strategy(self) -> None:
        stops = []

        async def strategy(session: ot.Session, request: ot.Request) -> ot.Verdict:
            async for sample in session.sample(request, n=1):
                stops.append(sample.stop)
            return ot.Verdict("1", "1")

        with ChatServer(ended(stop_reason=None)) as server:
            asyncio.run(ot.ask("Hi", model=server.url, strategy=strategy))
        assert stops == [""]


class TestThinking:
    def test_nothing_is_sent_unasked(self) -> None:
        _, (seen,), engine = run(chat())
        names = {"reasoning_effort", "thinking_token_budget", "thinking_budget_tokens", "custom_params"}
        assert not names & set(seen.body)
        assert "chat_template_kwargs" not in seen.body
        assert engine.notes == ()

    def test_what_the_wishes_are_called(self) -> None:
        _, (some, none), engine = run(chat(), call(thinking_tokens=64, reasoning_effort="low"), call(thinking_tokens=0))
        assert some.body["reasoning_effort"] == "low"
        assert (some.body["thinking_token_budget"], some.body["thinking_budget_tokens"]) == (64, 64)
        assert some.body["custom_params"] == {"thinking_budget": 64}
        assert "chat_template_kwargs" not in some.body
        assert none.body["chat_template_kwargs"] == {"enable_thinking": False}
        assert none.body["thinking_token_budget"] == 0
        assert engine.notes == ()

    def test_a_refused_effort_is_left_out_and_said(self) -> None:
        no = refusal("Unsupported parameter: 'reasoning_effort' is not supported with this model.")
        events, calls, engine = run(refusing({"reasoning_effort": no}, chat()), call(reasoning_effort="high"), call())
        assert len(events) == 2
        assert ["reasoning_effort" in seen.body for seen in calls] == [True, False, False]
        (note,) = engine.notes
        assert "reasoning_effort is not accepted" in note

    @pytest.mark.parametrize(
        "words",
        [
            "Unsupported value: 'reasoning_effort' does not support 'silly'. Supported values are: 'low', 'high'",
            "reasoning_effort: Input should be 'low', 'medium' or 'high'",
        ],
    )
    def test_an_unknown_level_is_an_error_that_lists_the_levels(self, words: str) -> None:
        server = refusing({"reasoning_effort": refusal(words)}, chat())
        with pytest.raises(ot.EngineError, match="'low'") as caught:
            run(server, call(reasoning_effort="silly"))
        assert caught.value.fatal

    def test_vllm_without_a_reasoning_parser(self) -> None:
        no = refusal("thinking_token_budget is set but reasoning_config is not configured. Please set it.")
        _, calls, engine = run(refusing({"thinking_token_budget": no}, chat()), call(thinking_tokens=32))
        assert len(calls) == 2
        assert calls[1].body["thinking_budget_tokens"] == 32
        assert "top_k" in calls[1].body
        (note,) = engine.notes
        assert "does not accept thinking_token_budget" in note

    def test_a_strict_server_is_not_asked_for_each_of_them(self) -> None:
        names = ("thinking_token_budget", "thinking_budget_tokens", "custom_params", "chat_template_kwargs")
        rules = {name: refusal(f"Unrecognized request argument supplied: {name}") for name in names}
        _, calls, engine = run(refusing(rules, chat()), call(thinking_tokens=0))
        assert len(calls) == 3
        assert not set(names) & set(calls[-1].body)
        assert {"top_k", "min_p"} <= set(calls[-1].body)  # another kind, which it has not refused
        assert all(name in engine.notes[0] for name in names)

    def test_the_note_reaches_the_receipt_and_only_where_it_was_asked(self) -> None:
        no = refusal("Unrecognized request argument supplied: reasoning_effort")
        with ChatServer(refusing({"reasoning_effort": no}, chat())) as server:
            asked = asyncio.run(ot.ask("Hi", model=server.url, reasoning_effort="low"))
            again = asyncio.run(ot.ask("Hi", model=server.url, reasoning_effort="low"))
            plain = asyncio.run(ot.ask("Hi", model=server.url))
        for result in (asked, again):
            assert any("reasoning_effort" in note for note in result.receipt.notes)
        assert not any("reasoning_effort" in note for note in plain.receipt.notes)

    def test_a_server_that_ignores_the_cap_is_caught(self) -> None:
        thinking = [chunk(delta={"reasoning_content": "hm "}, usage={"completion_tokens": at}) for at in range(1, 60)]
        reply = stream(*thinking, chunk("4"), chunk(finish="stop"), usage(5, 60), DONE)
        _, _, engine = run(reply, call(thinking_tokens=20))
        assert "59 tokens instead of 20" in engine.notes[0]
        _, _, kept = run(reply, call(thinking_tokens=50))
        assert kept.notes == ()

    def test_openais_own_count_of_thinking(self) -> None:
        reply = stream(
            chunk("4"),
            chunk(finish="stop"),
            usage(5, 300, completion_tokens_details={"reasoning_tokens": 290}),
            DONE,
        )
        _, _, engine = run(reply, call(thinking_tokens=100))
        assert "290 tokens instead of 100" in engine.notes[0]


def extending(prefix: str, read: list[ot.Sample]) -> Any:
    async def strategy(session: ot.Session, request: ot.Request) -> ot.Verdict:
        async for sample in session.extend(request, prefix, n=1):
            read.append(sample)
        return ot.Verdict(read[0].answer if read else None, "")

    return strategy


class TestPrefixes:
    def test_a_server_known_not_to_continue_is_refused_before_anything_is_spent(self) -> None:
        with ChatServer(chat()) as server:
            engine = OpenAIEngine(server.url, "toy", memory=None, facts=Facts(prefix=False))
            with pytest.raises(ot.Unsupported, match="cannot continue a prefix"):
                asyncio.run(ot.ask("Hi", model=engine, strategy=extending("So ", [])))
            assert server.calls == []

    def test_a_thought_is_continued(self) -> None:
        """A server with a reasoning parser goes on in the channel of thought, then answers."""
        reply = stream(
            chunk(delta={"reasoning_content": " it is 4."}),
            chunk("The answer is 4."),
            chunk(finish="stop"),
            usage(9, 8),
            DONE,
        )
        read: list[ot.Sample] = []
        with ChatServer(reply) as server:
            engine = OpenAIEngine(server.url, "toy", memory=None)
            result = asyncio.run(
                ot.ask("2 + 2?", model=engine, answer="number", strategy=extending("<think>\nWait,", read))
            )
            assert server.calls[0].body["messages"][-1] == {"role": "assistant", "content": "<think>\nWait,"}
        assert result.answer == "4"
        assert (read[0].reasoning, read[0].text) == (" it is 4.", "The answer is 4.")


class TestJudgeOverHttp:
    def test_the_verdict_tokens_alternatives_arrive(self) -> None:
        from outthink.core.sample import Candidate
        from outthink.session.scoring import Asking
        from outthink.verifiers.judge import JudgeVerifier

        def entry(text: str, *top: tuple[str, float]) -> dict[str, Any]:
            return {**token(text, -0.1), "top_logprobs": [{"token": name, "logprob": value} for name, value in top]}

        reply = stream(
            chunk("Verdict", logprobs=[entry("Verdict")]),
            chunk(":", logprobs=[entry(":")]),
            chunk(" yes", logprobs=[entry(" yes", (" yes", -0.1), (" no", -2.4))]),
            chunk(finish="stop"),
            usage(50, 3),
            DONE,
        )
        with ChatServer(reply) as server:

            async def main() -> Any:
                asking = Asking(OpenAIEngine(server.url, "toy", memory=None), owned=True)
                verifier = JudgeVerifier(asking)
                try:
                    return await verifier.score(ot.Request.of("q"), [Candidate(("x",))])
                finally:
                    await verifier.aclose()

            (score,) = asyncio.run(main())
        assert score.steps[0] == pytest.approx(1 / (1 + 2.718281828 ** (0.1 - 2.4)))
        assert (score.prompt_tokens, score.completion_tokens) == (50, 3)

    def test_a_passing_failure_is_tried_again_and_half_a_reply_is_not(self) -> None:
        from outthink.session.calls import Retries
        from outthink.session.scoring import Asking

        def ask(*replies: Reply) -> tuple[Any, int]:
            with ChatServer(lambda seen: replies[min(seen.number, len(replies) - 1)]) as server:

                async def main() -> Any:
                    engine = OpenAIEngine(server.url, "toy", memory=None)
                    asking = Asking(engine, owned=True, retries=Retries(first=0.01))
                    try:
                        return await asking((Message("user", "Hi"),), Sampling(), 0)
                    except ot.EngineError as error:
                        return error
                    finally:
                        await asking.aclose()

                return asyncio.run(main()), len(server.calls)

        busy = whole({"error": {"message": "busy"}}, 503, retry_after="0")
        reply, calls = ask(busy, chat())
        assert (reply.text, reply.prompt_tokens, reply.completion_tokens, calls) == ("Hello world", 5, 2, 2)
        error, calls = ask(stream(chunk("Half")))
        assert isinstance(error, ot.EngineError)
        assert calls == 1


@pytest.mark.embedded
@needs_model
def test_the_embedded_engine_tells_for_sure() -> None:
    async def main() -> tuple[list[tuple[str, str | None]], tuple[str, ...]]:
        engine = EmbeddedEngine(threads=1)
        result = []
        try:
            for stops in (("3",), ("QQQ",)):
                wanted = Call(
                    (Message("user", "Write the numbers 1, 2, 3, 4, 5."),),
                    Sampling(max_tokens=40, temperature=0, stop=stops, reasoning_effort="low", thinking_tokens=0),
                )
                events = [event async for event in engine.generate(wanted)]
                finish = events[-1]
                assert isinstance(finish, Finish)
                result.append(("".join(item.text for item in events if isinstance(item, Delta)), finish.stop))
            return result, engine.notes
        finally:
            await engine.aclose()

    result, notes = asyncio.run(main())
    assert result[0][0].startswith("1, 2")
    assert [stop for _, stop in result] == ["3", ""]
    assert len(notes) == 1
    assert "reasoning_effort" in notes[0]
