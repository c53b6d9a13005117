"""Tokens, log-probabilities, confidences and finish reasons, by whatever the server tells."""

from __future__ import annotations

import math
from typing import Any

import pytest
from openai_runs import ask, deltas, finish, run, text, thought

from outthink.engines.openai import reading as logprobs
from outthink.engines.openai.reading import finish_reason
from outthink.http.usage import read_count as count
from support.chat_server import DONE, Hang, chat, chunk, event, stream, token, usage, whole


def timings(predicted: int, prompt: int = 3, **more: int) -> dict[str, Any]:
    return {"predicted_n": predicted, "prompt_n": prompt, **more}


def test_the_timings_of_llama_cpp_count_each_token_and_the_cache() -> None:
    reply = stream(
        chunk(delta={"role": "assistant", "content": None}),
        chunk("A", timings=timings(3, cache_n=24)),
        chunk("B", timings=timings(7, cache_n=24)),
        chunk(finish="stop"),
        DONE,
    )
    events, _, _ = run(reply)
    assert [(delta.tokens, delta.prompt_tokens) for delta in deltas(events)] == [(3, 27), (7, 27)]
    assert finish(events).completion_tokens == 7
    assert (finish(events).prompt_tokens, finish(events).cached_tokens) == (27, 24)


def test_without_the_cached_part_the_prompt_is_not_known() -> None:
    events, _, _ = run(stream(chunk("A", timings=timings(1)), chunk(finish="stop"), DONE))
    assert finish(events).prompt_tokens is None


def test_continuous_usage_of_vllm() -> None:
    def used(tokens: int) -> dict[str, int]:
        return {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}

    reply = stream(
        chunk(delta={"role": "assistant", "content": ""}, usage=used(0)),
        chunk("A", usage=used(2)),
        chunk("B", usage=used(5)),
        chunk(finish="stop", usage=used(6)),
        usage(9, 6, prompt_tokens_details={"cached_tokens": 8}),
        DONE,
    )
    events, _, _ = run(reply)
    assert [delta.tokens for delta in deltas(events)] == [None, 2, 5, 6]
    assert deltas(events)[0].prompt_tokens == 9
    assert (finish(events).completion_tokens, finish(events).cached_tokens) == (6, 8)


def test_stream_deltas_are_not_tokens() -> None:
    events, _, _ = run(chat(["A", "B"], counts=None))
    assert [delta.tokens for delta in deltas(events)] == [None, None]
    assert finish(events).completion_tokens is None
    assert finish(events).prompt_tokens is None


def test_entries_count_where_the_server_gives_nothing_else() -> None:
    reply = stream(
        chunk("AB", logprobs=[token("A"), token("B")]), chunk("C", logprobs=[token("C")], finish="stop"), DONE
    )
    events, _, _ = run(reply, ask(top_logprobs=0))
    assert [delta.tokens for delta in deltas(events)] == [2, 3]
    assert finish(events).completion_tokens == 3


def test_entries_with_gaps_are_no_count() -> None:
    reply = stream(chunk("A", logprobs=[token("A")]), chunk("B"), chunk(finish="stop"), DONE)
    events, _, _ = run(reply, ask(top_logprobs=0))
    assert finish(events).completion_tokens is None


@pytest.mark.parametrize(
    "told", [None, {}, {"completion_tokens": None}, {"completion_tokens": 0}, {"completion_tokens": -1}, "7"]
)
def test_usage_that_says_nothing(told: Any) -> None:
    events, _, _ = run(stream(chunk("A"), chunk(finish="stop", usage=told), DONE))
    assert finish(events).completion_tokens is None
    assert finish(events).prompt_tokens is None


def test_no_tokens_are_plausible_without_text() -> None:
    events, _, _ = run(stream(chunk(finish="stop"), usage(4, 0), DONE))
    assert finish(events).completion_tokens == 0


def test_usage_below_the_entries_is_not_believed() -> None:
    reply = stream(chunk("AB", logprobs=[token("A"), token("B")]), chunk(finish="stop"), usage(4, 1), DONE)
    assert finish(run(reply, ask(top_logprobs=0))[0]).completion_tokens == 2


