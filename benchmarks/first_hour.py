"""Times a newcomer's first hour: from `git clone` to the first answer, and to the first table of `compare`.

Runs README's first two commands and the `compare` that README names in a fresh clone of the committed state, four
times: with the caches of packages and of the model cold or warm, each for itself. Times `import outthink` too. Does
not measure a network of the reader's: the clone is of this machine's repository, packages and model come from the
index that pip is set up with. The caches of the operating system stay warm. Needs git, make and a package index;
takes about five minutes on two idle cores.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import ROOT, Table, judged, load_average, parser, save_evidence, show, skip

sys.path.insert(0, str(ROOT / "docs"))

from marked import blocks

DEMO, ASK = (block.text.strip() for block in [block for block in blocks("README.md") if block.runs][:2])
COMPARE = ".venv/bin/outthink compare data/demo/*--demo.parquet"
STEPS = {"demo": DEMO, "ask": ASK, "compare": COMPARE}
STATES = (("cold", "cold"), ("cold", "warm"), ("warm", "cold"), ("warm", "warm"))
"""Of the caches of packages and of the model."""
NOT_NEW = frozenset({"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "OUTTHINK_MODEL", "OPENAI_BASE_URL", "MAKEFLAGS"})
NO_ANSWER = 3
"""Exit code of `ask` where the small model has written nothing readable, which is no failure."""
BUSY = "other work has the cores"


def environment(place: Path, packages: str, model: str) -> dict[str, str]:
    """Variables of somebody who has the caches that are warm, and none of the others.

    The model comes as a wheel, which pip keeps too: the second state fills the cache of packages that is warm later
    without it, since it has the model of the first.
    """
    first = (packages, model) == STATES[0]
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_NEW}
    return inherited | {
        "PIP_CACHE_DIR": str(place / ("packages-and-model" if first else "packages")),
        "OUTTHINK_CACHE": str(place / ("model" if first or model == "warm" else "model-again")),
        "OUTTHINK_STATE": str(place / "state"),
    }


def timed(command: str, folder: Path, env: Mapping[str, str]) -> float:
    """Seconds of wall clock; RuntimeError if it fails."""
    began = time.monotonic()
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode not in ((0, NO_ANSWER) if command == ASK else (0,)):
        raise RuntimeError(f"{command}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - began


def first_hour(place: Path, packages: str, model: str) -> dict[str, Any]:
    """One row: seconds of each step in a clone of its own, and of what they add up to."""
    env = environment(place, packages, model)
    clone = place / "outthink"
    shutil.rmtree(clone, ignore_errors=True)
    row: dict[str, Any] = {"packages": packages, "model": model}
    row["clone"] = timed(f"git clone --quiet --no-local '{ROOT}' '{clone}'", place, env)
    row |= {name: timed(command, clone, env) for name, command in STEPS.items()}
    row["first_answer"] = row["clone"] + row["demo"] + row["ask"]
    row["first_table"] = row["first_answer"] + row["compare"]
    row["demo_again"] = timed(DEMO, clone, env)
    return row


def import_seconds(python: Path) -> float:
    """Median of nine; the interpreter's own start is taken off."""
    code = "import time; began = time.perf_counter(); import outthink; print(time.perf_counter() - began)"
    runs = [subprocess.run([python, "-c", code], capture_output=True, text=True, check=True) for _ in range(9)]
    return statistics.median(float(run.stdout) for run in runs)


def main() -> int:
    """Clone and run, say how long it took."""
    parser(__doc__).parse_args()
    if not (ROOT / ".git").exists():
        return skip("this is no git repository")
    load = load_average()
    with tempfile.TemporaryDirectory(prefix="outthink-first-hour-") as folder:
        rows: Table = []
        for packages, model in STATES:
            rows.append(first_hour(Path(folder), packages, model))
            show("Seconds", rows[-1:])
        importing = import_seconds(Path(folder) / "outthink/.venv/bin/python")
    cold, warm = rows[0], rows[-1]
    again = sorted(row["demo_again"] for row in rows)
    targets = [
        judged("seconds to the first answer, caches cold", cold["first_answer"], 300, reason=BUSY),
        judged("seconds to the first table of compare, caches cold", cold["first_table"], 300, reason=BUSY),
        judged("seconds to the first answer, caches warm", warm["first_answer"], 240, reason=BUSY),
        judged(
            "seconds of `make demo` again",
            statistics.median(again),
            20,
            low=again[0],
            high=again[-1],
            reason="runs differ by more",
        ),
        judged("seconds of `import outthink`", importing, 0.2, reason=BUSY),
    ]
    save_evidence("first-hour", rows=rows, targets=targets, load_before=load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
