"""The package as an installer and an index see it: version, addresses, and what the source distribution holds."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

import outthink


def project(root: Path) -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return table


def test_the_version_is_stated_once(root: Path, files: list[Path]) -> None:
    assert "version" in project(root)["dynamic"]
    stated = re.compile(rf"(?:version|release|tag)\W.{{0,20}}\b{re.escape(outthink.__version__)}\b", re.IGNORECASE)
    silent = {".parquet", ".npz", ".png", ".json"}
    told = {path.relative_to(root).as_posix() for path in files if path.suffix not in silent}
    found = {name for name in told if stated.search((root / name).read_text(errors="replace"))}
    found.discard("examples/plugin/pyproject.toml")  # another distribution's own
    # YAML cannot read it elsewhere: the next but one test holds the two together.
    assert found == {"deploy/kubernetes/kustomization.yaml"}
    assert (root / "src/outthink/core/__init__.py").read_text().count(f'__version__ = "{outthink.__version__}"\n') == 1


def test_the_build_reads_the_version_from_the_source(root: Path) -> None:
    assert ProjectMetadata(str(root), PluginManager()).version == outthink.__version__


def test_the_image_that_is_deployed_is_of_this_version(root: Path) -> None:
    text = (root / "deploy/kubernetes/kustomization.yaml").read_text()
    assert f"newTag: {outthink.__version__}\n" in text


def test_a_checkout_on_the_path_knows_its_version(root: Path, tmp_path: Path) -> None:
    """Without metadata: nothing is installed for an interpreter that ignores its site-packages."""
    command = [sys.executable, "-S", "-c", "import outthink; print(outthink.__version__)"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root / "src")}, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (outthink.__version__, "")


LARGEST = 3_000_000
"""Bytes of the source distribution, compressed."""
LEFT_OUT = re.compile(r"data/demo/qwen[^/]*\.parquet|data/verifiers/[^/]*/[^/]*\.safetensors")


@pytest.fixture(scope="module")
def distributed(root: Path) -> dict[str, Path]:
    """The files of the source distribution, by their path in it."""
    builder = SdistBuilder(str(root))
    return {file.distribution_path: Path(file.path) for file in builder.recurse_included_files()}


def test_the_source_distribution_holds_all_but_the_large_data(
    distributed: dict[str, Path], files: list[Path], root: Path
) -> None:
    if not (root / ".git").exists():
        pytest.skip("only git knows what belongs to the repository")
    tracked = {path.relative_to(root).as_posix() for path in files}
    left_out = tracked - set(distributed) - {"pyproject.toml", ".gitignore"}  # which every one holds
    assert not [name for name in sorted(left_out) if not LEFT_OUT.fullmatch(name)]
    assert not [name for name in distributed if LEFT_OUT.fullmatch(name)]
    assert not [name for name in distributed if "/_build/" in name or "__pycache__" in name]


def test_the_source_distribution_is_small(distributed: dict[str, Path]) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=6) as archive:
        for name, path in distributed.items():
            archive.add(path, arcname=name)
    assert packed.tell() < LARGEST
