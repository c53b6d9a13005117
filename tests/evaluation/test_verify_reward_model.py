"""Bulk scoring with a reward model in a folder: full batches over many problems, the same scores as one by one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from outthink.controller.verifier import open_verifier
from outthink.core.request import Request
from outthink.evaluation.dataset import Problems
from outthink.evaluation.sample_file import SampleFile
from outthink.evaluation.verify import candidate, verify
from support.judges import write_problems, write_samples
from support.tiny_models import tiny_model, tiny_tokenizer

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "tiny-prm"
    tokenizer = tiny_tokenizer("<|endoftext|>")
    tiny_model("TokenClassification", tokenizer).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def test_many_problems_a_batch_give_the_scores_of_one_at_a_time(folder, tmp_path) -> None:
    samples = SampleFile(write_samples(tmp_path / "toy--sums.parquet", problems=4, samples=5))
    problems = Problems.read(write_problems(tmp_path / "problems.parquet", problems=4))
    verifier, out = open_verifier(str(folder)), tmp_path / "scored.parquet"
    report = asyncio.run(verify(samples, problems, verifier, out))
    assert report.unscored.total() == 1  # the empty text
    alone = open_verifier(str(folder))
    for (problem, sample), result in zip(samples.samples(), report.judged, strict=True):
        if result.score is None:
            continue
        request = Request.of(problems.question(problem), problem=problem)
        (score,) = asyncio.run(alone.score(request, [candidate(sample, alone)]))
        assert result.steps == pytest.approx(score.steps, abs=1e-4)
        assert len(result.steps or ()) == sample.index + 1
        assert result.tokens == score.prompt_tokens
        assert result.score == pytest.approx(score.value(verifier.aggregation), abs=1e-4)
    assert set(parquet.read_table(out)["verifier"].to_pylist()) == {verifier.id}


def test_a_text_that_is_too_long_is_null_and_costs_nobody_else(folder, tmp_path) -> None:
    path = write_samples(tmp_path / "toy--sums.parquet", problems=1, samples=120)  # 512 tokens: about 100 lines
    problems = Problems.read(write_problems(tmp_path / "problems.parquet", problems=1))
    samples = SampleFile(path)
    report = asyncio.run(verify(samples, problems, open_verifier(str(folder)), tmp_path / "scored.parquet"))
    unscored = [place for place, item in enumerate(report.judged) if item.score is None]
    assert unscored[0] == 0
    assert unscored[1:] == list(range(unscored[1], 120))
    assert 60 < unscored[1] < 110
    assert any("512 at most" in reason for reason in report.unscored)
