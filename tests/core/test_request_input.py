"""Requests and sampling parameters: what is refused, and that nothing is lost on the way."""

from __future__ import annotations

import time
from typing import Any

import pytest

from outthink import BadInput, Message, Request, Sampling


@pytest.mark.parametrize("prompt", ["", "  \n", [], [{"role": "user", "content": "   "}], [{"role": "user"}]])
def test_an_empty_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(BadInput, match="is empty"):
        Request.of(prompt)


def test_a_system_message_does_not_make_up_for_an_empty_question() -> None:
    with pytest.raises(BadInput, match="prompt"):
        Request.of(" ", system="You are brief.")


def test_parts_other_than_text_are_a_prompt() -> None:
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    assert Request.of([{"role": "user", "content": image}]).messages[0].content == image


def test_the_system_message_comes_first_and_unknown_fields_survive() -> None:
    request = Request.of([{"role": "user", "content": "Hi", "name": "ada"}], system="Be brief.")
    assert [message.wire() for message in request.messages] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi", "name": "ada"},
    ]


def test_a_message_without_a_role_is_refused() -> None:
    with pytest.raises(BadInput, match="role"):
        Request.of([{"content": "Hi"}])


def test_an_unknown_answer_kind_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"number, math, choice, json, text"):
        Request.of("Hi", answer="poem")


def test_a_function_is_an_answer_kind() -> None:
    assert Request.of("Hi", answer=str.strip).answer == str.strip


def test_min_tokens_below_one_are_refused() -> None:
    with pytest.raises(BadInput, match="min_tokens"):
        Request.of("Hi", min_tokens=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 2.0),
        ("max_tokens", 0),
    ],
)
def test_sampling_out_of_range_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(BadInput, match=field):
        Sampling(**{field: value})  # type: ignore[arg-type]


def test_greedy_changes_the_temperature_and_nothing_else() -> None:
    request = Request(messages=(Message("user", "Hi"),), sampling=Sampling(temperature=0.7, max_tokens=9), seed=4)
    assert request.greedy.sampling == Sampling(temperature=0.0, max_tokens=9)
    assert request.greedy.seed == 4
    assert request.greedy.messages is request.messages


def test_a_long_value_is_shortened_in_the_message() -> None:
    assert len(str(BadInput("prompt", "x" * 5000, "is bad", "shorten it"))) < 250


@pytest.mark.parametrize(
    "value",
    ["\n" * 30_000_000, ["a"] * 900_000, [[["a"] * 90] * 90] * 90, [["\n" * 300] * 300] * 300, {"a" * 30_000_000: 1}],
    ids=["text", "list", "nested", "texts", "name"],
)
def test_a_long_value_takes_no_time_to_be_refused(value: Any) -> None:
    began = time.thread_time()
    assert len(str(BadInput("prompt", value, "is bad", "shorten it"))) < 250
    assert time.thread_time() - began < 0.02


def test_a_value_that_is_refused_is_shown_by_both_ends() -> None:
    assert str(BadInput("stop", list(range(900)), "is bad", "shorten it")).startswith("stop: [0, 1, 2, 3, 4, 5,")
    assert str(BadInput("stop", list(range(900)), "is bad", "shorten it")).endswith("898, 899] is bad; shorten it")
    assert str(BadInput("stop", {"a": [1, None, "b"]}, "is bad", "shorten it")) == (
        "stop: {'a': [1, None, 'b']} is bad; shorten it"
    )
