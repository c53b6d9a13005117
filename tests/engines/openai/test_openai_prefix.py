"""A repeated prefix is taken off, in every cut and with changed white space; nothing else is."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_runs import ask, collect, deltas, finish, run, text

from outthink.core.errors import EngineError
from outthink.engines.openai import Facts, OpenAIEngine
from outthink.engines.openai.reading import Stripper
from support.chat_server import ChatServer, chat, chunk, refusal, refusing, stream, usage, whole

LONG = "The capital of France is "


def strip(prefix: str, reply: str, cuts: list[int], repeats: bool | None = None) -> tuple[str, Stripper]:
    stripper = Stripper(prefix, repeats)
    places = [0, *sorted(min(cut, len(reply)) for cut in cuts), len(reply)]
    result = "".join(stripper.feed(reply[a:b]) for a, b in pairwise(places))
    return result + stripper.close(), stripper


@pytest.mark.parametrize(
    ("prefix", "reply", "new"),
    [
        (LONG, LONG + "Paris", "Paris"),
        (LONG, LONG.strip() + " Paris", "Paris"),
        (LONG, LONG.strip() + "Paris", "Paris"),
        (LONG.strip(), LONG.strip() + " Paris", " Paris"),
        ("\n\nSo far:\n- one\n", "So far:\n- one\n- two", "- two"),
        ("one\n\ntwo", "one\ntwo three", " three"),
        ("one two", "  one two three", " three"),
        (LONG, "Paris", "Paris"),
        (LONG, "The capital of Spain", "The capital of Spain"),
        (LONG, "The cap", "The cap"),
        (LONG, "", ""),
        (LONG, LONG, ""),
        (LONG, LONG.strip(), ""),
        ("  ", "  text", "  text"),
        ("1", "1", ""),
    ],
)
@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=6))
def test_new_text_only(prefix: str, reply: str, new: str, cuts: list[int]) -> None:
    assert strip(prefix, reply, cuts)[0] == new


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30), st.lists(st.integers(0, 60), max_size=5))
def test_a_repetition_leaves_what_follows(prefix: str, rest: str, cuts: list[int]) -> None:
    result, stripper = strip(prefix, prefix + rest, cuts)
    if prefix.strip():
        assert stripper.repeated
        assert result == rest
    else:
        assert result == prefix + rest


def test_a_server_known_not_to_repeat_may_write_a_short_prefix_again() -> None:
    assert strip("I", "I think", [], repeats=False)[0] == "I think"
    assert strip(LONG, LONG + "Paris", [], repeats=False)[0] == "Paris"


def test_text_is_not_held_back_longer_than_needed() -> None:
    stripper = Stripper(LONG, None)
    assert stripper.feed("The ") == ""
    assert stripper.feed("man") == "The man"
    assert stripper.feed(" who") == " who"


def continued(*texts: str, **more: Any) -> tuple[list[Any], list[Any], OpenAIEngine]:
    return run(chat(texts, **more), ask(prefix=LONG, most=8))


def test_the_request_for_a_continuation() -> None:
    events, calls, engine = continued("Paris", ".")
    assert text(events) == "Paris."
    assert calls[0].body["messages"][-1] == {"role": "assistant", "content": LONG}
    assert calls[0].body["continue_final_message"] is True
    assert calls[0].body["add_generation_prompt"] is False
    assert engine.facts.repeats is False


def test_a_repeated_prefix_is_taken_off_and_remembered() -> None:
    events, _, engine = continued("The capital of", " France is Paris", ".")
    assert text(events) == "Paris."
    assert engine.facts.repeats is True


def test_a_whole_reply_that_repeats_says_nothing_about_streams() -> None:
    answer = whole({"choices": [{"message": {"content": LONG + "Paris"}, "finish_reason": "stop"}]})
    events, _, engine = run(answer, ask(prefix=LONG), facts=Facts(repeats=False))
    assert text(events) == "Paris"
    assert engine.facts.repeats is False


def test_a_short_prefix_of_a_whole_reply_is_compared_anew() -> None:
    answer = whole({"choices": [{"message": {"content": "So, yes"}, "finish_reason": "stop"}]})
    assert text(run(answer, ask(prefix="So"), facts=Facts(repeats=False))[0]) == ", yes"


def test_held_text_comes_out_at_the_end() -> None:
    events, _, _ = continued("The cap", finish="length")
    assert text(events) == "The cap"
    assert finish(events).finish_reason == "length"


def test_tokens_of_held_text_are_counted() -> None:
    reply = stream(
        chunk("The capital of France", timings={"predicted_n": 1, "prompt_n": 9, "cache_n": 0}),
        chunk(" is Paris", timings={"predicted_n": 2}, finish="stop"),
        usage(9, 2),
    )
    events, _, _ = run(reply, ask(prefix=LONG))
    assert [delta.tokens for delta in deltas(events)] == [1, 2]
    assert text(events) == "Paris"


def test_the_flags_are_dropped_where_they_are_unknown() -> None:
    rules = {
        "continue_final_message": refusal("Unknown parameter: 'continue_final_message'"),
        "add_generation_prompt": refusal("Unknown parameter: 'add_generation_prompt'"),
    }
    events, calls, engine = run(refusing(rules, chat(["Paris"])), ask(prefix=LONG))
    assert text(events) == "Paris"
    assert len(calls) == 3
    assert engine.facts.refused == {"continue_final_message", "add_generation_prompt"}
    assert engine.notes == ()


def test_a_server_that_cannot_continue_says_so_once() -> None:
    answer = refusal("Assistant response prefill is incompatible with enable_thinking.")
    with ChatServer(answer) as server:
        engine = OpenAIEngine(server.url, "toy", memory=None)

        async def main() -> None:
            for _ in range(2):
                with pytest.raises(EngineError, match="cannot continue a partial answer") as caught:
                    await collect(engine, ask(prefix=LONG))
                assert caught.value.fatal
            await engine.aclose()

        asyncio.run(main())
        assert engine.features.prefix is False
        assert len(server.calls) == 1
