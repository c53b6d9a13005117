"""The cost of a step: its formula, its fit to measured steps, its files, and what is kept for a GPU."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink import BadInput
from outthink.economics.step_fit import nonnegative
from outthink.economics.step_profile import (
    SCHEMA,
    StepProfile,
    newest_profile,
    store_profile,
    stored_path,
    stored_profiles,
)

STAIRS = ((0.0, 0.01), (8.0, 0.01), (8.0, 0.02), (16.0, 0.02), (16.0, 0.03), (32.0, 0.05))
PROFILE = StepProfile(base=STAIRS, per_sequence=1e-4, per_context=1e-7, per_prefill=1e-5)
ABOUT = {"gpu": "H100 SXM", "model": "llama", "engine": "vllm 0.11", "date": "2026-02-01"}
numbers = st.floats(0, 1e6)


@st.composite
def profiles(draw: st.DrawFn) -> StepProfile:
    """Any whose knots do not fall."""
    size = draw(st.integers(1, 6))
    tokens, costs = (sorted(draw(st.lists(numbers, min_size=size, max_size=size))) for _ in range(2))
    slopes = {name: draw(st.floats(0, 1e3)) for name in ("per_sequence", "per_context", "per_prefill")}
    return StepProfile(
        base=tuple(zip(tokens, costs, strict=True)),
        **slopes,
        unit=draw(st.sampled_from(["seconds", "joules"])),
        chunk=draw(st.integers(1, 10**6)),
        concurrency=draw(st.integers(1, 10**6)),
        gpu=draw(st.none() | st.text()),
        date=draw(st.none() | st.dates().map(str)),
        measured=draw(st.booleans()),
        error=draw(st.none() | numbers),
    )


def test_a_step_costs_what_its_parts_cost() -> None:
    assert PROFILE.cost(8, 1000, 0) == pytest.approx(0.01 + 8e-4 + 1e-4)
    assert PROFILE.cost(8, 1000, 4) == pytest.approx(0.02 + 8e-4 + 1e-4 + 4e-5)
    assert PROFILE.fixed(24) == pytest.approx(0.04)  # halfway between two knots
    assert PROFILE.fixed(48) == pytest.approx(0.07)  # the last slope goes on
    assert [PROFILE.fixed(tokens) for tokens in (8, 8.001, 16, 16.001)] == pytest.approx([0.01, 0.02, 0.02, 0.03], 1e-2)
    one = replace(PROFILE, base=((5.0, 0.5),))
    assert [one.fixed(tokens) for tokens in (0, 5, 500)] == [0.5] * 3
    assert replace(PROFILE, base=STAIRS[:5]).fixed(99) == 0.03  # a stair is no slope
    assert list(PROFILE.table(17)) == [PROFILE.fixed(tokens) for tokens in range(18)]


@given(profiles(), st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=5))
def test_arrays_cost_what_their_numbers_do(profile: StepProfile, steps: list[tuple[float, float, float]]) -> None:
    together = profile.cost(*np.array(steps).T)
    assert list(together) == [profile.cost(*step) for step in steps]


@given(profiles(), st.tuples(numbers, numbers, numbers), st.integers(0, 2), numbers)
def test_more_of_anything_never_costs_less(
    profile: StepProfile, step: tuple[float, float, float], place: int, more: float
) -> None:
    larger = [value + more * (place == at) for at, value in enumerate(step)]
    least = profile.cost(*step)
    assert profile.cost(*larger) >= least * (1 - 1e-9)


@settings(deadline=None)  # the first reads the validator, too
@given(profiles())
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, profile: StepProfile) -> None:
    path = tmp_path_factory.mktemp("profiles") / "p.json"
    profile.save(path)
    assert StepProfile.load(path) == profile
    assert json.loads(path.read_text())["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema": "outthink.step-profile/2"}, "p.json: schema: 'outthink.step-profile/2' is not outthink"),
        ({"schema": None}, "schema: None is not"),
        ({"per_contexts": 1}, "per_contexts' is not known; did you mean per_context?"),
        ({"base": ...}, "base: None is missing"),
        ({"per_context": -1}, "p.json: per_context: -1"),
        ({"per_prefill": float("nan")}, "p.json: per_prefill: .* is no number"),
        ({"base": []}, r"p.json: base: \[\] has no knots"),
        ({"base": [[8, 1], [4, 1]]}, r"p.json: base\[1\]\[0\]: 4.0 is below the knot before"),
        ({"base": [[8, -1]]}, r"p.json: base\[0\]\[1\]: -1"),
        ({"base": [[8]]}, r"p.json: base\[0\]"),
        ({"chunk": 0}, "p.json: chunk: 0 is no whole number above 0"),
        ({"concurrency": 2.5}, "p.json: concurrency: 2.5 is no whole number"),
        ({"judge": 0}, "p.json: judge: 0"),
        ({"unit": "hours"}, "p.json: unit: 'hours' is not known"),
        ({"date": "20260101"}, "p.json: date: '20260101' is no day"),
        ({"error": -0.1}, "p.json: error"),
    ],
)
def test_a_bad_file_is_told_by_its_field(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    path = tmp_path / "p.json"
    values = {name: value for name, value in {**PROFILE.to_json(), **change}.items() if value is not ...}
    path.write_text(json.dumps(values))
    with pytest.raises(BadInput, match=told):
        StepProfile.load(path)


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", None])
def test_a_file_that_is_none_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "p.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=r"p\.json"):
        StepProfile.load(path)
    with pytest.raises(BadInput, match="cannot be written"):
        PROFILE.save(tmp_path / "none" / "p.json")


def test_profiles_are_kept_by_gpu_and_the_newest_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTTHINK_STATE", str(tmp_path))
    first = replace(PROFILE, **ABOUT)
    assert newest_profile("H100 SXM", "llama") is None
    later = [
        replace(first, date="2026-03-01", chunk=1),
        replace(first, date="2026-03-01", chunk=2),
        replace(first, engine="sglang"),
        replace(first, model="qwen", date="2026-04-01"),
        replace(first, unit="joules", date="2026-05-01"),
    ]
    for each in [later[1], first, *later]:
        path = store_profile(each)
    assert path == stored_path("h100 sxm") == tmp_path / "step-profiles" / "h100-sxm.json"
    assert len(stored_profiles("H100 SXM")) == 7
    assert newest_profile("H100 SXM", "llama") == later[1]
    assert newest_profile("H100 SXM", "llama", "sglang") == later[2]
    assert newest_profile("H100 SXM", "llama", unit="joules") == later[4]
    assert newest_profile("H100 SXM", "gemma") is newest_profile("A10", "llama") is None
    assert stored_path("../../etc/4 x A/B").parent == path.parent
    with pytest.raises(BadInput, match="engine"):
        store_profile(replace(first, engine=None))
    for damaged, told in (("{}", "is no list"), ('[{"schema": 1}]', r"\[0\]: schema")):
        path.write_text(damaged)
        with pytest.raises(BadInput, match=told):
            newest_profile("H100 SXM", "llama")


def measured(profile: StepProfile, seed: int = 0, rows: int = 400) -> np.ndarray:
    """Steps as a server would run them, at their exact cost."""
    draw = np.random.default_rng(seed)
    sequences = draw.integers(1, 65, rows)
    contexts, read = (
        sequences * draw.integers(10, 2000, rows),
        draw.integers(0, 512, rows) * draw.integers(0, 2, rows),
    )
    return np.column_stack([sequences, contexts, read, profile.cost(sequences, contexts, read)])


def costs_of(profile: StepProfile) -> list[float]:
    """Those that a fit finds beside the base."""
    return [profile.per_sequence, profile.per_context, profile.per_prefill]


def test_a_fit_finds_the_costs_again() -> None:
    true = replace(PROFILE, base=((0.0, 0.01),))
    fitted = StepProfile.fit(measured(true), **ABOUT, chunk=256)
    assert costs_of(fitted) == pytest.approx(costs_of(true), 1e-6)
    assert fitted.fixed(1) == pytest.approx(0.01)
    assert (fitted.error, fitted.measured, fitted.gpu, fitted.chunk) == (
        pytest.approx(0, abs=1e-9),
        True,
        "H100 SXM",
        256,
    )
    stairs = replace(PROFILE, base=STAIRS[:5])
    fitted = StepProfile.fit(measured(stairs), buckets=[8, 16, 64])
    assert fitted.base == pytest.approx(np.array(stairs.base), rel=1e-6)


def test_rows_far_off_hardly_move_a_fit() -> None:
    true = replace(PROFILE, base=((0.0, 0.01),))
    rows, draw = measured(true, rows=2000), np.random.default_rng(1)
    rows[:, 3] *= draw.lognormal(0, 0.02, 2000)
    late = draw.random(2000) < 0.1
    rows[late, 3] *= draw.uniform(2, 20, int(late.sum()))
    fitted = StepProfile.fit(rows)
    assert fitted.cost(32, 32_000, 100) == pytest.approx(true.cost(32, 32_000, 100), rel=0.01)
    assert 0.01 < (fitted.error or 0) < 0.02


def test_a_row_of_almost_no_cost_hardly_moves_a_fit() -> None:
    true = replace(PROFILE, base=((0.0, 0.01),))
    rows = measured(true)
    rows[7, 3] = 1e-6  # seen by a client that was late for the step before
    assert StepProfile.fit(rows).cost(32, 32_000, 100) == pytest.approx(true.cost(32, 32_000, 100), rel=0.01)


def test_what_does_not_vary_costs_nothing_of_its_own() -> None:
    rows = [[4, context, 0, 0.01 + 1e-6 * context] for context in (100, 200, 400, 800)]
    fitted = StepProfile.fit(rows)
    assert costs_of(fitted) == pytest.approx([0, 1e-6, 0])
    assert fitted.fixed(4) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("rows", "buckets", "told"),
    [
        ([[1, 2, 3, 0.1], [2, 3, 4, 0.1], [3, 5, 9, 0.2]], (), "3 are fewer than the 4 unknowns"),
        ([[1, 2, 0.1]], (), "four columns"),
        ([["a"]], (), "no table of numbers"),
        ([[1, 2, 3, 0.0]], (), r"rows\[0\] cost: 0.0"),
        ([[1, -2, 3, 1.0]], (), r"rows\[0\] contexts: -2.0"),
        ([[1, 2, float("nan"), 1.0]], (), r"rows\[0\] prefill: nan"),
        ([[1, 2, 3, 0.1]], (8, 4), "buckets"),
    ],
)
def test_what_cannot_be_fitted_is_told(rows: Any, buckets: tuple[float, ...], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        StepProfile.fit(rows, buckets=buckets)


@given(st.integers(0, 10**6), st.integers(1, 5), st.booleans())
def test_non_negative_least_squares_find_the_best_of_all_subsets(seed: int, size: int, twice: bool) -> None:
    draw = np.random.default_rng(seed)
    matrix, wanted = draw.normal(size=(8, size)), draw.normal(size=8)
    if twice:
        matrix[:, -1] = matrix[:, 0]
    best = float(np.linalg.norm(wanted))
    for count in range(1, size + 1):
        for chosen in map(list, combinations(range(size), count)):
            x = np.linalg.lstsq(matrix[:, chosen], wanted)[0]
            if x.min() >= 0:
                best = min(best, float(np.linalg.norm(matrix[:, chosen] @ x - wanted)))
    found = nonnegative(matrix, wanted)
    assert found.min() >= 0
    assert np.linalg.norm(matrix @ found - wanted) == pytest.approx(best, abs=1e-9)


def test_its_words_say_what_was_measured() -> None:
    told = StepProfile(**{**asdict(PROFILE), **ABOUT, "measured": True, "error": 0.031}).told
    assert told.startswith("steps of H100 SXM, llama, vllm 0.11, 2026-02-01 (measured, median error 3.1%), chunk 512")
    assert PROFILE.told.startswith("steps of an unnamed server (modelled), chunk 512")
