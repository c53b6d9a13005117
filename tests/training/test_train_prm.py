"""Training end to end on a tiny base: it learns, goes on after a kill, and its artefact scores as it did."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from outthink import BadInput, Request
from outthink.cli.main import main
from outthink.core.sample import Candidate
from outthink.training.base import BaseShape, active_parameters, build, compress
from outthink.training.examples import Targets, encode_all, read_solutions
from outthink.training.judgement import probabilities, step_logits
from outthink.training.loop import TrainingSettings
from outthink.training.prm import TrainingPlan, train_prm
from outthink.verifiers.reward_model import open_reward_model
from verifier_figures import load_verifier

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture
def plan(base: Path, recorded, tmp_path: Path) -> TrainingPlan:
    samples, problems, steps = recorded
    return TrainingPlan(
        samples=samples,
        problems=problems,
        steps=steps,
        out=tmp_path / "verifier",
        holdout=0.25,
        targets=Targets("steps"),
        shape=BaseShape(base=str(base)),
        settings=TrainingSettings(epochs=8, lr=5e-3, batch_tokens=600, micro_tokens=300, device="cpu", save_seconds=0),
    )


def weights(folder: Path):
    model, _, _ = load_verifier(folder)
    return {name: value.numpy() for name, value in model.state_dict().items()}


def test_it_learns_and_says_how_well(plan: TrainingPlan) -> None:
    said: list[str] = []
    history = train_prm(plan, say=said.append)
    losses = [point["loss"] for point in history["curve"] if "loss" in point]
    assert losses[-1] < losses[0] / 2
    held = history["held_out"]
    assert held["auc"] > 0.9
    assert held["step_auc"] > 0.9
    weighted = [row for row in held["votes"] if row["method"] == "weighted" and row["n"] == 4]
    assert weighted[0]["accuracy"] >= 0.8
    described = json.loads((plan.out / "verifier.json").read_text())
    assert (described["kind"], described["format"], described["adapter"]) == ("process", "newline", False)
    assert any("held out" in line for line in said)
    assert not (plan.out / "checkpoint.pt").exists()


def test_a_killed_run_ends_as_if_nothing_had_happened(plan: TrainingPlan, tmp_path: Path) -> None:
    short = replace(plan, settings=replace(plan.settings, epochs=2, rank_weight=0.5))
    train_prm(short, say=lambda line: None)
    cut = replace(short, out=tmp_path / "cut")
    for steps in (3, 7):
        train_prm(replace(cut, settings=replace(cut.settings, max_steps=steps)), say=lambda line: None)
        assert (cut.out / "checkpoint.pt").exists()
        assert not (cut.out / "verifier.json").exists()
    said: list[str] = []
    train_prm(cut, say=said.append)
    assert "going on after step 7" in said
    whole, resumed = weights(short.out), weights(cut.out)
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


def test_another_run_is_not_continued_and_nothing_is_overwritten(plan: TrainingPlan) -> None:
    first = replace(plan, settings=replace(plan.settings, max_steps=1))
    train_prm(first, say=lambda line: None)
    with pytest.raises(BadInput, match="another run"):
        train_prm(replace(plan, settings=replace(plan.settings, lr=1e-4)), say=lambda line: None)
    (plan.out / "checkpoint.pt").write_bytes(b"broken")
    with pytest.raises(BadInput, match="damaged"):
        train_prm(plan, say=lambda line: None)
    pytest.importorskip("torch").save([1], plan.out / "checkpoint.pt")
    with pytest.raises(BadInput, match="another run"):
        train_prm(plan, say=lambda line: None)
    (plan.out / "verifier.json").write_text("{}")
    with pytest.raises(BadInput, match="holds a verifier"):
        train_prm(plan, say=lambda line: None)


@pytest.mark.parametrize("layers", [None, 2])
def test_an_adapter_scores_as_the_model_did(plan: TrainingPlan, base: Path, layers: int | None) -> None:
    pytest.importorskip("peft")
    shape = replace(plan.shape, rank=4, layers=layers)
    train_prm(replace(plan, shape=shape, settings=replace(plan.settings, epochs=1)), say=lambda line: None)
    described = json.loads((plan.out / "verifier.json").read_text())
    assert described["adapter"] is True
    model, tokenizer, artefact = load_verifier(plan.out)
    assert model.config.num_hidden_layers == (layers or 3)
    bare, _ = build(replace(shape, rank=None))
    assert artefact.parameters == active_parameters(bare) == active_parameters(model)
    size = sum(path.stat().st_size for path in plan.out.iterdir() if "adapter_model" in path.name)
    assert size < 60_000
    config = json.loads((plan.out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    collection = read_solutions(plan.samples, plan.problems)
    logits = step_logits(model, encode_all(collection, tokenizer), device="cpu")
    opened = open_reward_model(plan.out, device="cpu")
    some = [collection.solutions[i] for i in (0, 5, 9)]
    for item, expected in zip(some, (logits[0], logits[5], logits[9]), strict=True):
        request = Request.of(collection.questions[item.problem_id])
        (score,) = asyncio.run(opened.score(request, [Candidate(item.steps)]))
        np.testing.assert_allclose(score.steps, probabilities(expected, artefact.temperature), atol=1e-4)
    assert opened.parameters == artefact.parameters
    ranked = [float(probabilities(steps)[-1]) for steps in logits]
    right = [score for score, s in zip(ranked, collection.solutions, strict=True) if s.correct]
    wrong = [score for score, s in zip(ranked, collection.solutions, strict=True) if not s.correct]
    assert np.mean(right) > np.mean(wrong)


def test_a_difference_of_full_rank_is_the_full_fine_tune(base: Path, recorded) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    samples, problems, _ = recorded
    shape = BaseShape(base=str(base))
    trained, tokenizer = build(shape)
    torch.manual_seed(1)
    with torch.no_grad():
        for part in trained.modules():
            if isinstance(part, torch.nn.Linear):
                part.weight += 0.05 * torch.randn(part.weight.shape[0], 2) @ torch.randn(2, part.weight.shape[1])
    examples = encode_all(read_solutions(samples, problems, limit=3), tokenizer)
    wanted = step_logits(trained, examples, device="cpu")
    shares = {}
    for rank in (1, 2):
        small, shares[rank] = compress(trained, shape, rank)
        result = np.concatenate(step_logits(small, examples, device="cpu"))
        same = np.allclose(result, np.concatenate(wanted), atol=1e-3)
        assert same == (rank == 2)  # what was added has rank 2
    assert 0.4 < shares[1] < 0.95
    assert shares[2] > 0.999


def test_scores_do_not_depend_on_the_batch_or_on_what_follows(base: Path, recorded) -> None:
    samples, problems, _ = recorded
    model, tokenizer = build(BaseShape(base=str(base)))
    examples = encode_all(read_solutions(samples, problems, limit=6), tokenizer)
    together = step_logits(model, examples, device="cpu", micro=5000)
    alone = step_logits(model, examples, device="cpu", micro=1)
    for first, second in zip(together, alone, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-4)


def test_without_steps_it_is_an_outcome_model(plan: TrainingPlan) -> None:
    outcome = replace(plan, steps=None, targets=Targets("last"), settings=replace(plan.settings, epochs=1))
    history = train_prm(outcome, say=lambda line: None)
    assert json.loads((plan.out / "verifier.json").read_text())["kind"] == "outcome"
    assert "step_auc" not in history["held_out"]


def test_the_verb(base: Path, recorded, tmp_path: Path, capsys) -> None:
    samples, problems, steps = recorded
    files = ["--samples", str(samples), "--problems", str(problems), "--steps", str(steps), "--base", str(base)]
    out = tmp_path / "verifier"
    flags = ["--tiny", "--epochs", "1", "--device", "cpu", "--out", str(out)]
    assert main(["train", "prm", *files, *flags]) == 0
    assert "wrote" in capsys.readouterr().out
    assert main(["train", "prm", *files, *flags]) == 2
    assert "holds a verifier already" in capsys.readouterr().err


def test_another_training_under_the_same_name_is_another_verifier(plan: TrainingPlan, tmp_path: Path) -> None:
    # Scores are kept by the verifier's id: those of the first would be taken for the second's.
    ids = []
    for place, lr in enumerate((1e-3, 1e-3, 2e-3)):
        out = tmp_path / str(place) / "mine"
        train_prm(replace(plan, out=out, settings=replace(plan.settings, lr=lr, epochs=1)), say=lambda line: None)
        ids.append(open_reward_model(out, device="cpu").id)
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]
    assert ids[0].startswith("mine-newline-seed")


def test_a_smoke_test_is_small_however_much_was_recorded(base: Path, tmp_path: Path, capsys) -> None:
    rows = [
        {"problem_id": f"p{problem}", "sample_idx": index, "text": f"sum\n{index}", "correct": index % 2 == 0}
        for problem in range(50)
        for index in range(1, 65)
    ]
    problems = [{"problem_id": f"p{problem}", "question": "?", "answer": "7"} for problem in range(50)]
    for name, table in (("samples", rows), ("problems", problems)):
        parquet.write_table(pa.Table.from_pylist(table), tmp_path / f"{name}.parquet")
    files = ["--samples", str(tmp_path / "samples.parquet"), "--problems", str(tmp_path / "problems.parquet")]
    flags = ["--tiny", "--epochs", "1", "--device", "cpu", "--base", str(base), "--out", str(tmp_path / "verifier")]
    assert main(["train", "prm", *files, *flags]) == 0
    assert "192 solutions of 24 problems to learn from" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--base", "nowhere/at/all"], "--base"),
        (["--layers", "9", "--full"], "--layers"),
        (["--epochs", "0"], "--epochs"),
        (["--lora", "0"], "--lora"),
        (["--holdout", "0"], "--holdout"),
        (["--device", "warp"], "--device"),
        (["--delta", "4"], "--delta"),
    ],
)
def test_refusals_of_the_verb(base: Path, recorded, tmp_path: Path, capsys, flags, part, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    samples, problems, _ = recorded
    files = ["--samples", str(samples), "--problems", str(problems), "--base", str(base), "--out", str(tmp_path / "v")]
    assert main(["train", "prm", *files, *flags]) == 2
    assert part in capsys.readouterr().err
