"""Runs every block of README and docs that can be run, in a fresh copy with fresh caches: a newcomer's first hour.

Measures, block by block, seconds and exit code of what is marked `fast` or `heavy` (docs/marked.py), and what is kept
of a budget in seconds where a verifier has to read its model first. Does not measure whether a page reads well. Needs
port 8000, a package index and about 3 GB; takes about twenty minutes on two cores. Run it before a release.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, Table, judged, load_average, parser, save_evidence, show, skip

sys.path.insert(0, str(ROOT / "docs"))

from marked import Copy, Ran, blocks, pages, told

BUDGETS = (2.0, 5.0)
LATE = 0.25
"""Seconds after a deadline within which `ask` returns (docs/contracts.md)."""
VERIFIER = "data/verifiers/smollm2-135m-gsm8k"


def taken(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def deadlines(copy: Copy) -> Table:
    """`ask` under a budget in seconds with a verifier whose model nobody has unpacked yet."""
    rows = []
    for budget in BUDGETS:
        shutil.rmtree(Path(copy.env["OUTTHINK_CACHE"]) / "expanded", ignore_errors=True)
        command = [str(copy.folder / ".venv/bin/outthink"), "ask", "What is 17 * 23?", "--answer", "number", "--json"]
        command += ["--strategy", "weighted-vote:n=8", "--verifier", VERIFIER, "--budget", f"seconds={budget}"]
        began = time.monotonic()
        done = subprocess.run(command, cwd=copy.folder, env=copy.env, capture_output=True, text=True)
        wall = time.monotonic() - began
        result = json.loads(done.stdout)
        receipt = result["receipt"]["seconds"]
        rows.append({"budget": budget, "receipt": receipt, "wall": wall, "stopped": result["stopped"]})
    return rows


def row(ran: Ran) -> dict[str, object]:
    """A block that has run."""
    block = ran.block
    first = block.text.strip().splitlines()[0]
    return {"page": block.page, "line": block.line, "mark": block.mark, "command": first[:100],
            "seconds": ran.seconds, "code": ran.code}  # fmt: skip


def main() -> int:
    """Run all blocks, say how it went."""
    given = parser(__doc__)
    given.add_argument("--pages", nargs="*", default=pages(), metavar="PAGE", help="only these, README.md first")
    chosen = [block for page in given.parse_args().pages for block in blocks(page) if block.runs]
    if taken(8000):
        return skip("port 8000 is taken")
    before = load_average()
    done: list[Ran] = []
    with tempfile.TemporaryDirectory(prefix="outthink-first-hour-") as folder:
        copy = Copy(Path(folder), fresh=True)
        try:
            for block in chosen:
                done.append(copy.run(block))
                print(told(done[-1]), flush=True)
            kept = deadlines(copy)
        finally:
            copy.end()
    show("A budget in seconds, with a verifier that is read first", kept)
    asked = next(place for place, ran in enumerate(done) if "outthink ask" in ran.block.text)
    targets = [
        judged("blocks of README and docs that fail", sum(ran.code != 0 for ran in done), 0),
        judged("seconds to the first answer", sum(ran.seconds for ran in done[: asked + 1]), 300),
        judged("seconds of the fast blocks of README, run by CI", sum(ran.seconds for ran in done
               if ran.block.fast and ran.block.page == "README.md"), 300),
        judged("seconds of a receipt beyond its budget while a verifier is read",
               max(line["receipt"] - line["budget"] for line in kept), LATE),
        judged("seconds of wall clock beyond that, the start of the program included",
               max(line["wall"] - line["receipt"] for line in kept), 3),
    ]  # fmt: skip
    save_evidence("first_hour", rows=[*map(row, done), *kept], targets=targets, load_before=before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