def test_usage_above_the_entries_is_believed() -> None:
    reply = stream(chunk("AB", logprobs=[token("A"), token("B")]), chunk(finish="stop"), usage(4, 3), DONE)
    assert finish(run(reply, ask(top_logprobs=0))[0]).completion_tokens == 3


def test_deepseek_says_the_cached_part_elsewhere() -> None:
    reply = stream(chunk("A"), chunk(finish="stop"), usage(4, 1, prompt_cache_hit_tokens=2), DONE)
    assert finish(run(reply)[0]).cached_tokens == 2


def test_a_server_that_runs_past_the_cap_is_cut_off() -> None:
    pieces = [chunk(str(at), timings=timings(at)) for at in range(1, 20)]
    events, calls, _ = run(stream(*pieces[:6], 0.02, *pieces[6:], Hang()), ask(most=4))
    assert finish(events).finish_reason == "length"
    assert finish(events).completion_tokens == 5
    assert text(events) == "12345"
    assert calls[0].gone.wait(60)


def test_the_cap_itself_is_no_excess() -> None:
    pieces = [chunk(str(at), timings=timings(at)) for at in range(1, 5)]
    events, calls, _ = run(stream(*pieces, chunk(finish="length"), usage(3, 4), DONE), ask(most=4))
    assert text(events) == "1234"
    assert finish(events).finish_reason == "length"
    assert calls[0].sent


def test_a_completion_that_counts_its_end_too_is_no_excess() -> None:
    received = {"prompt_tokens": 3, "completion_tokens": 3}
    events, calls, _ = run(stream(chunk("AB"), chunk(finish="stop", usage=received), DONE), ask(most=2))
    assert finish(events).finish_reason == "stop"
    assert finish(events).completion_tokens == 3
    assert calls[0].sent


def test_confidences_are_minus_the_mean_of_the_alternatives() -> None:
    reply = stream(
        chunk("AB", logprobs=[token("A", -0.1, [-0.1, -2.0, -3.0]), token("B", -1.0, [-0.5, -1.0, -4.5, -9.0])]),
        chunk(finish="stop"),
        DONE,
    )
    events, calls, _ = run(reply, ask(top_logprobs=3))
    assert calls[0].body["top_logprobs"] == 3
    assert list(deltas(events)[0].logprobs) == [-0.1, -1.0]
    assert deltas(events)[0].confidences == pytest.approx([1.7, 2.0])


@pytest.mark.parametrize("asked", [0, 1])
def test_one_alternative_is_no_confidence(asked: int) -> None:
    reply = stream(chunk("A", logprobs=[token("A", -0.1, [-0.1, -2.0])]), chunk(finish="stop"), DONE)
    events, calls, _ = run(reply, ask(top_logprobs=asked))
    assert list(deltas(events)[0].confidences) == []
    assert calls[0].body["logprobs"] is True
    assert calls[0].body.get("top_logprobs") == (asked or None)


def test_no_log_probabilities_are_asked_for_unless_wanted() -> None:
    _, calls, engine = run(chat())
    assert "logprobs" not in calls[0].body
    assert engine.features.logprobs is None


@pytest.mark.parametrize("odd", [-math.inf, -9999.0, -1e30])
def test_values_that_mean_zero_probability_count_as_the_floor(odd: float) -> None:
    floor = logprobs.FLOOR
    assert logprobs.read_logprobs([token("A", odd, [0.0, odd])], 2) == ([floor], [-floor / 2], 2)


def test_values_that_are_missing_do_not_count() -> None:
    tokens = [token("A", None), {"token": "B"}, None, token("C", math.nan), token("D", -1.0)]
    assert logprobs.read_logprobs(tokens, 2) == ([-1.0], [], 0)
    assert logprobs.read_logprobs([token("A", -1.0, [-1.0, None, -3.0])], 3) == ([-1.0], [2.0], 3)
    assert logprobs.read_logprobs([token("A", -1.0, [-1.0, math.nan, -3.0])], 3) == ([-1.0], [2.0], 3)
    assert logprobs.read_logprobs([token("A", -1.0, [-1.0, None]), {"top_logprobs": [{}, {}]}], 2) == ([-1.0], [], 2)


