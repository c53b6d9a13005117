"""Reads answers out of recorded completions and grades them; what an earlier reader saw stands beside each.

GSM8K: 66,000 texts, how many that were graded right are lost and how many others gained, each with the rule that read
it. MATH-500: every distinct pair of problem and boxed answer. Equality: the property tests over ten thousand cases.
Speed: processor time on the same texts, worker included, in alternating pairs with an earlier version, whose source
folder `--before` names. Not measured: texts of larger models. Needs the recorded sets (see README.md); 15 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet

from common import MODELS, NO_TRACES, ROOT, judged, parser, save_evidence, skip, traces

_PAIRS = 8
_CASES = 10_000
_COLUMNS = ["problem_id", "sample_idx", "text", "answer", "extraction", "correct"]


def _golds(folder: Path, name: str) -> dict[str, str]:
    rows = parquet.read_table(folder / f"problems-{name}.parquet", columns=["problem_id", "answer"]).to_pylist()
    return {row["problem_id"]: row["answer"] for row in rows}


def _rows(folder: Path, model: str, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(folder / f"{model}--{name}.parquet", columns=_COLUMNS).to_pylist()
    return rows


def gsm8k(folder: Path) -> list[dict[str, Any]]:
    """One row a model, and the texts whose grade differs from the recorded one."""
    from outthink.answers import grade_many, read_sync

    golds, found = _golds(folder, "gsm8k"), []
    for model in MODELS:
        rows = _rows(folder, model, "gsm8k")
        readings = [read_sync("number", row["text"]) for row in rows]
        right = grade_many(
            "number", [(r.answer, golds[row["problem_id"]]) for r, row in zip(readings, rows, strict=True)]
        )
        differ: dict[str, list[dict[str, Any]]] = {"lost": [], "gained": []}
        for row, reading, now in zip(rows, readings, right, strict=True):
            if now != row["correct"]:
                about = {"problem": row["problem_id"], "sample": row["sample_idx"], "rule": reading.rule}
                differ["gained" if now else "lost"].append(about | {"read": reading.answer})
        found.append(
            {"set": "gsm8k", "model": model, "texts": len(rows), "right": sum(row["correct"] for row in rows)} | differ
        )
    return found


def math500(folder: Path) -> dict[str, Any]:
    """Every distinct (problem, boxed answer) of both models, graded again."""
    from outthink.answers import grade_many

    golds = _golds(folder, "math500")
    pairs = {
        (row["problem_id"], row["answer"]): row["correct"]
        for model in MODELS
        for row in _rows(folder, model, "math500")
        if row["extraction"] == "boxed"
    }
    graded = grade_many("math", [(answer, golds[problem]) for problem, answer in pairs])
    differ: dict[str, list[dict[str, Any]]] = {"lost": [], "gained": []}
    for ((problem, answer), before), now in zip(pairs.items(), graded, strict=True):
        if now != before:
            differ["gained" if now else "lost"].append({"problem": problem, "read": answer, "gold": golds[problem]})
    return {"set": "math500", "pairs": len(pairs), "right": sum(pairs.values())} | differ


def spent(folder: Path) -> dict[str, float]:
    """Processor seconds for a share of the texts, by kind; workers included. Runs with whatever `outthink` is found."""
    from outthink.answers import read_sync, reader_for

    texts = [row["text"] for model in MODELS for row in _rows(folder, model, "gsm8k")[::10]]
    read_sync("number", texts[0])
    began = time.process_time()
    for text in texts:
        read_sync("number", text)
    number = time.process_time() - began
    problems: dict[str, list[str]] = {}
    for model in MODELS:
        for row in _rows(folder, model, "math500"):
            problems.setdefault(model + row["problem_id"], []).append(row["text"])
    read_sync("math", r"\boxed{x+1}")
    began = time.process_time() + _of_children()
    for name in list(problems)[::15]:
        reader = reader_for("math")
        for text in problems[name][:16]:
            reader.read_now(text)
    return {"number": number, "math": time.process_time() + _of_children() - began}


def _of_children() -> float:
    """Processor seconds of this process's children that still run."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def ratios(folder: Path, before: Path) -> dict[str, np.ndarray]:
    """Time now over time before, by kind, one a pair; the two sides alternate."""
    sides: dict[str, list[dict[str, float]]] = {"now": [], "before": []}
    for turn in range(_PAIRS):
        for side in ("now", "before") if turn % 2 == 0 else ("before", "now"):
            source = before if side == "before" else ROOT / "src"
            command = [sys.executable, __file__, "--spent", str(folder)]
            run = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, text=True)
            if run.returncode:
                raise SystemExit(run.stderr)
            sides[side].append(json.loads(run.stdout))
    return {
        kind: np.array([now[kind] / then[kind] for now, then in zip(sides["now"], sides["before"], strict=True)])
        for kind in ("number", "math")
    }


def equality() -> int:
    """Exit code of the property tests over many cases."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "tests/answers/test_answer_equality.py",
    ]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"OUTTHINK_CASES": str(_CASES)}).returncode


def _speed(folder: Path, before: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows, targets = [], []
    for kind, measured in ratios(folder, before).items():
        drawn = np.random.default_rng(0).choice(measured, (2000, len(measured))).mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        rows.append({"set": f"speed of {kind}", "ratios": list(measured)})
        name = f"processor time of reading {kind} texts, over that of the earlier version"
        targets.append(judged(name, float(measured.mean()), 1.1, low=float(low), high=float(high)))
    return rows, targets


def main() -> int:
    """Read, grade, compare, and write the result."""
    options = parser(__doc__)
    options.add_argument("--before", type=Path, metavar="SRC", help="source of an earlier version, for the speed")
    options.add_argument("--spent", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.spent:
        print(json.dumps(spent(chosen.spent)))
        return 0
    load = os.getloadavg()[0]
    if not traces():
        return skip(NO_TRACES)
    folder = next(iter(traces().values())).parent
    rows: list[dict[str, Any]] = [*gsm8k(folder), math500(folder)]
    lost, gained = (sum(len(row[name]) for row in rows[:2]) for name in ("lost", "gained"))
    targets = [
        judged("GSM8K texts graded right before, and now not", lost, 40),
        judged("GSM8K texts graded right now, and before not", gained, 5),
        judged("MATH-500 pairs graded right before, and now not", len(rows[2]["lost"]), 2),
        judged(
            "MATH-500 pairs graded right now, and before not",
            len(rows[2]["gained"]),
            0,
            reason="each has exactly the gold answer's value; the recorded grader read decimals in formulas as floats",
        ),
        judged(f"failures of the equality properties over {_CASES:,} cases", equality(), 0),
    ]
    if chosen.before:
        more, limits = _speed(folder, chosen.before)
        rows, targets = rows + more, targets + limits
    save_evidence("answers", rows=rows, targets=targets, load_before=load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
