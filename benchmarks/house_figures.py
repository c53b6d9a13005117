"""How the tree is built and what its order costs: sizes, names, files entered, behaviour and speed against ca2af9d.

Measures this tree and the tree before it was put in order, with the same script (tests/house/measures.py): files,
lines, imports, names, files that one warm request enters; whether the recorded behaviour is the same
(tests/house/oracle.py); how long the import takes; and in alternating pairs the processor time of `outthink compare`
on 1,000 problems x 33 samples (10 orders) and of a sample over HTTP at 32 in flight, as ratios with an interval over
the pairs. `--suite` also runs all tests once beside two busy loops, and those marked timing, faults or hypothesis
three times. Needs the commit in git's history and the recorded sets ($OUTTHINK_TRACES, $OUTTHINK_ROUTING; without
them the pairs of compare and the oracle's benchmarks are left out). Takes half an hour, the suite another quarter;
`--keep` takes speed and behaviour from the last result, each with the commit that it was measured at.
"""

from __future__ import annotations

import io
import json
import math
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, Table, judged, load_average, parser, save_evidence, show, skip, traces

BEFORE = "ca2af9d"
FILE = "GSM8K 1.5B"
STUDENT = {4: 3.182, 6: 2.571, 8: 2.365, 10: 2.262, 12: 2.201}
"""Two-sided 95 % quantiles of Student's t by number of pairs."""

COMPARE = """
import os, resource, sys
from outthink.cli.main import main
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
code = main(sys.argv[1:])
spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(sum(usage.ru_utime + usage.ru_stime for usage in spent), file=sys.stderr)
sys.exit(code)
"""
OVERHEAD = """
import asyncio, statistics, sys
sys.path.insert(0, "benchmarks")
import overhead
for written in overhead.WRITTEN:
    rows = asyncio.run(overhead.processor_time(7, 320, written))
    print(statistics.median(row["session ms"] for row in rows), file=sys.stderr)
"""
IMPORT = "import time; began = time.perf_counter(); import outthink; print(time.perf_counter() - began)"


@contextmanager
def checkout(commit: str) -> Iterator[Path | None]:
    """A folder with the files of a commit; None where git does not know it."""
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True)
    if packed.returncode:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(packed.stdout)) as files:
        files.extractall(folder, filter="data")
        yield Path(folder)


