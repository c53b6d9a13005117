"""Training and judging routers, through the command line and its functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.cli.main import main
from support.routing_rows import rows, write

pytest.importorskip("sklearn")

from outthink.controller.router import load
from outthink.evaluation.routing.corpus import Corpus
from outthink.evaluation.routing.data import read_outcomes
from outthink.evaluation.routing.training import ONE_ANSWER, fit

KEYS = {
    *("n", "weak", "strong", "apgr", "apgr_low", "apgr_high", "cpt50", "cpt50_low", "cpt50_high", "cpt80", "cpt80_low"),
    *("cpt80_high", "auc_cost", "ece", "router_ms", "paired_low", "paired_high", "controls", "operating_point"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    write(folder / "train.parquet", rows(400))
    write(folder / "test.parquet", rows(300, seed=1))
    assert main(["router", "train", str(folder / "train.parquet"), "--out", str(folder / "router")]) == 0
    return folder


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["router", *map(str, arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.strip().splitlines()) == 1
    return shown.err


def test_eval_prints_one_object_with_the_contracts_keys(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["router", "eval", str(trained / "test.parquet"), "--router", str(trained / "router"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) >= KEYS
    assert set(report["controls"]) == {"random", "length", "weak", "strong", "oracle"}
    assert report["n"] == 300
    assert report["apgr_low"] > 0.6, "the topic says which model is right"
    assert report["paired_low"] > 0
    assert report["ece"] < 0.1
    assert 0 < report["router_ms"] < 5
    assert report["router"] == load(trained / "router").id


def test_the_stored_router_predicts_what_scikit_learn_does(trained: Path) -> None:
    """Through files and plain Python, within 1e-9 of the library's own pipeline on the same terms."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    data = read_outcomes(trained / "train.parquet")
    asked = read_outcomes(trained / "test.parquet").prompts
    router = load(trained / "router")
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit(data.prompts)
    chars = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=3, sublinear_tf=True).fit(data.prompts)
    hand = StandardScaler().fit(Corpus(data.prompts).hand)

    def matrix(prompts: tuple[str, ...]) -> Any:
        plain = 0.3 * np.clip(hand.transform(Corpus(prompts).hand), -4, 4)
        return hstack([csr_matrix(plain), words.transform(prompts), chars.transform(prompts)]).tocsr()

    for head, labels in enumerate(data.right.T):
        theirs = LogisticRegression(C=ONE_ANSWER.strengths[0], max_iter=1000, tol=1e-9).fit(
            matrix(data.prompts), labels
        )
        # Their solver may stop a little elsewhere: put its coefficients where ours are compared.
        ours = np.array([router.text.logits(prompt)[head] for prompt in asked])
        assert ours == pytest.approx(theirs.decision_function(matrix(asked)), abs=0.01)
        terms = {(kind, term): values[head] for kind, term, _, values in router.terms}
        theirs.coef_[0] = [
            *router.model.hand[head],
            *(terms["word", name] for name in words.get_feature_names_out()),
            *(terms["char", name] for name in chars.get_feature_names_out()),
        ]
        theirs.intercept_[0] = router.model.bias[head]
        assert ours == pytest.approx(theirs.decision_function(matrix(asked)), abs=1e-9)


def test_cross_fitting_never_learns_from_what_it_judges(trained: Path, tmp_path: Path) -> None:
    """Labels that are noise: a leak would show as a router better than chance."""
    from outthink.evaluation.routing.run import judge_recipe

    table = rows(300, seed=4)
    rng = np.random.default_rng(0)
    for row in table:
        row["weak_correct"], row["strong_correct"] = bool(rng.random() < 0.4), bool(rng.random() < 0.8)
    table += table  # every prompt twice: a fold that split them would know the answers
    report = judge_recipe(write(tmp_path / "noise.parquet", table), ONE_ANSWER)
    assert (report["n"], report["prompts"]) == (600, 300)
    assert report["apgr"] < 0.6
    assert report["apgr_low"] < 0.5


def test_contaminated_rows_are_dropped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = rows(120)
    for row in table[:20]:
        row["contaminated"] = True
    path = write(tmp_path / "some.parquet", table)
    assert main(["router", "eval", str(path), "--cross-fit", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["n"], report["dropped_contaminated"]) == (100, 20)


def test_subjects_are_read_when_asked_for(tmp_path: Path) -> None:
    table = rows(200)
    for row in table:
        row["prompt"] = row["prompt"].split("about")[1]  # only the subject tells the topic now
    data = read_outcomes(write(tmp_path / "rows.parquet", table))
    corpus, every = Corpus(data.prompts), np.arange(len(data))
    _, blind = fit(data, corpus, every, ONE_ANSWER)
    received, told = fit(data, corpus, every, replace(ONE_ANSWER, subject=True))
    from outthink.evaluation.routing.figures import curves

    assert set(received.model.subjects) == {"proof", "sum", "poem", "date"}
    areas = [curves(held[:, 1] - held[:, 0], data).apgr()[0] for held in (blind.right, told.right)]
    assert areas[1] > areas[0] + 0.1


def test_training_twice_gives_the_same_model(trained: Path, tmp_path: Path) -> None:
    assert main(["router", "train", str(trained / "train.parquet"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again/predictor.json").read_bytes() == (trained / "router/predictor.json").read_bytes()


@pytest.mark.parametrize("arguments", [("train", "--out", "router"), ("eval", "--cross-fit")])
def test_a_negative_seed_is_refused(
    arguments: tuple[str, ...], trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step, *flags = arguments
    assert "--seed: -1 is below 0" in refusal(capsys, step, trained / "train.parquet", *flags, "--seed", "-1")


def _set(name: str, value: object, count: int = 10_000) -> Callable[[list[dict[str, Any]]], None]:
    def change(table: list[dict[str, Any]]) -> None:
        for row in table[:count]:
            row[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (_set("weak_correct", True), "'weak_correct' is true in every row"),
        (_set("strong_correct", False), "is false in every row"),
        (_set("prompt", " ", 1), "is an empty prompt (row 1)"),
        (_set("weak_correct", None, 1), "is neither true nor false (row 1)"),
        (_set("contaminated", True), "has only contaminated rows"),
        (lambda table: [row.pop("strong_correct") for row in table], "strong_correct"),
        (_set("prompt", "the same"), "cannot fill 5 folds"),
        (list.clear, "no column"),
    ],
)
def test_bad_rows_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[list[dict[str, Any]]], object],
    part: str,
) -> None:
    table = rows(30)
    change(table)
    line = refusal(capsys, "train", write(tmp_path / "rows.parquet", table), "--out", tmp_path / "router")
    assert part in line
    assert not (tmp_path / "router").exists()


def test_prompts_of_the_training_are_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed = write(tmp_path / "mixed.parquet", rows(20, seed=9) + rows(400)[:2])
    line = refusal(capsys, "eval", mixed, "--router", trained / "router", "--json")
    assert "1 more of 22 prompts were trained on" in line
    assert "--cross-fit" in line


def test_a_router_that_is_none_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = trained / "test.parquet"
    assert "predictor.json" in refusal(capsys, "eval", test, "--router", tmp_path, "--json")
    assert "--router" in refusal(capsys, "eval", test, "--json")
    assert "does not exist" in refusal(capsys, "eval", tmp_path / "none.parquet", "--cross-fit")
    (tmp_path / "text.parquet").write_text("no table")
    assert "not a readable Parquet file" in refusal(capsys, "eval", tmp_path / "text.parquet", "--cross-fit")
    assert "--folds" in refusal(capsys, "eval", test, "--cross-fit", "--folds", 1)
