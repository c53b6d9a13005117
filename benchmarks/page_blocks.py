"""Runs every block of README and docs that can be run, in a fresh copy with fresh caches.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, Table, commit, judged, load_average, parser, save_evidence, show, skip

sys.path.insert(0, str(ROOT / "docs"))

from marked import Block, Copy, Ran, blocks, pages, told

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


def row(ran: Ran) -> dict[str, Any]:
    """A block that has run."""
    block = ran.block
    first = block.text.strip().splitlines()[0]
    where = {"page": block.page, "line": block.line, "mark": block.mark, "command": first[:100]}
    return {**where, "seconds": ran.seconds, "code": ran.code, "commit": commit()}


def measured(chosen: Sequence[Block], *, whole: bool) -> Table:
    """The rows of these blocks, and with all of README those of the deadlines."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="outthink-page-blocks-") as folder:
        copy = Copy(Path(folder), fresh=True)
        try:
            for block in chosen:
                ran = copy.run(block)
                print(told(ran), flush=True)
                rows.append(row(ran))
            return [*rows, *(deadlines(copy) if whole else [])]
        finally:
            copy.end()


def targets(rows: Table) -> Table:
    """What was to be reached."""
    done, kept = ([line for line in rows if (name in line)] for name in ("page", "budget"))
    readme = [line for line in done if line["page"] == "README.md"]
    late = max(line["receipt"] - line["budget"] for line in kept)
    exits = max(line["wall"] - line["receipt"] for line in kept)
    busy = "other work has the cores: importing torch holds the interpreter for as long as it is kept waiting"
    return [
        judged("blocks of README and docs that fail", sum(line["code"] != 0 for line in done), 0),
        judged("seconds of `make demo` and the first question", sum(line["seconds"] for line in readme[:2]), 300),
        judged("seconds of README's fast blocks", sum(r["seconds"] for r in readme if r["mark"] == "fast"), 300),
        judged("seconds of a receipt beyond its budget while a verifier is read", late, LATE, reason=busy),
        judged("seconds of wall clock beyond the receipt, the start of Python included", exits, 3, reason=busy),
    ]


def main() -> int:
    """Run the blocks, say how it went."""
    given = parser(__doc__)
    about = "only these and the first block; the figures of all other blocks stay as they were"
    given.add_argument("--pages", nargs="+", metavar="PAGE", help=about)
    wanted = given.parse_args().pages
    every = [block for page in pages() for block in blocks(page) if block.runs]
    chosen = [block for block in every if wanted is None or block.page in wanted or block is every[0]]
    if taken(8000):
        return skip("port 8000 is taken")
    before = load_average()
    rows = measured(chosen, whole=wanted is None)
    show("A budget in seconds, with a verifier that is read first", [line for line in rows if "budget" in line])
    if wanted is not None:
        known = json.loads((RESULTS / "page_blocks.json").read_text())["rows"]
        rows = [line for line in known if line.get("page") not in wanted] + [r for r in rows if r["page"] in wanted]
        order = {page: place for place, page in enumerate(pages())}
        rows.sort(key=lambda line: order.get(line.get("page"), len(order)))  # the deadlines last
    save_evidence("page_blocks", rows=rows, targets=targets(rows), load_before=before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
