"""Chunks read together say what they say one by one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp")

from outthink.core.request import Message, Sampling
from outthink.engines.openai.reading import CompletionParser
from outthink.engines.protocol import Call, Delta
from outthink.serving.chat.calls import RawChoice, join_text

ENTRY = st.builds(
    lambda text, value: {"token": text, "logprob": value, "top_logprobs": []},
    st.text(max_size=3),
    st.floats(-5, 0),
)
TEXT = st.builds(
    lambda text, entries: {
        "choices": [
            {
                "index": 0,
                "delta": {"content": text},
                "finish_reason": None,
                "logprobs": None if entries is None else {"content": entries},
            }
        ]
    },
    st.text(max_size=4),
    st.none() | st.lists(ENTRY, max_size=2),
)
OTHER = st.sampled_from(
    [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"index": 0, "delta": {"content": "a", "unknown": 1}}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "more": 1}]},
        {"choices": [{"index": 1, "delta": {"content": "other"}}]},
        {"choices": [{"index": 0, "delta": {"content": None}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "1"}}]}}]},
        {"choices": [{"index": 0, "delta": {"content": "b"}}], "usage": {"completion_tokens": 3, "prompt_tokens": 2}},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"completion_tokens": 9, "prompt_tokens": 2}},
        {"choices": "odd"},
        {},
    ]
)


def told(chunks: list[dict[str, Any]], asked: int | None) -> tuple[Any, ...]:
    """What a sample and the engine have read when all is over."""
    choice, sampling = RawChoice(), Sampling(max_tokens=10_000)
    reading = CompletionParser(Call((Message("user", "?"),), sampling, top_logprobs=asked))
    deltas: list[Delta] = []
    for chunk in chunks:
        choice.add(chunk)
        if (delta := reading.take(chunk)) is not None:
            deltas.append(delta)
    whole = Delta.of(deltas)
    text = (
        ("", "", [], [])
        if whole is None
        else (
            whole.text,
            whole.reasoning,
            list(whole.logprobs),
            list(whole.confidences),
        )
    )
    message = choice.message(text[0])
    return text, message, choice.logprobs, choice.finish, choice.more, reading.finish(), reading.counts.tokens


@given(st.lists(TEXT | OTHER, max_size=12), st.sampled_from([None, 0]))
def test_merged_chunks_say_the_same(chunks: list[dict[str, Any]], asked: int | None) -> None:
    before = copy.deepcopy(chunks)
    fewer, count = join_text(chunks)
    assert chunks == before
    assert len(fewer) <= len(chunks)
    assert told(fewer, asked) == told(before, asked)
    assert count <= len(chunks)


def test_a_run_of_text_is_one_chunk() -> None:
    chunks = [{"choices": [{"index": 0, "delta": {"content": letter}, "finish_reason": None}]} for letter in "abc"]
    fewer, count = join_text(chunks)
    assert [item["choices"][0]["delta"]["content"] for item in fewer] == ["abc"]
    assert count == 3
