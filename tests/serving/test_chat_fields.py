"""A chat's body becomes a question, or one refusal that names a field of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("aiohttp")

from outthink.core.errors import BadInput
from outthink.http.fields import decode
from outthink.serving.admission import Limits
from outthink.serving.chat.question import ChatFields, Question, RequestOptions, read_question
from outthink.serving.failure import Failure, failure_of

HELLO = [{"role": "user", "content": "Hello"}]
CHANGE = "change it or leave it out"
FLAG = "is neither true nor false; send one of them or leave it out"
SEED = f"is no whole number from {-(2**63)} to {2**63 - 1}; {CHANGE}"
HUGE = 10**400


def read(**fields: Any) -> Question:
    return read_question({"model": "outthink/auto", "messages": HELLO, **fields}, RequestOptions(), Limits())


def refusal(body: dict[str, Any]) -> Failure | None:
    try:
        read_question(body, RequestOptions(), Limits())
    except (BadInput, Failure) as error:
        return failure_of(error)
    return None


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"temperature": 101}, f"temperature: 101 is no number from 0 to 100; {CHANGE}"),
        ({"temperature": "1"}, f"temperature: '1' is no number from 0 to 100; {CHANGE}"),
        ({"temperature": True}, f"temperature: True is no number from 0 to 100; {CHANGE}"),
        ({"temperature": float("nan")}, f"temperature: nan is no number from 0 to 100; {CHANGE}"),
        ({"min_p": -0.5}, f"min_p: -0.5 is no number from 0 to 1; {CHANGE}"),
        ({"top_k": 2.0}, f"top_k: 2.0 is no whole number from -1 to 1000000000; {CHANGE}"),
        ({"top_k": -2}, f"top_k: -2 is no whole number from -1 to 1000000000; {CHANGE}"),
        ({"seed": 2**63}, f"seed: {2**63} {SEED}"),
        ({"seed": "x"}, f"seed: 'x' {SEED}"),
        ({"seed": False}, f"seed: False {SEED}"),
        ({"logprobs": True, "top_logprobs": 21}, f"top_logprobs: 21 is no whole number from 0 to 20; {CHANGE}"),
        ({"logprobs": 1}, f"logprobs: 1 {FLAG}"),
        ({"stream": "yes"}, f"stream: 'yes' {FLAG}"),
        ({"stream_options": []}, "stream_options: [] is no object; send {'include_usage': true} or leave it out"),
        ({"reasoning_effort": 3}, "reasoning_effort: 3 is no text; use low, medium or high"),
        ({"n": 129}, f"n: 129 is no whole number from 1 to 128; {CHANGE}"),
        ({"max_tokens": "many"}, f"max_tokens: 'many' is no whole number from 1 to 1000000000; {CHANGE}"),
        ({"options": {"num_predict": 0}}, f"options.num_predict: 0 is no whole number from 1 to 1000000000; {CHANGE}"),
        ({"messages": [3]}, "messages[0]: 3 has no role; use {'role': 'user', 'content': '...'}"),
        (
            {"messages": [*HELLO, {"role": "user", "content": [1]}]},
            "messages[1].content: [1] is neither text nor parts; send text",
        ),
    ],
)
def test_one_line_names_the_field_the_value_and_the_remedy(fields: dict[str, Any], line: str) -> None:
    refused = refusal({"model": "outthink/auto", "messages": HELLO, **fields})
    assert refused is not None
    assert (refused.status, refused.code, refused.message) == (400, "invalid_value", line)
    assert refused.param == line.partition(":")[0]


def test_values_as_servers_read_them() -> None:
    question = read(temperature=1, top_k=-1, n="3", max_tokens="7.0", max_completion_tokens=9, user={"any": HUGE})
    sampling = question.request.sampling
    assert (sampling.temperature, sampling.top_k, sampling.max_tokens, question.choices) == (1.0, 0, 7, 3)
    assert isinstance(sampling.temperature, float)
    assert question.extra == {"user": {"any": HUGE}}
    assert read(logprobs=True, top_logprobs=3).own.top_logprobs == 3
    assert read(top_logprobs="ignored without logprobs").own.top_logprobs is None
    assert read(stream=True, stream_options={"include_usage": 1}).own.usage


@pytest.mark.parametrize("name", [*ChatFields.__annotations__, "n", "stop", "max_tokens", "tools", "response_format"])
def test_null_is_as_if_left_out(name: str) -> None:
    question, plain = read(**{name: None}), read()
    assert (question.request, question.own, question.choices) == (plain.request, plain.own, plain.choices)


ODD = st.sampled_from(
    (
        *("NaN", "Infinity", "1e400", "-0", "-0.0", str(HUGE), str(2**63), "1.0", '"3"', '" 3 "', '"\\ud800"', "true"),
        *("[" * 400 + "]" * 400, '{"a":' * 400 + "1" + "}" * 400, '{"\\ud800": 1}', '["a", ""]', "{}"),
        '{"type": "json_schema"}',
    )
)
VALUE = ODD | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
).map(json.dumps)
NAMES = (*ChatFields.__annotations__, "messages", "n", "stop", "max_tokens", "options", "tools", "response_format")
PAIRS = st.lists(st.tuples(st.sampled_from((*NAMES, "user", "self", "\\ud800")), VALUE), max_size=4)


@pytest.mark.parametrize("reader", [decode, json.loads])
@settings(max_examples=150, deadline=None)
@given(pairs=PAIRS)
def test_a_body_is_a_question_or_one_refusal(reader: Callable[[bytes], Any], pairs: list[tuple[str, str]]) -> None:
    told = [("model", '"outthink/auto"'), ("messages", json.dumps(HELLO)), *pairs]  # names may come twice
    try:
        body = reader(("{" + ", ".join(f'"{name}": {value}' for name, value in told) + "}").encode())
    except ValueError:  # refused before, as no JSON
        return
    refused = refusal(body)
    if refused is not None:
        assert refused.status == 400
        assert refused.param is not None
        assert refused.param.partition(".")[0].partition("[")[0] in {*NAMES, "prompt"}
        assert "\n" not in refused.message
