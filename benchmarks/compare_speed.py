"""How long `outthink compare` takes on 1,000 problems x 33 samples, and how much memory.

Measures: wall time, processor time and peak memory (process tree, pages shared between processes
counted in each) of the real command with the eight usual strategies at sizes 1, 2, 4, 8, 16, 32 and
20 orders, HTML report included. The wall time depends on what else the machine does: processor
seconds / cores beside it says what an idle machine would need. Needs the recorded sets in
../shared/data/traces or $OUTTHINK_TRACES. Takes under a minute on two idle cores.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from common import NO_TRACES, load_average, parser, save, skip, target, traces
from processes import run

FILE = "GSM8K 1.5B"


def main() -> int:
    """Run the command once."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=20, help="orders of the samples (default 20)")
    chosen = options.parse_args()
    path = traces().get(FILE)
    if path is None:
        return skip(NO_TRACES)
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        command = [str(Path(sys.executable).with_name("outthink")), "compare", str(path), "--seeds", str(chosen.seeds)]
        usage = run([*command, "--json", str(out / "rows.json"), "--html", str(out / "report.html")])
    if usage.code:
        print(f"outthink compare ended with {usage.code}", file=sys.stderr)
        return 1
    cores = os.cpu_count() or 1
    idle = usage.processor / cores
    peak = usage.peak / 2**30
    note = f"{usage.seconds:.1f} s wall, {usage.processor:.1f} s processor time ({idle:.1f} s a core), load {load:.1f}"
    save(
        "compare_speed",
        settings={"orders": chosen.seeds, "problems": 1000, "samples": 33, "file": path.name},
        targets=[
            target("compare on 1,000 problems, 20 orders", "60 s on two cores", note, usage.seconds < 60),
            target("peak memory of its process tree", "1.5 GB", f"{peak:.2f} GiB", usage.peak < 1.5e9),
        ],
        load_before=load,
        wall_seconds=usage.seconds,
        processor_seconds=usage.processor,
        peak_bytes=usage.peak,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
