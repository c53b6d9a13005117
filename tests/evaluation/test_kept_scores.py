"""The verifier's scores that the repository ships: whole, of the shipped verifier, and made from the recorded sets."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common import RECORDED, ROOT, traces
from kept_scores import digest, kept_scores, read_columns, scores_file
from outthink import BadInput
from outthink.evaluation.sample_file import SampleFile
from outthink.training.examples import read_questions

SHIPPED = json.loads((ROOT / "data" / "verifiers" / "smollm2-135m-gsm8k" / "verifier.json").read_text())


def test_all_files_together_are_small() -> None:
    assert sum(scores_file(name).stat().st_size for name in RECORDED) <= 5_000_000


@pytest.mark.parametrize("name", RECORDED)
def test_every_sample_has_one_score(name: str) -> None:
    columns, scores = read_columns(scores_file(name)), kept_scores(name)
    problems, each = (1000, 33) if name.startswith("GSM8K") else (300, 65)
    assert Counter(problem for problem, _ in scores) == dict.fromkeys(columns.problem.tolist(), each)
    assert len(scores) == len(columns.value) == problems * each
    assert {number for _, number in scores} == set(range(each))
    assert (columns.value.dtype, columns.tokens.dtype) == (np.float16, np.uint16)
    assert np.isfinite(columns.value).all()
    assert columns.tokens.min() > 0
    assert columns.tokens.max() <= SHIPPED["max_context"]
    told = {"verifier": SHIPPED["id"]} | {name: SHIPPED[name] for name in ("aggregation", "temperature", "parameters")}
    assert {name: columns.about[name] for name in told} == told


@pytest.mark.parametrize("name", RECORDED)
def test_scores_are_those_of_the_recorded_samples(name: str) -> None:
    path = traces().get(name)
    if path is None:
        pytest.skip("needs the larger recorded sets (OUTTHINK_TRACES)")
    questions = read_questions(path.with_name(f"problems-{path.stem.rpartition('--')[2]}.parquet"), path)
    rows = SampleFile(path).samples()
    columns = read_columns(scores_file(name))
    assert list(zip(columns.problem.tolist(), columns.sample.tolist(), strict=True)) == [
        (key, sample.index) for key, sample in rows
    ]
    given = digest((key, sample.index, questions[key], sample.text) for key, sample in rows)
    assert given == columns.about["digest"]


def test_what_is_not_scored_to_its_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        kept_scores("MATH 0.5B", tmp_path)
    columns = read_columns(scores_file("MATH 0.5B"))
    half = replace(columns, about={**columns.about, "scored": 8_000})
    half.write(scores_file("MATH 0.5B", tmp_path))
    with pytest.raises(BadInput, match="holds 8,000 of 19,500 samples"):
        kept_scores("MATH 0.5B", tmp_path)
    columns.write(scores_file("MATH 0.5B", tmp_path))
    assert kept_scores("MATH 0.5B", tmp_path) == kept_scores("MATH 0.5B")
