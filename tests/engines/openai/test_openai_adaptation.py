"""Refused parameters are renamed, lowered or dropped, remembered, and the request goes out again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai_runs import ask, collect, deltas, run, text

from outthink.core.errors import EngineError
from outthink.core.request import Sampling
from outthink.engines.openai import Facts, OpenAIEngine
from outthink.engines.openai.body import adapt, body
from outthink.http.errors import ErrorBody
from support.chat_server import (
    DONE,
    ChatServer,
    Reply,
    Seen,
    chat,
    chunk,
    refusal,
    refusing,
    stream,
    token,
    whole,
)


def test_what_is_sent_by_default() -> None:
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=33, stop=("END",))
    _, calls, _ = run(chat(), ask("Hi", sampling=sampling, seed=11))
    assert calls[0].body == {
        "model": "toy",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 0,
        "min_p": 0.0,
        "max_tokens": 33,
        "timings_per_token": True,
        "seed": 11,
        "stop": ["END"],
    }
    assert "authorization" not in calls[0].headers


def test_optional_fields_are_left_out_where_the_call_has_none() -> None:
    sent = run(chat())[1][0].body
    assert not {"seed", "stop", "logprobs", "top_logprobs", "n", "continue_final_message"} & set(sent)


def unknown(name: str, **error: Any) -> Reply:
    return refusal(f"Unrecognized request argument supplied: {name}", **error)


NO_TEMPERATURE = "Unsupported value: 'temperature' does not support 0.8 with this model."
FORBIDDEN = {"type": "extra_forbidden", "loc": ["body", "top_k"], "msg": "Extra inputs are not permitted"}


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("top_k", unknown("top_k")),
        ("min_p", refusal("Unknown parameter: 'min_p'.", param="min_p", code="unknown_parameter")),
        ("timings_per_token", refusal("property 'timings_per_token' is unsupported")),
        ("stream_options", refusal("stream_options is not supported by this server")),
        ("seed", refusal("seed is not supported", param="seed")),
        ("temperature", refusal(NO_TEMPERATURE, param="temperature", code="unsupported_value")),
        ("top_p", refusal("Unsupported parameter: 'top_p' is not supported with this model.")),
        ("top_k", whole({"detail": [FORBIDDEN]}, 422)),
        ("min_p", whole({"object": "error", "message": "min_p is not allowed", "code": 400}, 400)),
        ("top_k", whole({"error": 'json: unknown field "top_k"'}, 400)),
    ],
)
def test_a_refused_parameter_is_dropped_at_once_and_for_good(name: str, reply: Reply) -> None:
    with ChatServer(refusing({name: reply}, chat(["fine"]))) as server:
        engine = OpenAIEngine(server.url, "toy", memory=None)

        async def main() -> list[str]:
            texts = [text(await collect(engine, ask(seed=1))) for _ in range(2)]
            await engine.aclose()
            return texts

        assert asyncio.run(main()) == ["fine", "fine"]
        assert len(server.calls) == 3
        assert name not in server.calls[-1].body
        assert name in engine.facts.refused


def test_the_notes_name_what_changes_the_sampling() -> None:
    _, _, engine = run(refusing({"top_k": unknown("top_k")}, chat()))
    (note,) = engine.notes
    assert note.startswith("top_k is not accepted by http://127.0.0.1")
    assert run(refusing({"timings_per_token": unknown("timings_per_token")}, chat()))[2].notes == ()


def test_the_vllm_part_of_the_stream_options_goes_first() -> None:
    rules = {"stream_options.continuous_usage_stats": unknown("stream_options.continuous_usage_stats")}
    _, calls, engine = run(refusing(rules, chat()))
    assert calls[-1].body["stream_options"] == {"include_usage": True}
    assert engine.facts.refused == {"continuous_usage_stats"}


def openai(seen: Seen) -> Reply:
    """A server as strict as OpenAI's own: one unknown parameter a refusal, and the new name for the cap."""
    for name in ("top_k", "min_p", "timings_per_token"):
        if name in seen.body:
            return refusal(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if "continuous_usage_stats" in seen.body.get("stream_options", {}):
        name = "stream_options.continuous_usage_stats"
        return refusal(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if "max_tokens" in seen.body:
        return refusal(
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )
    return chat(["fine"])


def test_a_strict_server_is_understood_after_its_second_refusal() -> None:
    events, calls, engine = run(openai)
    assert text(events) == "fine"
    assert len(calls) == 4
    assert engine.facts.refused == {"top_k", "min_p", "timings_per_token", "continuous_usage_stats"}
    assert calls[-1].body["max_completion_tokens"] == 64
    assert "max_tokens" not in calls[-1].body


def test_many_calls_at_once_learn_together() -> None:
    with ChatServer(openai) as server:
        engine = OpenAIEngine(server.url, "toy", memory=None)

        async def main() -> None:
            runs = await asyncio.gather(*(collect(engine, ask()) for _ in range(16)))
            assert [text(events) for events in runs] == ["fine"] * 16
            before = len(server.calls)
            await collect(engine, ask())
            assert len(server.calls) == before + 1
            await engine.aclose()

        asyncio.run(main())


def test_a_refusal_that_names_nothing_drops_the_extensions() -> None:
    rules = {name: refusal("Extra inputs are not permitted") for name in ("top_k", "min_p", "timings_per_token")}
    events, calls, _ = run(refusing(rules, chat(["fine"])))
    assert text(events) == "fine"
    assert len(calls) == 2


@pytest.mark.parametrize(
    "message",
    ["top_k must be -1 (disable), or at least 1, got 0.", "top_k must be greater than 0", "top_k should be >= 1"],
)
def test_servers_whose_top_k_is_switched_off_by_minus_one(message: str) -> None:
    def answer(seen: Seen) -> Reply:
        return refusal(message) if seen.body.get("top_k") == 0 else chat(["fine"])

    events, calls, engine = run(answer)
    assert text(events) == "fine"
    assert calls[-1].body["top_k"] == -1
    assert engine.notes == ()
    assert run(chat(), ask(sampling=Sampling(top_k=40)), facts=Facts(top_k_off=-1))[1][0].body["top_k"] == 40


def test_minus_one_may_be_refused_too() -> None:
    events, calls, _ = run(refusing({"top_k": refusal("top_k must be >= 1")}, chat(["fine"])))
    assert text(events) == "fine"
    assert [call.body.get("top_k") for call in calls] == [0, -1, None]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_cap_whose_value_is_bad_is_not_renamed(name: str) -> None:
    with pytest.raises(EngineError, match="too large") as caught:
        run(refusal(f"{name} is too large: 100000. This model supports at most 16384 completion tokens", param=name))
    assert caught.value.fatal


def test_both_names_of_the_cap_refused() -> None:
    rules = {name: refusal(f"Unsupported parameter: '{name}'") for name in ("max_tokens", "max_completion_tokens")}
    with ChatServer(refusing(rules, chat())) as server:
        engine = OpenAIEngine(server.url, "toy", memory=None)
        with pytest.raises(EngineError, match="max_completion_tokens"):
            asyncio.run(collect(engine, ask()))
        assert len(server.calls) == 2


def entries(count: int) -> Reply:
    return stream(chunk("A", logprobs=[token("A", -1.0, [-1.0] * count)]), chunk(finish="stop"), DONE)


def limited(limit: int, message: str) -> Any:
    def answer(seen: Seen) -> Reply:
        asked = seen.body.get("top_logprobs", 0)
        return refusal(message) if asked > limit else entries(asked)

    return answer


@pytest.mark.parametrize(
    ("limit", "message", "asked"),
    [
        (5, "top_logprobs must be less than or equal to 5", [20, 5]),
        (10, "Requested sample logprobs of 20, which is greater than max allowed: 10", [20, 10]),
        (8, "top_logprobs: ensure this value is between 0 and 8", [20, 8]),
        (5, "top_logprobs is out of range", [20, 5]),
        (0, "top_logprobs is out of range", [20, 5, None]),
        (0, "top_logprobs is not supported", [20, None]),
    ],
)
def test_too_many_alternatives_are_lowered(limit: int, message: str, asked: list[int | None]) -> None:
    events, calls, engine = run(limited(limit, message), ask(top_logprobs=20))
    assert [call.body.get("top_logprobs") for call in calls] == asked
    assert all(call.body["logprobs"] for call in calls)
    assert engine.features.top_logprobs == limit
    assert engine.features.logprobs is True
    assert len(deltas(events)[0].confidences) == (1 if limit else 0)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "logprobs is not supported by this model"),
        (501, "logprobs are not implemented: logprobs"),
        (500, "logprobs is not supported for models created with logits_all=False"),
    ],
)
def test_no_log_probabilities_at_all(status: int, message: str) -> None:
    events, calls, engine = run(refusing({"logprobs": refusal(message, status)}, chat(["fine"])), ask(top_logprobs=20))
    assert text(events) == "fine"
    assert len(calls) == 2
    assert not {"logprobs", "top_logprobs"} & set(calls[-1].body)
    assert (engine.features.logprobs, engine.features.top_logprobs) == (False, 0)


