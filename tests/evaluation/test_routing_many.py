"""Routers over three models, through the command line and its functions."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.cli.main import main
from outthink.core.errors import BadInput
from outthink.evaluation.routing.data import ModelOutcomes, read_outcomes
from support.routing_rows import rows, write

MODELS = ("small", "middle", "big")
_CHANCES = {"proof": (0.05, 0.1, 0.9), "sum": (0.9, 0.92, 0.95), "poem": (0.1, 0.85, 0.9), "date": (0.1, 0.1, 0.12)}


def several(count: int, seed: int = 0, *, noise: bool = False) -> list[dict[str, Any]]:
    """The topic says which models are right: all for sums, the two larger for poems, the largest for proofs."""
    draw = random.Random(seed)
    result = []
    for row in rows(count, seed):
        chances = draw.choice(list(_CHANCES.values())) if noise else _CHANCES[row["subject"]]
        made = {"prompt": row["prompt"]}
        for place, (model, chance) in enumerate(zip(MODELS, chances, strict=True)):
            made |= {
                f"{model}_correct": draw.random() < chance,
                f"{model}_cost": 0.001 * 3**place * draw.uniform(0.8, 1.2),
            }
        result.append(made)
    return result


def test_models_go_from_cheap_to_dear_and_rows_are_checked(tmp_path: Path) -> None:
    table = several(20)
    for row in table:
        row["big_cost"], row["small_cost"] = row["small_cost"], row["big_cost"]
    path = write(tmp_path / "rows.parquet", table)
    data = read_outcomes(path)
    assert data.models == ("big", "middle", "small")
    assert data.right[:, 0].tolist() == [float(row["big_correct"]) for row in table]
    for change, part in (
        ({"middle_correct": None}, "neither true nor false"),
        ({"middle_cost": -1.0}, "no cost"),
        ({"prompt": " "}, "empty prompt"),
    ):
        with pytest.raises(BadInput, match=part):
            read_outcomes(write(tmp_path / "bad.parquet", [{**table[0], **change}, *table[1:]]))
    with pytest.raises(BadInput, match="middle_cost"):
        less = [{key: value for key, value in row.items() if key != "middle_cost"} for row in table]
        read_outcomes(write(tmp_path / "bad.parquet", less))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("several")
    write(folder / "train.parquet", several(300))
    write(folder / "test.parquet", several(200, seed=1))
    assert main(["router", "train", str(folder / "train.parquet"), "--out", str(folder / "router")]) == 0
    return folder


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["router", "eval", *map(str, arguments), "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_a_router_beats_every_mix_and_the_oracle_beats_it(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = evaluated(capsys, trained / "test.parquet", "--router", trained / "router")
    assert report["models"] == list(MODELS)
    assert report["paired_low"] > 0
    assert report["controls"]["random"]["auc_cost"] < report["auc_cost_low"]
    assert report["auc_cost"] < report["controls"]["oracle"]["auc_cost"]
    assert report["ece"] < 0.1
    middle = next(row for row in report["routes"] if (row["way"], row["parameter"]) == ("penalised", 0.3))
    assert all(share > 0.05 for share in middle["shares"])


def test_the_ends_are_the_single_models_cost_included(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = evaluated(capsys, trained / "test.parquet", "--router", trained / "router")
    ends = [row for row in report["routes"] if row["way"] == "smallest-likely" and row["parameter"] in (0.0, 1.0001)]
    for row, model in zip(ends, ("small", "big"), strict=True):
        assert (row["accuracy"], row["cost"]) == (report["accuracy"][model], report["cost"][model])


def test_a_stored_router_chooses_as_it_was_judged(trained: Path) -> None:
    from outthink.controller.router import load

    router = load(trained / "router")
    assert router.models == MODELS
    assert router.routing.way == "penalised"
    likely = router.at("smallest-likely=0.5")
    hard = likely.choose("Write a proof about the river, case 0-7.")
    easy = likely.choose("Write a sum about the river, case 0-7.")
    assert (easy.model, hard.model) == ("small", "big")
    assert hard.prediction.chances[0] < hard.prediction.chances[2]
    assert router.choose("x").prediction.flags[0].startswith("1 characters, trained on")


def test_noise_is_no_better_than_a_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    path = write(tmp_path / "noise.parquet", several(200, seed=3, noise=True))
    report = evaluated(capsys, path, "--cross-fit", "--folds", 3)
    assert report["paired_low"] < 0


def test_what_does_not_fit_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, part in (
        (("eval", trained / "train.parquet", "--router", trained / "router"), "were trained on"),
        (("eval", trained / "test.parquet"), "--router"),
        (("eval", trained / "test.parquet", "--cross-fit", "--subject"), "'subject' is empty in 200 of 200 rows"),
        (("eval", trained / "test.parquet", "--cross-fit", "--strong-share", "0.5"), "for a weak and a strong model"),
        (("eval", trained / "test.parquet", "--cross-fit", "--gold", trained / "x"), "weak_response"),
    ):
        capsys.readouterr()
        assert main(["router", *map(str, arguments)]) == 2
        assert part in capsys.readouterr().err


def test_areas_over_cost_are_those_worked_out_by_hand() -> None:
    from outthink.evaluation.routing.report import evaluate

    right = np.array([[1.0, 1.0], [0.0, 1.0]] * 20)
    costs = np.tile([1.0, 3.0], (40, 1))
    prompts = tuple(f"prompt {i}" for i in range(40))
    data = ModelOutcomes(name="made", models=("a", "b"), prompts=prompts, right=right, costs=costs)
    report = evaluate(data, right, router_ms=None, resamples=50)
    # Perfect knowledge: all right at half of the extra cost; a mix goes straight from 0.5 to 1.
    assert report["auc_cost"] == pytest.approx(0.5 * 0.75 + 0.5 * 1.0)
    assert report["controls"]["random"]["auc_cost"] == pytest.approx(0.75)
    assert report["controls"]["oracle"]["accuracy"] == 1.0
