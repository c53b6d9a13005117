"""Recorded samples scored in pieces: a run that was ended goes on, and each score is that of one judgement alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import score_samples
from kept_scores import ScoreColumns, kept_scores, scores_file
from outthink import Request
from outthink.core.sample import Candidate
from outthink.training.base import BaseShape, build
from outthink.training.examples import encode_all
from outthink.verifiers.reward_model import RewardModelVerifier
from score_samples import RecordedSet, begun, score_set

pytest.importorskip("torch")
pytest.importorskip("transformers")

IDENTITY = {"set": "tiny", "verifier": "tiny", "temperature": 1.0}


class KilledAfter(Exception):
    """Stands for a signal."""


def test_a_killed_run_goes_on_and_scores_are_those_of_single_judgements(
    base: Path, recorded: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = tmp_path / "some--tiny.parquet"
    shutil.copyfile(recorded[0], samples)
    shutil.copyfile(recorded[1], tmp_path / "problems-tiny.parquet")
    data = RecordedSet.read(samples, "\n")
    blank = replace(data.solutions[5], steps=())  # a text without a visible character
    data = replace(data, solutions=[*data.solutions[:5], blank, *data.solutions[6:]])
    model, tokenizer = build(BaseShape(base=str(base)))
    path = scores_file("tiny", tmp_path)
    monkeypatch.setattr(score_samples, "PIECE", 20)
    write, asked = ScoreColumns.write, []

    def killed(columns: ScoreColumns, place: Path) -> None:
        write(columns, place)
        if columns.about["scored"] == 40:
            raise KilledAfter

    def encode(part: Any) -> Any:
        asked.append(len(part.solutions))
        return encode_all(part, tokenizer)

    monkeypatch.setattr(ScoreColumns, "write", killed)
    first = begun(path, data, IDENTITY)
    assert first is not None
    with pytest.raises(KilledAfter):
        score_set(first, path, data, model, encode, "cpu")
    monkeypatch.setattr(ScoreColumns, "write", write)
    asked.clear()
    second = begun(path, data, IDENTITY)
    assert second is not None
    score_set(second, path, data, model, encode, "cpu")
    assert sum(asked) == len(data.rows) - 40 - (5 not in data.order[:40])

    scores = kept_scores("tiny", tmp_path)
    assert len(scores) == len(data.rows) - 1
    verifier = RewardModelVerifier(model, tokenizer, "newline")
    for solution in data.solutions:
        if solution.steps:
            request = Request.of(data.questions[solution.problem_id])
            ((alone,),) = verifier.score_many([(request, [Candidate(solution.steps, None)])])
            logit, tokens = scores[solution.problem_id, solution.sample_idx]
            assert tokens == alone.prompt_tokens
            assert 1 / (1 + np.exp(-logit)) == pytest.approx(alone.steps[-1], abs=2e-3)
    assert begun(path, data, {**IDENTITY, "verifier": "another"}) is None
