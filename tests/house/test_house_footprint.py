"""The core stays small and quick to import."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, requires

from packaging.markers import default_environment
from packaging.requirements import Requirement

MOST = 24
HEAVY = {"numpy", "pyarrow", "httpx2", "httpcore2", "pydantic", "rich", "sympy", "math_verify", "genai_prices"}
HEAVY |= {"matplotlib", "shtab"}
NEVER = {"torch", "transformers", "litellm"}


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def core() -> tuple[set[str], set[str]]:
    """Distributions of `pip install outthink`, itself included, and those of them that are not installed."""
    result: set[str] = set()
    absent: set[str] = set()
    waiting: list[tuple[str, frozenset[str]]] = [("outthink", frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        result.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            absent.add(name)
            continue
        for requirement in map(Requirement, lines):
            contexts = [default_environment() | {"extra": extra} for extra in (extras or {""})]
            if requirement.marker is None or any(map(requirement.marker.evaluate, contexts)):
                waiting.append((_key(requirement.name), frozenset(requirement.extras)))
    return result, absent


def test_core_install_is_small() -> None:
    result, absent = core()
    assert not absent, f"the environment lacks {sorted(absent)}"
    assert len(result) <= MOST, f"{len(result)} distributions: {sorted(result)}"
    assert not result & NEVER


def test_litellm_is_in_no_extra() -> None:
    named = {_key(Requirement(line).name) for line in distribution("outthink").requires or []}
    assert "litellm" not in named


def test_import_is_light() -> None:
    code = "import json, sys, outthink\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(json.loads(done.stdout))


def test_version_and_help_load_nothing_heavy() -> None:
    code = """
import json, sys
from outthink.cli.main import main
try:
    main(["--help"])
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not (HEAVY - {"rich"}) & set(json.loads(done.stdout.splitlines()[-1]))
