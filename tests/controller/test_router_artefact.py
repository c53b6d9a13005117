"""A stored router is the trained one, to the last digit, and refuses what was changed."""

from __future__ import annotations

import json
import subprocess
import sys
from array import array
from pathlib import Path

import pytest

from outthink.controller.router import load
from outthink.controller.router.folder import ROUTERS, prompt_hash
from outthink.controller.router.model import Block, Router, TextModel
from outthink.controller.router.text import NAMES
from outthink.core.errors import BadInput

ABOUT = {"regime": {"characters": [3, 40]}, "gains": [-0.5, 0.0, 0.25, 0.5, 1.0], "data": {"name": "made up"}}


def model(subjects: dict[str, tuple[float, float]] | None = None) -> TextModel:
    width = len(NAMES)
    return TextModel(
        heads=("weak", "strong"),
        bias=(0.25, 1.5),
        mean=(1.0,) * width,
        scale=(2.0,) * (width - 1) + (0.0,),
        hand_weight=0.3,
        hand=((0.01,) * width, (-0.02,) * width),
        blocks=(
            Block("word", 9, ("a proof", "proof"), (1, 3), (array("d", [0.5, -2.0]), array("d", [0.1, 0.125]))),
            Block("char", 9, (" p", "of "), (4, 2), (array("d", [0.1, -0.3]), array("d", [0.2, 0.4]))),
        ),
        subjects=subjects or {},
        platt=((1.25, 0.1), (0.5, -0.2)),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ROUTERS.save(tmp_path / "router", model(), ABOUT, [prompt_hash("Write a proof.")])
    return tmp_path / "router"


def test_round_trip_is_byte_identical(folder: Path, tmp_path: Path) -> None:
    router = load(folder)
    assert router.model == model()
    again = tmp_path / "again"
    assert ROUTERS.save(again, router.model, ABOUT, ROUTERS.trained_on(folder)) == router.id
    for name in ("router.json", "terms.json", "prompts.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_belief_is_the_formula() -> None:
    router = Router("id", model({"logic": (1.0, -1.0)}), 3, 40, (0.0, 1.0))
    plain, logic = router.believe("Write a proof"), router.believe("Write a proof", "logic")
    assert 0 < plain.weak < 1
    assert plain.gain == plain.strong - plain.weak
    assert logic.weak > plain.weak
    assert logic.strong < plain.strong
    assert plain.flags == ("subject '' is new",)
    assert logic.flags == ()
    assert router.believe("x" * 41, "logic").flags == ("41 characters, trained on 3 to 40",)


def test_thresholds_split_the_training_requests(folder: Path) -> None:
    router = load(folder)
    assert router.threshold(0.5) == 0.25
    assert router.threshold(0.125) == 0.75
    assert router.threshold(0) == float("inf")
    assert router.threshold(1) == float("-inf")


@pytest.mark.parametrize("name", ["router.json", "terms.json", "prompts.json"])
def test_one_changed_digit_is_refused(folder: Path, name: str) -> None:
    text = (folder / name).read_text()
    place = next(i for i, c in enumerate(text) if c.isdigit() and '"schema_version"' not in text[i - 20 : i])
    (folder / name).write_text(text[:place] + ("1" if text[place] != "1" else "2") + text[place + 1 :])
    with pytest.raises(BadInput, match=r"changed after it was written.*train the router again"):
        ROUTERS.trained_on(folder) if name == "prompts.json" else load(folder)


def test_another_version_is_refused(folder: Path) -> None:
    card = json.loads((folder / "router.json").read_text())
    (folder / "router.json").write_text(json.dumps({**card, "schema_version": 99}))
    with pytest.raises(BadInput, match="schema_version 99"):
        load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version"', "\x00"])
def test_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "router.json").write_text(text)
    with pytest.raises(BadInput, match="not the card of a router"):
        load(tmp_path)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "terms.json").unlink()
    with pytest.raises(BadInput, match=r"has no terms\.json"):
        load(folder)


def test_prompts_are_equal_up_to_case_and_spaces() -> None:
    assert prompt_hash(" Write  a\nproof ") == prompt_hash("write a proof")
    assert prompt_hash("write a proof") != prompt_hash("write a proof.")


def test_applying_loads_neither_numpy_nor_scikit_learn(folder: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from outthink.controller.router import load\n"
        f"load(pathlib.Path({str(folder)!r})).believe('Write a proof')\n"
        "print([name for name in ('numpy', 'sklearn', 'scipy', 'pickle') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
