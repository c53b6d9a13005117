"""How the memory of `outthink record` and `outthink compare` grows with their files: 10,000 and 100,000 rows.

Measures: peak memory of each command's process tree (pages shared between processes counted in each) on files of 8
samples a problem, as a server with log-probabilities gives them, and what a row takes as an Arrow table. `record`
draws from a scripted engine in its own process, so that memory and not a server is measured. Needs nothing. Takes
about ten minutes, most of it for commits.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as parquet

from common import Table, judged, load_average, parser, save_evidence, show
from outthink import Recording, ScriptedEngine
from outthink.engines.protocol import Speed
from outthink.engines.scripted import Completion
from outthink.evaluation.dataset import open_dataset
from outthink.evaluation.record import record
from processes import run

SIZES = (10_000, 100_000)
SAMPLES = 8
WORDS = "so the number of apples that are left in the basket is what we had less what was eaten by the children " * 4


def script(call: object) -> Completion:
    """A worked solution of about a hundred tokens; two of three are right."""
    draw = hash(str(call)) % 3
    return Completion(
        text=f"{WORDS}The answer is {7 if draw else draw + 8}.", tokens=110, logprob=-0.3, confidence=12.0
    )


def questions(path: Path, rows: int) -> Path:
    """As many questions as make so many rows."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows // SAMPLES):
            question = f"There are {number} apples in a basket, and the children eat some of them. How many are left?"
            file.write(json.dumps({"question": question, "answer": "7"}) + "\n")
    return path


def recorded(source: Path, out: Path) -> None:
    """What the measured process does for `record`."""
    engine = ScriptedEngine(script, model="toy", prompt_tokens=40, speed=Speed(concurrency=32))
    plan = Recording(samples=SAMPLES, answer="number")
    asyncio.run(record(open_dataset(str(source), "number"), engine, out, plan))


def main() -> int:
    """Record and compare at both sizes."""
    options = parser(__doc__)
    options.add_argument(
        "--record", nargs=2, type=Path, metavar=("DATASET", "OUT"), help="only record, in this process"
    )
    chosen = options.parse_args()
    if chosen.record:
        recorded(*chosen.record)
        return 0
    load = load_average()
    rows: Table = []
    with tempfile.TemporaryDirectory() as place:
        for size in SIZES:
            out = Path(place) / f"toy--{size}.parquet"
            source = questions(out.with_suffix(".jsonl"), size)
            drawn = run([sys.executable, __file__, "--record", str(source), str(out)])
            replayed = run([str(Path(sys.executable).with_name("outthink")), "compare", str(out), "--seeds", "1"])
            if drawn.code or replayed.code:
                print(f"a command ended with {drawn.code or replayed.code}", file=sys.stderr)
                return 1
            arrow = parquet.read_table(out).nbytes
            rows.append({"rows": size, "Arrow bytes": arrow, "record peak": drawn.peak, "compare peak": replayed.peak})
    show("bytes", rows)
    small, large = rows
    added = large["Arrow bytes"] - small["Arrow bytes"]
    growth = {name: large[f"{name} peak"] - small[f"{name} peak"] for name in ("record", "compare")}
    targets = [
        judged("record: growth of the peak from 10,000 to 100,000 rows, bytes", growth["record"], 50e6),
        judged("compare: growth over the added rows' size in Arrow", growth["compare"] / added, 1.3),
    ]
    save_evidence("file_memory", rows=rows, targets=targets, load_before=load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