def run(tree: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python code with the package of a tree, in that tree."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True)


def compare_seconds(tree: Path) -> list[float]:
    """Processor seconds of one `outthink compare` and its workers."""
    with tempfile.TemporaryDirectory() as folder:
        rows = f"{folder}/rows.json"
        done = run(tree, COMPARE, "compare", str(traces()[FILE]), "--seeds", "10", "--json", rows)
    return [float(done.stderr.split()[-1])]


def overhead_ms(tree: Path) -> list[float]:
    """Processor milliseconds of a sample through a session, for each way in which the server writes."""
    return [float(line) for line in run(tree, OVERHEAD).stderr.split()[-3:]]


def alternate(
    measure: Callable[[Path], list[float]], before: Path, pairs: int
) -> list[tuple[list[float], list[float]]]:
    """Pairs (before, now), every other one taken in reverse order."""
    taken = []
    for pair in range(pairs):
        order = (before, ROOT) if pair % 2 == 0 else (ROOT, before)
        measured = {tree: measure(tree) for tree in order}
        taken.append((measured[before], measured[ROOT]))
    return taken


def ratio(name: str, before: list[float], now: list[float]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row and the target of one set of pairs: the geometric mean of now / before, with Student's interval."""
    logs = [math.log(after / first) for first, after in zip(before, now, strict=True)]
    mean = statistics.fmean(logs)
    half = STUDENT[len(logs)] * statistics.stdev(logs) / math.sqrt(len(logs))
    value, low, high = (math.exp(end) for end in (mean, mean - half, mean + half))
    row = {"what": name, "before": statistics.median(before), "now": statistics.median(now), "ratio": value}
    reason = "the interval over the pairs reaches beyond the limit"
    return row, judged(f"{name}, ratio", value, 1.03, low=low, high=high, reason=reason)


def speed(before: Path, pairs: int) -> tuple[Table, list[dict[str, Any]]]:
    """Both kinds of pairs."""
    rows, targets = [], []
    if FILE in traces():
        taken = alternate(compare_seconds, before, pairs)
        row, target = ratio(
            "compare, processor s", *([side[0] for side in sides] for sides in zip(*taken, strict=True))
        )
        rows.append(row)
        targets.append(target)
    taken = alternate(overhead_ms, before, pairs)
    for place, written in enumerate(("every 3 ms", "one by one", "all at once")):
        sides = ([side[place] for side in sides] for sides in zip(*taken, strict=True))
        row, target = ratio(f"a sample over HTTP, server writes {written}, processor ms", *sides)
        rows.append(row)
        targets.append(target)
    return rows, targets


def figures(*arguments: str) -> dict[str, dict[str, Any]]:
    """What tests/house/measures.py says."""
    command = [sys.executable, str(ROOT / "tests/house/measures.py"), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return result


REASONS = {
    "code": "merging and simplifying every room saved 2,500 lines, new features cost 1,100; what is left stands once",
}


def sizes(before: Path) -> tuple[Table, list[dict[str, Any]]]:
    """The figures of both trees, and their targets."""
    old, new = figures(str(before / "src")), figures("--run")
    rows = [
        {"what": row["what"], "before": old.get(key, {}).get("value"), "now": row["value"]} for key, row in new.items()
    ]
    targets = []
    for key, row in new.items():
        most, least = row["most"], row["least"]
        if most is not None:
            targets.append(judged(row["what"], row["value"], most, reason=REASONS.get(key)))
        if least is not None:
            targets.append(judged(row["what"], row["value"], least, better="higher", reason=REASONS.get(key)))
    return [{**row, "ratio": None} for row in rows], targets


def behaviour() -> list[dict[str, Any]]:
    """Parts of the recorded behaviour that differ from what is listed, and the time of the import."""
    quick = [] if FILE in traces() else ["--quick"]
    command = [sys.executable, str(ROOT / "tests/house/oracle.py"), "check", *quick]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    print(done.stdout)
    last = done.stdout.split()[-3:]
    differ = 0 if not done.returncode else int(last[0]) if last[1:] == ["parts", "differ"] else 1
    seconds = sorted(float(run(ROOT, IMPORT).stdout) for _ in range(9))
    return [
        judged("parts of the recorded behaviour that differ", differ, 0, reason=done.stdout),
        judged("import outthink, seconds (median of 9)", seconds[4], 0.2, low=seconds[0], high=seconds[-1]),
    ]


def kept() -> tuple[Table, list[dict[str, Any]]]:
    """Speed and behaviour of the last result."""
    last = json.loads((RESULTS / "house.json").read_text())
    rows = [row for row in last["rows"] if row["ratio"] is not None]
    measured = ("ratio", "recorded behaviour", "import outthink")
    targets = [row for row in last["targets"] if any(name in row["name"] for name in measured)]
    return rows, [{"commit": last["commit"], **row} for row in targets]


def suite() -> list[dict[str, Any]]:
    """Runs of the tests beside two busy loops: how many of four are not green."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    marked = [*pytest, "-n", "0", "-m", "timing or faults or hypothesis"]
    runs = [[*pytest, "-n", "auto", "-m", "not timing"], marked, marked, marked]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    failed: list[str] = []
    wrong = 0
    try:
        for command in runs:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            print(done.stdout.splitlines()[-1], flush=True)
            if done.returncode:
                wrong += 1
                failed += [line for line in done.stdout.splitlines() if line.startswith("FAILED")] or ["ended early"]
    finally:
        for process in busy:
            process.kill()
    return [judged("runs of the tests beside two busy loops that fail, of 4", wrong, 0, reason="; ".join(failed))]


def main() -> int:
    """Measure, print, write."""
    options = parser(__doc__)
    options.add_argument(
        "--pairs", type=int, default=6, choices=STUDENT, help="alternating pairs of each kind (default 6)"
    )
    options.add_argument("--suite", action="store_true", help="also run the tests beside two busy loops")
    options.add_argument("--keep", action="store_true", help="take speed and behaviour from the last result")
    chosen = options.parse_args()
    load = load_average()
    with checkout(BEFORE) as before:
        if before is None:
            return skip(f"commit {BEFORE} is not in this clone")
        rows, targets = sizes(before)
        more_rows, more_targets = kept() if chosen.keep else speed(before, chosen.pairs)
    rows += more_rows
    targets += more_targets + ([] if chosen.keep else behaviour()) + (suite() if chosen.suite else [])
    show("this tree and the one before it", rows)
    save_evidence("house", rows=rows, targets=targets, load_before=load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
