"""Where the simulator's compiled code is kept, who finds it there, and what is said where numba is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from outthink.core.errors import BadInput
from outthink.economics.simulator.simulate import ServerRules, simulate
from outthink.economics.step_profile import StepProfile
from outthink.economics.workload import Workload

RULES = ServerRules(memory=100, profile=StepProfile(base=((0, 0.25),), chunk=8))
REQUEST = Workload.of_calls([8], [3])

LATER = """
import json
import numba
from numba.core import event
before = numba.config.CACHE_DIR
with event.install_recorder("numba:compile") as compiled:
    from outthink.economics.simulator.groups import run
    from outthink.economics.simulator.simulate import ServerRules, simulate
    from outthink.economics.step_profile import StepProfile
    from outthink.economics.workload import Workload
    rules = ServerRules(memory=100, profile=StepProfile(base=((0, 0.25),), chunk=8))
    end = simulate(Workload.of_calls([8], [3]), rules).end
found = sum(run.stats.cache_hits.values())
same = numba.config.CACHE_DIR == before
print(json.dumps({"end": end, "compiled": len(compiled.buffer), "found": found, "same": same}))
"""


def in_new_process(code: str, **environment: str) -> str:
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout


def test_a_second_process_finds_what_the_first_has_compiled(tmp_path: Path) -> None:
    run = simulate(REQUEST, RULES)
    from outthink.economics.simulator import groups

    folder = Path(groups.run.stats.cache_path)  # type: ignore[attr-defined]
    cache = folder.parents[2]
    files = sorted(folder.iterdir())
    assert folder.parents[1] == cache / "compiled"
    assert {path.suffix for path in files} == {".nbi", ".nbc"}
    others = tmp_path / "others"
    others.mkdir()
    told = in_new_process(LATER, OUTTHINK_CACHE=str(cache), NUMBA_CACHE_DIR=str(others))
    assert json.loads(told) == {"end": run.end, "compiled": 0, "found": 1, "same": True}
    assert sorted(folder.iterdir()) == files
    assert not list(others.iterdir())


def test_others_keep_their_cache_folder(tmp_path: Path) -> None:
    """A function compiled after ours goes where its owner wants it."""
    code = """
import outthink.economics.simulator.groups
import its_own
print(its_own.twice(2), its_own.twice.stats.cache_path)
"""
    own, cache = tmp_path / "own", tmp_path / "numba"
    own.mkdir()
    (own / "its_own.py").write_text("import numba\n\n\n@numba.njit(cache=True)\ndef twice(x):\n    return 2 * x\n")
    paths = os.pathsep.join(filter(None, (str(own), os.environ.get("PYTHONPATH"))))
    told = in_new_process(code, NUMBA_CACHE_DIR=str(cache), PYTHONPATH=paths, OUTTHINK_CACHE=str(tmp_path / "ours"))
    doubled, folder = told.split()
    assert doubled == "4"
    assert Path(folder).is_relative_to(cache)
    assert {path.suffix for path in Path(folder).iterdir()} == {".nbi", ".nbc"}


def test_without_numba_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["numba", *(name for name in sys.modules if name.startswith("numba."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadInput) as raised:
        simulate(REQUEST, RULES)
    assert "[plan]" in raised.value.remedy
    assert "numba" in str(raised.value)
    assert "\n" not in str(raised.value)
