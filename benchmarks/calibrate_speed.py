"""How long `outthink calibrate` takes on 1,000 problems x 33 samples, without and with a verifier's scores.

Measures: wall time, processor time and peak memory of the real command, everything included: reading, fits of every
size and fold, the bootstrap of the promise, replay of all arms and controls, the policy's file. The best of five of
each, in turn. The scores are those of the shipped verifier that are kept in benchmarks/data. Needs the recorded sets
in ../shared/data/traces or $OUTTHINK_TRACES; ten minutes on two idle cores.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from common import NO_TRACES, ROOT, Table, judged, load_average, parser, save_evidence, skip, traces
from kept_scores import kept_scores, read_columns, scores_file
from outthink.engines.traces import VERIFIER_KEY
from processes import Usage, run

SET = "GSM8K 1.5B"
VERIFIER = ROOT / "data" / "verifiers" / "smollm2-135m-gsm8k"
LIMIT = 60.0
"""Seconds on two cores."""


def with_kept_scores(path: Path, name: str, folder: Path) -> Path:
    """A copy of a recorded file with the columns that `outthink verify` would add, its problems beside it."""
    table, about = parquet.read_table(path), read_columns(scores_file(name)).about
    kept, temperature = kept_scores(name), float(about["temperature"])
    samples = zip(table["problem_id"].to_pylist(), table["sample_idx"].to_pylist(), strict=True)
    found = [kept.get(sample) for sample in samples]
    chances = [None if one is None else 1 / (1 + math.exp(-one[0] / temperature)) for one in found]
    columns = {
        "score": pa.array(chances, pa.float64()),
        "steps": pa.array([None if chance is None else [chance] for chance in chances], pa.list_(pa.float64())),
        "verifier": pa.array([about["verifier"]] * len(found)),
        "verifier_tokens": pa.array([None if one is None else one[1] for one in found], pa.int64()),
    }
    for column, values in columns.items():
        table = table.append_column(column, values)
    described = {"id": about["verifier"], "kind": "process", "model": VERIFIER.name}
    described |= {"parameters": about["parameters"], "aggregation": about["aggregation"]}
    metadata = {**(table.schema.metadata or {}), VERIFIER_KEY: json.dumps(described).encode()}
    parquet.write_table(table.replace_schema_metadata(metadata), folder / path.name)
    problems = f"problems-{path.stem.split('--')[1]}.parquet"
    shutil.copy(path.parent / problems, folder / problems)
    return folder / path.name


def measured(way: str, command: list[str], out: Path) -> Usage:
    """One run of the command."""
    usage = run([str(Path(sys.executable).with_name("outthink")), "calibrate", *command, "--out", str(out)])
    if usage.code:
        raise SystemExit(f"outthink calibrate ({way}) ended with {usage.code}")
    return usage


def main() -> int:
    """Run both commands in turn, print, write."""
    options = parser(__doc__)
    options.add_argument("--times", type=int, default=5, help="runs of each (default 5)")
    chosen = options.parse_args()
    path = traces().get(SET)
    if path is None:
        return skip(NO_TRACES)
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        scored = with_kept_scores(path, SET, Path(folder))
        ways = {
            "without a verifier": [str(path)],
            "with a verifier": [str(scored), "--by", "flops", "--verifier", str(VERIFIER)],
        }
        found: dict[str, list[Usage]] = {way: [] for way in ways}
        for _ in range(chosen.times):
            for way, command in ways.items():
                found[way].append(measured(way, command, Path(folder) / "policy.json"))
    rows: Table = []
    for way, usages in found.items():
        seconds = [usage.seconds for usage in usages]
        row = {"way": way, "seconds": min(seconds), "seconds_each": seconds}
        row["processor_seconds"] = min(usage.processor for usage in usages)
        rows.append(row | {"peak_bytes": max(usage.peak for usage in usages)})
    name = "outthink calibrate on 1,000 problems x 33 samples, best of"
    targets = [
        judged(f"{name} {chosen.times}, seconds on two cores, {row['way']}", row["seconds"], LIMIT) for row in rows
    ]
    save_evidence("calibrate_speed", rows=rows, targets=targets, load_before=load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
