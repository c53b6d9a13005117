"""What a reply's counts are worth: totals, parts beside their whole, zeros beside text, and more text after them."""

from __future__ import annotations

from typing import Any

import pytest

from outthink.http.usage import UNKNOWN, ReplyUsage, Usage, read_count, read_usage


def details(reasoning: int) -> dict[str, Any]:
    return {"completion_tokens_details": {"reasoning_tokens": reasoning}}


@pytest.mark.parametrize(
    ("told", "prompt", "completion"),
    [
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135, **details(94)}, 32, 103),
        ({"prompt_tokens": 32, "completion_tokens": 103, "total_tokens": 135, **details(94)}, 32, 103),
        ({"prompt_tokens": 32, "completion_tokens": 9, **details(94)}, 32, 103),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 41, **details(4)}, 32, 9),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 12}, 32, 9),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 0}, 32, 9),
        ({"input_tokens": 7, "output_tokens": 2, "total_tokens": 30}, 7, 23),
        ({"prompt_tokens": 0, "completion_tokens": 9, "total_tokens": 41}, 32, 9),
        ({"prompt_tokens": 0, "completion_tokens": 9, "total_tokens": 9}, None, 9),
        ({"prompt_tokens": 5, "total_tokens": 17}, 5, 12),
        ({"prompt_tokens": 5, "total_tokens": 5}, 5, 0),
        ({"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 100}}, 105, 3),
        ({"prompt_tokens": 5.0, "completion_tokens": 3.0}, 5, 3),
        ({"prompt_tokens": 1, "completion_tokens": 1, "input_tokens": 5, "output_tokens": 3}, 5, 3),
        ({"prompt_tokens": 5, "completion_tokens": 3, "input_tokens": 1, "output_tokens": "9"}, 5, 3),
        ({"prompt_tokens": 5, "completion_tokens": "3"}, 5, None),
        ({}, None, None),
    ],
)
def test_the_total_counts_where_it_is_larger(told: dict[str, Any], prompt: int | None, completion: int | None) -> None:
    usage = read_usage(told)
    assert (usage.prompt, usage.completion) == (prompt, completion)


@pytest.mark.parametrize("odd", [True, -1, 1.5, "3", None, [], {}, 1e16, float("nan"), float("inf")])
def test_what_is_no_count(odd: Any) -> None:
    assert read_count(odd) is None


def delta(text: str | None = None, *, used: int | None = None, **more: Any) -> dict[str, Any]:
    told = {} if used is None else {"usage": {"prompt_tokens": 5, "completion_tokens": used, "total_tokens": 5 + used}}
    return {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, **more}], **told}


@pytest.mark.parametrize(
    ("chunks", "total"),
    [
        ([delta("a"), delta("b"), {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}], 2),
        ([delta(used=0), delta("a", used=1), delta("b", used=2)], 2),
        ([delta("a", used=1), delta("b")], None),
        ([delta("a", used=1), delta("b"), delta("c", used=3)], 3),
        ([delta("a", used=1), delta("", finish_reason="stop")], 1),
        ([delta(used=0), delta("a")], None),
        ([delta("a"), delta(used=0)], None),
        ([delta(used=0)], 0),
        ([delta("a")], None),
        ([delta("a", used=3), delta(used=1)], None),
        ([delta("a", used=3), delta("b"), delta(used=0)], None),
        ([delta("a", used=used) for used in (5, 3, 7)], None),
        ([delta("a", used=used) for used in (5, 3, 7)] + [delta(used=15)], 15),
        ([delta("a", used=1), delta("b", used=1), delta("c", used=1)], None),
        ([delta("a", used=1), delta("b", used=1), delta("c", used=1), delta(used=1)], None),
        ([delta("a", used=1), delta("half", used=1), delta("c", used=2)], 2),
        ([delta("a", used=9), delta(used=10), delta(used=2)], None),
        ([delta("a", used=2), {**delta("b"), "timings": {"predicted_n": 3, "prompt_n": 3, "cache_n": 2}}], 3),
        ([delta("a", used=1), {"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}], None),
        ([delta("a", used=1), {"choices": [{"text": "b"}]}], None),
        ([delta("a", used=1), {"type": "response.output_text.delta", "delta": "b"}], None),
        ([{"choices": [{"message": {"content": "a"}}], "usage": None, "timings": {"predicted_n": 2}}], None),
        ([{"choices": [], "timings": {"predicted_n": 2, "prompt_n": 3, "cache_n": 2}}], 2),
        ([{"type": "x", "response": {"usage": {"input_tokens": 5, "output_tokens": 4}, "output": [1]}}], 4),
        ([{**delta("a", used=3), "response": {"usage": {"input_tokens": 1, "output_tokens": 1}}}], 3),
        ([{"choices": [{"message": {"content": {"usage": {"completion_tokens": 1}}}}]}], None),
    ],
)
def test_counts_that_cover_what_came(chunks: list[dict[str, Any]], total: int | None) -> None:
    usage = ReplyUsage()
    for chunk in chunks:
        usage.add(chunk)
    known = usage.total()
    assert (known.completion if known.prompt is not None else None) == total


def test_nothing_told_is_unknown() -> None:
    assert ReplyUsage().total() == UNKNOWN == Usage()
