"""Tracked text names no machine, no internal address and no secret."""

from __future__ import annotations

import re
from pathlib import Path

_BINARY = {".parquet", ".npz", ".png", ".gguf", ".whl"}
_HOSTS = "|".join(("artifactory", "nexus", "devpi", "jfrog", "codeartifact", "pypi-mirror"))
_FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.~-])/(?:home|root|Users|work)/\w"),
    "a package index": re.compile(rf"(?:--|\b)(?:extra[-])?index[-]url\b|\b(?:{_HOSTS})\b", re.IGNORECASE),
    "a private address": re.compile(r"\b(?:10(?:\.\d{1,3}){3}|192\.168(?:\.\d{1,3}){2})\b"),
    "a key": re.compile(r"\b(?:sk-[A-Za-z0-9]{20,}|ghp_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})\b"),
}


def test_no_private_text(files: list[Path], root: Path) -> None:
    result = []
    for path in files:
        if path.suffix in _BINARY or path == Path(__file__):
            continue
        text = path.read_text(errors="replace")
        for what, pattern in _FORBIDDEN.items():
            result += [f"{path.relative_to(root)}: {what}: {match[0]}" for match in pattern.finditer(text)]
    assert not result


def test_files_are_small(files: list[Path], root: Path) -> None:
    large = [
        f"{path.relative_to(root)}: {path.stat().st_size:,}"
        for path in files
        if path.stat().st_size > (20_000_000 if path.suffix == ".safetensors" else 3_000_000)
    ]
    assert not large
