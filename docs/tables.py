"""Tables of benchmark results for the pages on policies and cascades.

Knows: the rows that benchmarks/auto.py and benchmarks/cascade.py write. Does not know how they were measured.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
Row = dict[str, Any]


STOPPERS = (
    "adaptive-consistency",
    "esc",
    "tuned adaptive-consistency",
    "linear gain, votes exp(0.25 z + 0.25 c)",
    "boosted gain, votes exp(0.25 z + 0.25 c)",
    "what calibrate ships",
    "oracle, no more accurate",
    "random stopping, same cost",
)
"""The ways that the page on policies shows; the result file has more."""
_SPLIT = re.compile(r", \d+ % to 1\.5B$")


def compared(argument: str) -> str:
    """Contenders, a column for each set, from `NAME` or `NAME:TABLE` (hyphens for underscores): the share of the
    reference's cost, then points lost or won. KeyError for a table that the file does not have."""
    name, _, table = argument.partition(":")
    rows: list[Row] = _read(name)[table.replace("-", "_") or "compared"]
    if not rows:
        return "*Not measured: there were no scores of a verifier.*"
    sets = list(dict.fromkeys(row["set"] for row in rows))
    found = {(_SPLIT.sub("", row["way"]), row["set"]): row for row in rows}
    reference = next(way for (way, _), row in found.items() if row["ratio"] == 1)
    ways = STOPPERS if argument == "auto" else dict.fromkeys(way for way, _ in found if way != reference)
    accuracies = (f"{found[reference, one]['accuracy']:.1f} %" for one in sets)
    lines = [f"| | {' | '.join(sets)} |", "|---" * (1 + len(sets)) + "|", f"| {reference} | {' | '.join(accuracies)} |"]
    for way in ways:
        cells = (_share(found[way, one], 3 if len(sets) < 3 else 2) for one in sets)
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def _share(row: Row, digits: int) -> str:
    low, high = row["ratio_low"], row["ratio_high"]
    ends = "" if low == high else f" [{low:.{digits}f}, {high:.{digits}f}]"
    points = "" if row["difference"] is None else f"<br>{_signed(row['difference'])}"
    return f"{row['ratio']:.{digits}f}{ends}{points}".replace(" ", "\N{NO-BREAK SPACE}")


def _signed(text: str) -> str:
    return text.replace("-", "−")
