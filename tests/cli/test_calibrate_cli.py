"""`outthink calibrate`, `policy`, and what `compare` and `ask` make of a policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outthink.controller.policy.artefact import Policy
from support.policies import policy as small_policy
from support.samples import write_samples

AIM = ("--target", "match=self-consistency@8", "--orders", 1)


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    return write_samples(tmp_path / "seen", samples=8)


@pytest.fixture
def unseen(tmp_path: Path) -> Path:
    return write_samples(tmp_path / "unseen", samples=8, problems=range(100, 130))


@pytest.fixture
def made(cli: Callable[..., Any], seen: Path, tmp_path: Path) -> Path:
    done = cli("calibrate", seen, "--out", tmp_path / "policy.json", *AIM)
    assert done.code == 0, done.err
    return tmp_path / "policy.json"


def test_calibrate_writes_a_policy_and_shows_it(cli: Callable[..., Any], seen: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    done = cli("calibrate", seen, "--out", out, *AIM, "--parameters", 7)
    assert done.code == 0
    assert Policy.load(out).content["pool"][0]["parameters"] == 7
    assert f"policy: {Policy.load(out).id}" in done.out
    assert "models: 1" in done.out
    assert "self-consistency@8" in done.out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((), "--out"),
        (("--out", "p.json", "--target", "love"), "--target"),
        (("--out", "p.json", "--by", "love"), "--by"),
        (("--out", "p.json", "--margin", "2"), "--margin"),
        (("--out", "p.json", "--folds", "1"), "--folds"),
        (("--out", "p.json", "--orders", "0"), "--orders"),
        (("--out", "p.json", "--seed", "-1"), "--seed"),
        (("--out", "p.json", "--target", "usd=1", "--orders", "1"), "--target: 'usd' is unknown"),
        (("--out", "p.json", "--orders", "1"), "give --target match=self-consistency@8"),
        (("--out", "p.json", "--orders", "1", "--target", "match=self-consistency@3"), "is no size that is compared"),
        (("--out", "p.json", "--json"), "--json"),
        (("--out", "p.json", "--check", "q.json"), "--out"),
        (("--out", "none/p.json"), "folder"),
        (("--check", "none.json"), "does not exist"),
    ],
)
def test_refusals_are_one_line(cli: Callable[..., Any], arguments: tuple[str, ...], part: str, seen: Path) -> None:
    done = cli("calibrate", seen, *arguments)
    assert done.code == 2
    assert part in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert done.out == ""


def test_compare_has_the_rows_of_the_policy(cli: Callable[..., Any], made: Path, unseen: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "rows.json", tmp_path / "rows.html"
    asked = ("--strategy", "auto", "--policy", made, "--seeds", 1, "--json", out, "--html", page, "--plot")
    done = cli("compare", unseen, *asked)
    assert done.code == 0, done.err
    rows = json.loads(out.read_text())
    mine = [row for row in rows if row["strategy"] == "auto"]
    assert [row["n"] for row in mine] == [1, 2, 4, 8]
    keys = {"policy", "predicted_accuracy", "predicted_low", "predicted_high", "fallback_rate", "tokens_ratio"}
    assert all(keys <= set(row) for row in mine)
    assert not any(keys & set(row) for row in rows if row["strategy"] != "auto")
    assert "auto" in done.out
    assert "auto" in page.read_text()


def test_compare_refuses_the_problems_of_the_calibration(cli: Callable[..., Any], made: Path, seen: Path) -> None:
    asked = ("compare", seen, "--strategy", "auto", "--policy", made, "--seeds", 1)
    refused = cli(*asked)
    assert refused.code == 2
    assert "--cross-fit" in refused.err
    assert cli(*asked, "--cross-fit").code == 0


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--strategy", "auto"), "--policy"),
        (("--cross-fit",), "--strategy auto"),
        (("--policy", "p.json"), "--strategy auto"),
    ],
)
def test_compare_wants_auto_and_policy_together(
    cli: Callable[..., Any], arguments: tuple[str, ...], part: str, seen: Path
) -> None:
    done = cli("compare", seen, *arguments)
    assert done.code == 2
    assert part in done.err


def test_check_passes_and_fails_by_its_exit_code(
    cli: Callable[..., Any], made: Path, unseen: Path, tmp_path: Path
) -> None:
    good = cli("calibrate", "--check", made, "--json", unseen)
    assert good.code == 0, good.err
    assert good.json["holds"] is True
    longer = write_samples(tmp_path / "longer", samples=8, problems=range(200, 230), tokens=900)
    bad = cli("calibrate", "--check", made, longer)
    assert bad.code == 1
    assert "most runs fell back" in bad.out


def test_check_of_samples_outside_the_regime_says_so(cli: Callable[..., Any], made: Path, tmp_path: Path) -> None:
    strange = write_samples(tmp_path / "strange", samples=8, problems=range(200, 230), model="other")
    done = cli("calibrate", "--check", made, strange)
    assert done.code == 1
    assert "nothing predicted; nothing promised" in done.out
    assert "100% of the runs fell back" in done.out


def test_policy_show_and_diff(cli: Callable[..., Any], made: Path, seen: Path, tmp_path: Path) -> None:
    page = tmp_path / "policy.html"
    shown = cli("policy", "show", made, "--html", page)
    assert shown.code == 0
    assert "generated tokens per problem" in shown.out
    assert "A calibrated policy" in page.read_text()
    assert "http://" not in page.read_text().replace("http://www.w3.org", "")
    other = tmp_path / "other.json"
    assert cli("calibrate", seen, "--out", other, *AIM, "--seed", 3).code == 0
    differing = cli("policy", "diff", made, other)
    assert differing.code == 0
    assert Policy.load(made).id[:19] in differing.out
    assert cli("policy", "diff", made, made).out.count("same rule") == 4


def test_ask_explains_and_names_the_policy(cli: Callable[..., Any], server: Any, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    made = small_policy()
    made.save(path)
    asked = ("ask", "How many?", "--model", server.url, "--answer", "number", "--seed", 1, "--json")
    done = cli(*asked, "--strategy", "auto", "--policy", path, "--explain")
    assert done.code == 0, done.err
    notes = done.json["receipt"]["notes"]
    assert notes[0].startswith(f"policy {made.id}")
    assert "not among the calibrated ones" in notes[1]
    assert "chose: adaptive-consistency:n=4, because" in done.err
    refused = cli(*asked, "--strategy", "auto")
    assert refused.code == 2
    assert "auto needs one" in refused.err
    assert cli(*asked, "--explain").code == 2
