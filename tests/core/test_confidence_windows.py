"""Window arithmetic of DeepConf against the definition, written down naively."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.core.sample import ConfidenceTrace, Progress


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


token_confidences = st.lists(st.floats(0, 20), min_size=1, max_size=60)


@given(token_confidences, st.integers(1, 70))
def test_token_windows_are_plain_sliding_means(values: list[float], window: int) -> None:
    trace = ConfidenceTrace(values, 1, len(values))
    groups = [mean(values[i : i + window]) for i in range(len(values) - window + 1)] or [mean(values)]
    assert trace.mean() == pytest.approx(mean(values))
    assert trace.tail(window) == pytest.approx(mean(values[-window:]))
    assert trace.groups(window) == pytest.approx(groups, abs=1e-9)
    assert trace.lowest(window) == pytest.approx(min(groups), abs=1e-9)
    assert trace.bottom(window) == pytest.approx(mean(sorted(groups)[: max(1, len(groups) // 10)]), abs=1e-9)


@given(token_confidences, st.integers(1, 16))
def test_chunk_means_give_the_mean_over_tokens(values: list[float], stride: int) -> None:
    chunks = [mean(values[i : i + stride]) for i in range(0, len(values), stride)]
    trace = ConfidenceTrace(chunks, stride, len(values))
    assert trace.mean() == pytest.approx(mean(values))


@given(token_confidences, st.integers(1, 4))
def test_the_tail_in_chunks_is_the_tail_in_tokens(values: list[float], window: int) -> None:
    stride = 4
    chunks = [mean(values[i : i + stride]) for i in range(0, len(values), stride)]
    covered = stride * (window - 1) + (len(values) - stride * (len(chunks) - 1))
    trace = ConfidenceTrace(chunks, stride, len(values))
    assert trace.tail(window * stride) == pytest.approx(mean(values[-covered:]))


@pytest.mark.parametrize("figure", ["tail", "lowest", "bottom"])
def test_a_trace_shorter_than_the_window_uses_its_whole_mean(figure: str) -> None:
    trace = ConfidenceTrace((1.0, 2.0, 6.0), 16, 40)  # the last chunk holds 8 tokens
    assert getattr(trace, figure)(2048) == pytest.approx((16 * 1 + 16 * 2 + 8 * 6) / 40)


def test_figures_do_not_depend_on_which_was_asked_first() -> None:
    values = tuple(float(i % 7) for i in range(50))
    one, other = ConfidenceTrace(values, 16, 800), ConfidenceTrace(values, 16, 800)
    first = (one.lowest(64), one.bottom(64), one.lowest(128), one.mean())
    last = (other.mean(), other.lowest(128), other.bottom(64), other.lowest(64))
    assert first == last[::-1]


def test_a_running_window_is_none_until_it_is_full() -> None:
    progress = Progress(0, 32, [1.0, 3.0], 16, ("so", " far"))
    assert progress.window(48) is None
    assert progress.window(32) == 2.0
    assert progress.window(16) == 3.0
    assert progress.text == "so far"
