"""Sends 10,000 random bodies through the proxy to a server that obeys every field, and looks for overspends.

Bodies of chats (strategies too), completions, responses and embeddings, with known names of lengths and two hundred
invented ones (as numbers, texts, whole floats, in lists, nested, in other capitals, doubled), multiplicities and unseen
input. Each key has a ceiling per request and a budget by day. Measures what the server has really worked for, not
speed. Takes two minutes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from common import ROOT, Table, judged, load_average, parser, save_evidence, show

sys.path.insert(0, str(ROOT / "tests"))

from outthink.serving.pool.rules import FieldSettings
from support.overspending import BOUNDED, RENAMED, Findings, OverspendSearch

REQUESTS = 10_000
OPERATORS = {
    "nothing allowed": FieldSettings(),
    "pictures and sound bounded": BOUNDED,
    "another name of lengths": RENAMED,
}


def row(operator: str, found: Findings) -> dict[str, object]:
    """What was seen under one operator's settings."""
    for fault in found.faults:
        print(fault, file=sys.stderr)
    values = {name: value for name, value in vars(found).items() if name not in ("codes", "faults")}
    return {"operator": operator, **values, "codes": dict(sorted(found.codes.items()))}


def targets(rows: Table) -> Table:
    """What was to be reached."""

    def total(name: str) -> int:
        return sum(line[name] for line in rows)

    return [
        judged("bodies sent", total("requests"), REQUESTS, better="higher"),
        judged("requests beyond their ceiling", total("over_ceiling"), 0),
        judged("days beyond their budget, or charged less than was worked for", total("over_day"), 0),
        judged("receipts below the truth", total("below_truth"), 0),
        judged("honest bodies refused though they fit", total("honest_refused"), 0),
        judged("requests that failed at the proxy", total("failed"), 0),
        judged("bodies served", total("served"), REQUESTS / 10, better="higher"),
    ]


def main() -> int:
    """Search, say what was found."""
    given = parser(__doc__)
    given.add_argument("--requests", type=int, default=REQUESTS)
    given.add_argument("--seed", type=int, default=1)
    wanted = given.parse_args()
    before, rows = load_average(), []
    for at, (operator, fields) in enumerate(OPERATORS.items()):
        with tempfile.TemporaryDirectory(prefix="outthink-ceilings-") as folder:
            search = OverspendSearch(Path(folder), fields)
            rows.append(row(operator, search.run(wanted.seed + at, requests=-(-wanted.requests // len(OPERATORS)))))
    show("Bodies by what became of them", rows)
    if wanted.requests >= REQUESTS:
        save_evidence("ceilings", rows=rows, targets=targets(rows), load_before=before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
