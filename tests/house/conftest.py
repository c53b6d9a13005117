"""What the tests of the house share: the repository and the files that git knows."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SKIPPED = {".git", ".venv", "_build", "__pycache__", "node_modules", ".pytest_cache", ".hypothesis", "PKG-INFO"}


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """Files that are, or are about to be, part of the repository; without git all but caches."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if not _SKIPPED & set(path.parts)]
    return sorted(path for name in listed if name and (path := ROOT / name).is_file())
