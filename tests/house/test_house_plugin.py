"""The example of a plugin, installed as its pyproject.toml says, works by its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.plugins import install
from support.recorded import DEMO, needs_demo

COMMAND = [sys.executable, "-c", "from outthink.cli.main import entry; entry()"]


@pytest.fixture
def environment(root: Path, tmp_path: Path) -> dict[str, str]:
    """Where the example is installed: what a wheel would hold, without building one."""
    folder = root / "examples/plugin"
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    about, files = project["project"], project["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]
    entries = {name.removeprefix("outthink."): targets for name, targets in about["entry-points"].items()}
    modules = {Path(name).stem: (folder / name).read_text() for name in files}
    install(tmp_path / "site", about["name"], entries, version=about["version"], modules=modules)
    path = [str(tmp_path / "site"), str(root / "src")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "OUTTHINK_CACHE": str(tmp_path / "cache")}


def test_it_is_ten_lines_and_one_entry_point(root: Path) -> None:
    code = (root / "examples/plugin/outthink_first_pair.py").read_text().partition("@ot.strategy")[2]
    assert len(code.splitlines()) <= 10
    assert (root / "examples/plugin/pyproject.toml").read_text().count("first_pair:first_pair") == 1


@needs_demo
def test_it_is_compared_by_its_name(environment: dict[str, str], tmp_path: Path) -> None:
    demo = DEMO / "qwen2.5-coder-0.5b-instruct-q4--demo.parquet"
    arguments = ["compare", str(demo), "--strategy", "first-pair:n=4", "--seeds", "1", "--json", "rows.json"]
    done = subprocess.run([*COMMAND, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["strategy"]: row for row in json.loads((tmp_path / "rows.json").read_text()) if row["n"] == 4}
    assert rows["first-pair"]["ahead"] == 1
    assert rows["first-pair"]["tokens"] < rows["self-consistency"]["tokens"]


def test_doctor_says_whose_it_is(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "doctor"], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "strategy first-pair" in done.stdout
    assert "outthink-first-pair 0.1.0" in done.stdout
