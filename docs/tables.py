"""The table of benchmark results on the page on cascades.

Knows: the rows that benchmarks/cascade.py writes. Does not know how they were measured.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
Row = dict[str, Any]
_SPLIT = re.compile(r", \d+ % to 1\.5B$")


def compared(name: str) -> str:
    """Contenders of a result file, a column for each set: the share of the reference's cost, then points lost or
    won."""
    whole: list[Row] = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    rows = [row for row in whole if row["table"] == "compared"]
    sets = list(dict.fromkeys(row["set"] for row in rows))
    found = {(_SPLIT.sub("", row["way"]), row["set"]): row for row in rows}
    reference = next(way for (way, _), row in found.items() if row["ratio"] == 1)
    ways = dict.fromkeys(way for way, _ in found if way != reference)
    accuracies = (f"{found[reference, one]['accuracy']:.1f} %" for one in sets)
    lines = [f"| | {' | '.join(sets)} |", "|---" * (1 + len(sets)) + "|", f"| {reference} | {' | '.join(accuracies)} |"]
    for way in ways:
        cells = (_share(found[way, one]) for one in sets)
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(row: Row) -> str:
    ends = "" if row["ratio_low"] is None else f" [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]"
    points = "" if row["difference"] is None else f"<br>{row['difference']}".replace("-", "−")
    return f"{row['ratio']:.3f}{ends}{points}".replace(" ", "\N{NO-BREAK SPACE}")