def test_a_server_that_refuses_to_stream() -> None:
    answer = whole({"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]})
    events, calls, _ = run(refusing({"stream": refusal("streaming is not supported")}, answer))
    assert text(events) == "fine"
    assert not {"stream", "stream_options"} & set(calls[-1].body)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("temperature must be at most 1", ""),
        ("stop is not supported", "stop"),
        ("messages: unknown role", "messages"),
        ("Invalid JSON", ""),
        ("unsupported model", "model"),
    ],
)
def test_refusals_that_nothing_can_be_done_about(message: str, param: str) -> None:
    with ChatServer(refusal(message, param=param)) as server:
        engine = OpenAIEngine(server.url, "toy", memory=None)
        with pytest.raises(EngineError, match=message.split()[0]) as caught:
            asyncio.run(collect(engine, ask(sampling=Sampling(stop=("x",)))))
        assert caught.value.fatal
        assert len(server.calls) == 1


def test_a_server_error_about_nothing_in_particular_is_not_adapted_to() -> None:
    with pytest.raises(EngineError) as caught:
        run(refusal("internal error near top_k", 500))
    assert not caught.value.fatal


def test_a_server_that_always_refuses_is_asked_a_bounded_number_of_times() -> None:
    sent = [str(name) for name in body(ask(seed=1, top_logprobs=20), "toy", Facts())]

    def answer(seen: Seen) -> Reply:
        name = next((name for name in sent if name in seen.body and name not in ("model", "messages")), "messages")
        return refusal(f"Unknown parameter: '{name}'", param=name)

    with ChatServer(answer) as server:
        engine = OpenAIEngine(server.url, "toy", memory=None)
        with pytest.raises(EngineError):
            asyncio.run(collect(engine, ask(seed=1, top_logprobs=20)))
        assert len(server.calls) <= 10


def test_the_first_parameter_in_the_text_is_the_one_blamed() -> None:
    facts = Facts()
    sent = body(ask(seed=1), "toy", facts)
    assert adapt(ErrorBody("unknown field min_p; known are temperature, seed, stream_options"), sent, facts)
    assert facts.refused == {"min_p"}


def test_words_that_only_contain_a_name_are_not_blamed() -> None:
    facts = Facts()
    assert not adapt(ErrorBody("reseed the cluster: no seedling"), body(ask(seed=1), "toy", facts), facts)
