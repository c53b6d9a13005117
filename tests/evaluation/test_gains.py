"""Gains measured on recorded samples, and accuracy by cap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from outthink.controller.allocation import State, assumed_gain
from outthink.core.errors import BadInput
from outthink.core.sample import Sample
from outthink.engines.traces import Recorded, Traces
from outthink.evaluation.gains import accuracy_by_cap, courses, measure_gains, table_of


def sample(index: int, answer: str | None, tokens: int = 100, logprob: float | None = None) -> Sample:
    return Sample(index, "", answer, "boxed", tokens, prompt_tokens=10, mean_logprob=logprob)


def recorded(name: str, answers: list[str | None], right: set[str], tokens: list[int] | None = None) -> Recorded:
    lengths = tokens or [100] * len(answers)
    samples = [sample(i, answer, n) for i, (answer, n) in enumerate(zip(answers, lengths, strict=True), start=1)]
    return Recorded(name, samples, None, right)


def traces(*problems: Recorded) -> Traces:
    return Traces(Path("toy--made.parquet"), {problem.problem: problem for problem in problems})


def test_courses_are_what_replay_would_count() -> None:
    toy = traces(recorded("p", ["1", "1", "2", None], {"1"}))
    result = courses(toy, ["p"], orders=3)
    for order in range(3):
        votes = [item.answer for item in toy.problems["p"].dealt(order)]
        for n, state in enumerate(result.states[0][order]):
            drawn = votes[:n]
            counts = sorted((drawn.count(name) for name in ("1", "2")), reverse=True)
            assert state == State(n, *counts, None)
    assert result.right[0, :, 4].tolist() == [1.0, 1.0, 1.0]
    assert result.right[0, :, 0].tolist() == [0.0, 0.0, 0.0]


def test_what_never_helps_gains_less_than_what_does() -> None:
    """Where two samples disagree more of them settle it; where they agree nothing changes any more."""
    rng = np.random.default_rng(0)
    problems = []
    for i in range(300):
        if i % 2:
            problems.append(recorded(f"easy{i}", ["7"] * 8, {"7"}))
        else:
            answers = [str(rng.choice(["1", "2", "3"], p=[0.6, 0.25, 0.15])) for _ in range(8)]
            problems.append(recorded(f"open{i}", answers, {"1"}))
    table = measure_gains([traces(*problems)], orders=2)
    assert table.gain(State(2, 1, 1, None)) > 0.02 > table.gain(State(2, 2, 0, None)) >= 0
    assert table.gain(State(8, 4, 4, None)) == 0
    assert table.at_most == 8


def test_a_few_problems_leave_the_assumption_in_place() -> None:
    few = traces(*(recorded(f"p{i}", ["1", "2", "1", "1"], {"1"}) for i in range(3)))
    table = measure_gains([few])
    ratio = table.gain(State(2, 1, 1, None)) / assumed_gain(State(2, 1, 1, None))
    assert ratio == pytest.approx(table.slope, rel=0.25)


def test_certainty_tells_states_apart_where_it_is_recorded() -> None:
    problems = []
    for i in range(400):
        sure = i % 2 == 0
        answers = ["1", "1", "1", "1"] if sure else ["2", "1", "1", "1"]
        samples = [
            sample(k, answer, logprob=-0.1 if sure or answer == "1" else -2.0) for k, answer in enumerate(answers, 1)
        ]
        problems.append(Recorded(f"p{i}", samples, None, {"1"}))
    file = traces(*problems)
    table = measure_gains([file], orders=2)
    assert table.gain(State(1, 1, 0, -2.0)) > 2 * table.gain(State(1, 1, 0, -0.1))
    assert table_of(courses(file, list(file.problems)), range(400), confidence=False).edges == ()


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(BadInput, match="no correct answer"):
        measure_gains([traces(recorded("p", ["1", "2"], set()))])
    with pytest.raises(BadInput, match="no sampled"):
        measure_gains([traces(recorded("p", [], {"1"}))])
    with pytest.raises(BadInput, match="no sampled"):
        measure_gains([])


def test_a_sample_longer_than_the_cap_has_no_answer() -> None:
    toy = traces(recorded("p", ["1", "2", "2"], {"2"}, [50, 200, 200]), recorded("q", ["1"] * 3, {"1"}, [50] * 3))
    accuracy = accuracy_by_cap(toy, branches=(1, 3), caps=(100, 300))
    assert accuracy(3, 300) == 1.0
    assert accuracy(3, 100) == accuracy(3, 299) == 0.5
    assert accuracy(2, 100) == accuracy(1, 100)
    assert accuracy(3, 50) == 0.0
    repeated = accuracy_by_cap(toy, branches=(3, 3), caps=(100, 300, 100))
    assert (repeated(3, 300), repeated(3, 100)) == (1.0, 0.5)
    with pytest.raises(BadInput, match="branches"):
        accuracy_by_cap(toy, branches=(4,), caps=(100,))