def test_more_alternatives_than_asked_for() -> None:
    assert logprobs.read_logprobs([token("A", -9.0, [-9.0, -1.0, -3.0])], 2) == ([-9.0], [2.0], 3)


@pytest.mark.parametrize("odd", [None, [], {}, {"content": None}, {"content": "x"}, {"tokens": []}])
def test_log_probabilities_of_another_shape(odd: Any) -> None:
    assert list(logprobs.logprob_entries({"logprobs": odd})) == []


def test_a_server_without_log_probabilities_is_known_by_its_reply() -> None:
    events, _, engine = run(chat(), ask(top_logprobs=20))
    assert text(events) == "Hello world"
    assert (engine.features.logprobs, engine.features.top_logprobs) == (False, 0)


def test_fewer_alternatives_than_asked_are_the_most_there_are() -> None:
    reply = stream(chunk("A", logprobs=[token("A", -1.0, [-1.0] * 5)]), chunk(finish="stop"), DONE)
    assert run(reply, ask(top_logprobs=20))[2].features.top_logprobs == 5
    assert run(reply, ask(top_logprobs=5))[2].features.top_logprobs is None


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("EOS_TOKEN", "stop"),
        ("stop_sequence", "stop"),
        ("end_turn", "stop"),
        ("COMPLETE", "stop"),
        ("length", "length"),
        ("LENGTH", "length"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("tool-calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("SAFETY", "content_filter"),
        ("abort", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
        (7, "unknown"),
    ],
)
def test_finish_reasons_in_one_vocabulary(told: object, reason: str) -> None:
    assert finish_reason(told) == reason


@pytest.mark.parametrize(
    ("told", "is_"), [(3, 3), (3.0, 3), ("3", None), (True, None), (-1, None), (None, None), (math.nan, None)]
)
def test_counts_are_whole_numbers(told: object, is_: int | None) -> None:
    assert count(told) == is_


def test_a_null_finish_reason_at_the_end() -> None:
    events, _, _ = run(stream(chunk("A"), usage(3, 1), DONE))
    assert finish(events).finish_reason == "unknown"


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_apart(key: str) -> None:
    reply = stream(
        chunk(delta={"role": "assistant", "content": None, key: "Let me"}),
        chunk(delta={key: " think"}),
        chunk(delta={"content": "42", key: None}),
        chunk(finish="stop"),
        DONE,
    )
    events, _, _ = run(reply)
    assert (thought(events), text(events)) == ("Let me think", "42")


def test_typed_parts_of_mistral() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "42"}]
    events, _, _ = run(stream(chunk(delta={"content": parts}), chunk(finish="stop"), DONE))
    assert (thought(events), text(events)) == ("hm", "42")


def test_chunks_that_hold_nothing() -> None:
    odd = [
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"delta": None}]},
    ]
    events, _, _ = run(stream(*(event(value) for value in odd), chunk("A"), chunk(finish="stop"), DONE))
    assert len(events) == 2


def test_choices_that_were_not_asked_for() -> None:
    other = event({"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"}]})
    events, _, _ = run(stream(other, chunk("A"), other, chunk("B", finish="stop"), DONE))
    assert text(events) == "AB"


def test_a_server_that_does_not_stream() -> None:
    body = {
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "42", "reasoning_content": "hm"},
                "logprobs": {"content": [token("4", -1.0, [-1.0, -2.0]), token("2", -3.0, [-3.0, -5.0])]},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }
    events, _, _ = run(whole(body), ask(top_logprobs=2))
    (delta,) = deltas(events)
    assert (delta.text, delta.reasoning, list(delta.logprobs), list(delta.confidences)) == (
        "42",
        "hm",
        [-1, -3],
        [1.5, 4],
    )
    assert (finish(events).finish_reason, finish(events).prompt_tokens, finish(events).completion_tokens) == (
        "stop",
        7,
        3,
    )
