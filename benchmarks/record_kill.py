"""Kills `outthink record` with SIGKILL at random moments and lets the same command finish the job.

Measures, against a scripted server in another process that counts the requests for every (question,
seed, temperature): samples lost that had been reported as saved, samples in the journal that are
missing or different in the finished file, repeated rows, and saved samples that were asked for
again. What was in flight at the kill (32 at most) is asked for again and counted beside. Does not measure power
loss (a kill leaves the kernel's buffers alone). Needs nothing. Takes about two minutes.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from common import Table, load_average, parser, save, show, target
from loopback import asked, loopback
from outthink import Recording
from outthink.engines.openai import OpenAIEngine
from outthink.evaluation.dataset import open_dataset
from outthink.session.store import Questions

IN_FLIGHT = OpenAIEngine("http://127.0.0.1:1").concurrency
PROBLEMS, SAMPLES = 12, 9
WORDS, DELAY = 6, 0.04
ROWS = PROBLEMS * (SAMPLES + 1)


def command(url: str, folder: Path) -> list[str]:
    """The real command; ten rows a problem, one of them greedy."""
    program = Path(sys.executable).with_name("outthink")
    data = folder / "questions.jsonl"
    lines = [json.dumps({"id": f"q{i:02d}", "question": f"{folder.name} {i}?", "answer": "1"}) for i in range(PROBLEMS)]
    data.write_text("\n".join(lines))
    made = [str(program), "record", str(data), "--model", url, "--samples", str(SAMPLES), "--greedy"]
    return [*made, "--answer", "number", "--seed", "1", "--out", str(folder / "toy--questions.parquet")]


def start(made: list[str]) -> subprocess.Popen[str]:
    """Start recording; every commit is a line `saved N of M` on standard error."""
    return subprocess.Popen(made, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def reported(said: str) -> int:
    """How many samples the last whole line reported as saved."""
    counts = [
        int(line.split()[1]) for line in said.splitlines(keepends=True) if line.startswith("saved") and "\n" in line
    ]
    return max(counts, default=0)


def names(folder: Path) -> dict[str, str]:
    """The problem behind each question's name in the journal, as `record` gives it."""
    dataset = open_dataset(str(folder / "questions.jsonl"), "number")
    plan = Recording(samples=SAMPLES, greedy=True, answer="number", seed=1)
    named = Questions.names_by_problem((problem.problem_id, plan.request(problem)) for problem in dataset.problems)
    return {question: problem for problem, question in named.items()}


def journal(folder: Path) -> dict[str, str]:
    """Number and problem of every sample in the journal, with its text; read from a copy."""
    found: dict[str, str] = {}
    source = folder / "toy--questions.parquet.journal"
    if not source.exists():
        return found
    with tempfile.TemporaryDirectory() as place:
        for file in folder.glob(f"{source.name}*"):
            shutil.copy(file, place)
        database = sqlite3.connect(Path(place) / source.name)
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "samples" in tables:
            problems = names(folder)
            for key, value in database.execute("SELECT key, value FROM samples"):
                question, _, number = key.rpartition(":")
                found[f"{number}:{problems[question]}"] = json.loads(value)["text"]
        database.close()
    return found


def request_key(folder: Path, name: str) -> str:
    """The server's key for a row of the journal: row 0 is greedy, row i was drawn with seed + i - 1."""
    number, _, problem = name.partition(":")
    greedy = number == "0"
    question = f"{folder.name} {int(problem[1:])}?"
    return f"{question}#{1 if greedy else 1 + int(number) - 1}#{0.0 if greedy else 0.8}"


def one(url: str, folder: Path, moment: float) -> dict[str, Any]:
    """Kill one recording at a moment, finish it, and compare."""
    made = command(url, folder)
    process = start(made)
    time.sleep(moment)
    process.kill()
    said = process.communicate()[1]
    shown, kept = reported(said), journal(folder)
    time.sleep(0.2)  # what was in flight has reached the server
    before = Counter(name for name, _ in asked(url) if name.startswith(f"{folder.name} "))
    out = folder / "toy--questions.parquet"
    ended = out.exists()
    if not ended:
        again = subprocess.run(made, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if again.returncode:
            raise RuntimeError(f"the second run failed: {again.stderr}")
    after = Counter(name for name, _ in asked(url) if name.startswith(f"{folder.name} "))
    rows = parquet.read_table(out).to_pylist()
    final = {f"{row['sample_idx']}:{row['problem_id']}": row["text"] for row in rows}
    unknown = [name for name in kept if request_key(folder, name) not in before]
    if unknown:
        raise RuntimeError(
            f"the server has not seen {unknown[:3]}: this script and `record` number samples differently"
        )
    different = sum(final.get(name) != text for name, text in kept.items())
    return {
        "moment s": moment,
        "reported": shown,
        "journal": len(kept),
        "lost": max(0, shown - (len(rows) if ended else len(kept))) + different,
        "missing": ROWS - len(final),
        "repeated": len(rows) - len(final),
        "paid twice": sum(after[request_key(folder, name)] - before[request_key(folder, name)] for name in kept),
        "asked": sum(after.values()),
        "asked again": sum(after.values()) - ROWS,
        "left over": sum(1 for file in folder.iterdir() if "journal" in file.name or file.name.startswith(".")),
    }


def main() -> int:
    """One recording to its end for the time it takes, then the kills."""
    options = parser(__doc__)
    options.add_argument("--kills", type=int, default=20, help="recordings that are killed (default 20)")
    options.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    chosen = options.parse_args()
    load = load_average()
    rng = random.Random(chosen.seed)
    rows: Table = []
    with tempfile.TemporaryDirectory() as place, loopback(words=WORDS, delay=DELAY) as url:
        folder = Path(place) / "whole"
        folder.mkdir()
        began = time.monotonic()
        if start(command(url, folder)).wait():
            print("outthink record failed without being killed", file=sys.stderr)
            return 1
        duration = time.monotonic() - began
        for kill in range(chosen.kills):
            folder = Path(place) / f"kill{kill:02d}"
            folder.mkdir()
            rows.append(one(url, folder, rng.uniform(0.3, 0.95) * duration))
    show(f"{chosen.kills} recordings of {ROWS} samples, {duration:.1f} s each when left alone", rows)
    totals = {name: sum(row[name] for row in rows) for name in ("lost", "missing", "repeated", "paid twice")}
    while_sampling = sum(1 for row in rows if 0 < row["journal"] < ROWS)
    settings = {"kills": chosen.kills, "samples a recording": ROWS, "in flight at once": IN_FLIGHT, "seed": chosen.seed}
    lines = [
        target(
            f"{name} over {chosen.kills} kills, {while_sampling} of them while samples came in", "0", total, total == 0
        )
        for name, total in totals.items()
    ]
    save("record_kill", settings=settings, targets=lines, load_before=load, seconds_alone=duration, kills=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
