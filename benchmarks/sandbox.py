"""Code against tests: checks a second, agreement with the recorded verdicts, and the hostile corpus.

Needs the recorded HumanEval samples and problems (folder `code` next to the traces, or OUTTHINK_CODE), and a
sandbox that can run. Every difference from a recorded verdict is listed with what the sandbox said.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import common
from outthink.core.errors import Unsupported
from outthink.verifiers.code import CodeLimits, CodeProblem, CodeSandbox, CodeVerdict, check_all
from outthink.verifiers.code.walls import bubblewrap

sys.path.insert(0, str(common.ROOT / "tests" / "verifiers"))
from hostile import HOSTILE

FILES = {"0.5B": f"{common.MODELS[0]}--humaneval.parquet", "1.5B": f"{common.MODELS[1]}--humaneval.parquet"}
WALL = 3.0


def folder() -> Path:
    """Where the recorded samples lie."""
    return Path(os.environ.get("OUTTHINK_CODE") or common.ROOT.parent / "shared" / "data" / "code")


def problems() -> dict[str, CodeProblem]:
    """The recorded problems by id."""
    rows = pq.read_table(folder() / "problems-humaneval.parquet").to_pylist()
    return {row["problem_id"]: CodeProblem(row["prompt"], row["entry_point"], row["test"]) for row in rows}


def agreement(name: str, every: int, workers: int) -> tuple[dict[str, Any], common.Table]:
    """One file's verdicts against the recorded ones, and the differences; each is judged a second time, alone."""
    known = problems()
    rows = pq.read_table(folder() / FILES[name], columns=["problem_id", "sample_idx", "text", "passed"]).to_pylist()
    rows = rows[::every]
    start = time.perf_counter()
    tasks = [(known[row["problem_id"]], row["text"]) for row in rows]
    verdicts = asyncio.run(check_all(tasks, CodeSandbox(), workers=workers))
    seconds = time.perf_counter() - start
    apart = []
    for task, row, verdict in zip(tasks, rows, verdicts, strict=True):
        if verdict.passed != row["passed"]:
            (again,) = asyncio.run(check_all([task], CodeSandbox(), workers=1))
            apart.append(
                {
                    "samples": name,
                    "problem": row["problem_id"],
                    "sample": row["sample_idx"],
                    "recorded": row["passed"],
                    "here": verdict.passed,
                    "alone": again.passed,
                    "said": (verdict.message or again.message)[:160],
                }
            )
    line = {
        "samples": name,
        "checks": len(rows),
        "passed": sum(verdict.passed for verdict in verdicts),
        "differ": len(apart),
        "differ alone": sum(one["alone"] != one["recorded"] for one in apart),
        "agreement %": 100 * (1 - len(apart) / len(rows)),
        "seconds": seconds,
        "checks a second": len(rows) / seconds,
        "load at the end": os.getloadavg()[0],
    }
    return line, apart


def hostile() -> common.Table:
    """Every hostile program's verdict. Targets on the host are given by the tests; here they are blanks."""
    problem = CodeProblem("", "add", "def check(candidate):\n    assert candidate(1, 2) == 3\n")
    sandbox = CodeSandbox(CodeLimits(cpu=1, wall=WALL, memory=2**28))

    async def all_of_them() -> list[tuple[CodeVerdict, float]]:
        gate = asyncio.Semaphore(4)

        async def one(program: str) -> tuple[CodeVerdict, float]:
            for blank in ("port", "pid"):
                program = program.replace("{" + blank + "}", "54321")
            async with gate:
                start = time.perf_counter()
                return await sandbox.check(problem, program), time.perf_counter() - start

        return list(await asyncio.gather(*(one(program) for program in HOSTILE.values())))

    return [
        {"program": name, "passed": verdict.passed, "seconds": seconds, "said": verdict.message[:100]}
        for name, (verdict, seconds) in zip(HOSTILE, asyncio.run(all_of_them()), strict=True)
    ]


def main() -> int:
    """Measure and write."""
    arguments = common.parser(__doc__)
    arguments.add_argument("--every", type=int, default=1, help="judge every n-th sample only")
    arguments.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="checks at once")
    options = arguments.parse_args()
    if not (folder() / "problems-humaneval.parquet").is_file():
        return common.skip("the recorded samples are not in ../shared/data/code; set OUTTHINK_CODE to their folder")
    try:
        bubblewrap()
    except Unsupported as why:
        return common.skip(str(why))
    before = os.getloadavg()[0]
    lines, apart = [], []
    for name in FILES:
        line, differences = agreement(name, options.every, options.workers)
        lines.append(line)
        apart += differences
    programs = hostile()
    common.show("agreement with the recorded verdicts", lines)
    common.show("differences", apart)
    worst = min(line["agreement %"] for line in lines)
    speed = min(line["checks a second"] for line in lines)
    fooled = sum(row["passed"] for row in programs)
    longest = max(row["seconds"] for row in programs)
    common.save(
        "sandbox",
        settings={"every": options.every, "workers": options.workers, "hostile programs' seconds": WALL},
        targets=[
            common.target("agreement with recorded verdicts", "99.5 %", f"{worst:.2f} %", worst >= 99.5),
            common.target("checks a second", "15", f"{speed:.1f}", speed >= 15),
            common.target("hostile programs", "at least 25", len(HOSTILE), len(HOSTILE) >= 25),
            common.target("hostile programs judged a pass", "0", fooled, fooled == 0),
            common.target("longest hostile check", f"{WALL + 5:g} s", f"{longest:.1f} s", longest <= WALL + 5),
        ],
        load_before=before,
        agreement=lines,
        differences=apart,
        hostile=programs,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
