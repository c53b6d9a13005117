"""Inside or outside of what was calibrated: questions, sets of them, and first samples."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.controller.policy.regime import PROBES, Regime
from outthink.controller.router.text import NAMES
from outthink.core.errors import BadInput
from outthink.evaluation.calibration.regime import regime_of
from outthink.evaluation.dataset import open_source
from support.samples import question, write_samples

LATEX = [rf"Evaluate $\int_0^{{{i}}} x^{{{i + 1}}} \, dx$ in terms of $\pi$ and $\sqrt{{{i + 2}}}$." for i in range(40)]


@pytest.fixture(scope="module")
def regime(tmp_path_factory: pytest.TempPathFactory) -> Regime:
    folder = tmp_path_factory.mktemp("regime")
    return regime_of(open_source(write_samples(folder, problems=range(60))))


def test_every_calibrated_question_is_inside(regime: Regime) -> None:
    assert [regime.outside(question(number), 25.0, "number") for number in range(60)] == [None] * 60


def test_nearly_every_new_question_of_the_kind_is_inside(regime: Regime) -> None:
    new = [question(number) for number in range(1000, 1400)]
    assert sum(regime.outside(text) is not None for text in new) <= 8
    for seed in range(20):
        assert regime.shifted(random.Random(seed).sample(new, 40)) is None


def test_other_questions_are_outside_one_by_one_and_together(regime: Regime) -> None:
    assert all(regime.outside(text) for text in LATEX)
    assert "another domain" in str(regime.shifted(LATEX))
    assert regime.shifted(LATEX[:5]) is None  # too few to tell


def test_one_question_of_many_lines_is_no_other_domain(regime: Regime) -> None:
    drawing = question(2000) + "\n" + "\n".join(f"draw(({i}, 0)--({i}, 9.5));" for i in range(150))
    assert regime.shifted([*(question(number) for number in range(1000, 1079)), drawing]) is None
    assert "another domain" in str(regime.shifted([question(number) + "\n" * 9 for number in range(1000, 1080)]))


def test_prompts_stand_in_where_questions_are_not_at_hand(regime: Regime, tmp_path: Path) -> None:
    assert regime.outside(None, 25.0) is None
    assert regime.outside(None, 300.0) == "a prompt of 300 tokens is outside the calibrated 16 to 36"
    assert regime.outside(None, None) is None
    assert regime.shifted_prompts([25.0] * 40) is None
    assert "other lengths" in str(regime.shifted_prompts([60.0] * 40))
    bare = regime_of(open_source(write_samples(tmp_path, questions=False)))
    assert bare.characters is None
    assert bare.outside(LATEX[0], 25.0) is None  # nothing is known of questions
    assert bare.outside(LATEX[0], 300.0) is not None


def test_the_kind_of_answer(regime: Regime) -> None:
    assert regime.answer == "number"
    assert "choice" in str(regime.outside(question(1), 25.0, "choice"))
    assert regime.outside(question(1), 25.0, len) is None


def test_first_samples(regime: Regime) -> None:
    assert regime.odd([70] * PROBES) is None
    assert regime.odd([700] * (PROBES - 1)) is None
    assert "a sample of 700 tokens on average" in str(regime.odd([700] * PROBES))


def test_round_trip(regime: Regime) -> None:
    assert Regime.of(json.loads(json.dumps(regime.json()))) == regime


def test_features_of_another_version_are_refused(regime: Regime) -> None:
    values = regime.json()
    values["mean"] = {"something else": 1.0}
    with pytest.raises(BadInput, match="other features"):
        Regime.of(values)


@given(st.lists(st.floats(-1e9, 1e9), min_size=len(NAMES), max_size=len(NAMES)))
def test_one_odd_feature_counts_at_most_so_much(features: list[float]) -> None:
    plain = Regime(mean=(0.0,) * len(NAMES), spread=(1.0,) * len(NAMES))
    assert 0 <= plain.far(features) <= 25
    assert plain.far([1e9] + [0.0] * (len(NAMES) - 1)) == 25 / len(NAMES)
