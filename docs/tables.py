"""Tables of benchmark results for the pages on policies and cascades.

Knows: the rows that benchmarks/auto.py and benchmarks/cascade.py write. Does not know how they were measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
NONE = "–"
Row = dict[str, Any]


def compared(argument: str) -> str:
    """Contenders against their reference, from `NAME` or `NAME:TABLE` (hyphens for underscores); KeyError for a
    table that the file does not have."""
    name, _, table = argument.partition(":")
    rows: list[Row] = _read(name)[table.replace("-", "_") or "compared"]
    if not rows:
        return "*Not measured: there were no scores of a verifier.*"
    control = "to control" in rows[0]
    heads = [
        "set",
        "",
        "accuracy, %",
        "points lost or won",
        "share of the reference",
        *(["less the control's"] * control),
    ]
    lines = [f"| {' | '.join(heads)} |", f"|---|---|--:|---|---|{'---|' * control}"]
    for row in rows:
        share = _ranged(row["ratio"], row["ratio_low"], row["ratio_high"], "")
        cells = [row["set"], row["way"], f"{row['accuracy']:.1f}", _signed(row["difference"]), share]
        if control:
            cells.append(_ranged(row["to control"], row["to control low"], row["to control high"], "+"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


SAVED = {
    "adaptive-consistency": "adaptive-consistency",
    "esc": "esc",
    "what calibrate ships": "**calibrated policy**",
    "oracle, no more accurate": "oracle",
}


def saved(name: str) -> str:
    """Share of self-consistency@32's tokens that its accuracy costs, a column for each way, in few words."""
    rows: list[Row] = _read(name)["compared"]
    sets = list(dict.fromkeys(row["set"] for row in rows))
    lines = [f"| tokens for the accuracy of self-consistency@32 | {' | '.join(sets)} |", "|---|" + "--:|" * len(sets)]
    for way, shown in SAVED.items():
        found = {row["set"]: row for row in rows if row["way"] == way}
        cells = [f"{found[one]['ratio']:.2f}" for one in sets]
        lines.append(f"| {shown} | {' | '.join(cells)} |")
        if shown.startswith("**"):
            points = [_signed(found[one]["difference"]) for one in sets]
            lines.append(f"| its points lost or won | {' | '.join(points)} |")
    margin = 100 * _read(name)["settings"]["margin"]
    shipped = (row for row in rows if row["way"] == "what calibrate ships")
    over = [row["set"] for row in shipped if float(row["difference"].split()[0]) < -margin]
    if over:
        lines += ["", f"The goal was to lose {margin:g} points at most: missed on {', '.join(over)}."]
    return "\n".join(lines)


def passing(name: str) -> str:
    """Where votes of the weak model pass one answer of the strong one, bin by bin."""
    lines = [
        "| set | problems | one 1.5B answer | one 0.5B answer | 16 votes of the 0.5B | perfect choice among 16 "
        "| votes that pass, cost | perfect choice that passes, cost |",
        "|---|---|--:|--:|--:|--:|---|---|",
    ]
    for row in _read(name)["passing"]:
        shares = ("1.5B single", "0.5B single", "0.5B 16 votes", "0.5B best of 16, perfect choice")
        cells = [row["set"], row["bin"], *(f"{row[key]:.1f}" for key in shares)]
        if not row["1.5B single"]:
            cells += ["(both fail)", "(both fail)"]
        else:
            cells.append(_passes(row["votes to pass"], row["their cost over one 1.5B answer"]))
            cells.append(_passes(row["samples to pass, perfect choice"], row["cost over one 1.5B answer"]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def _passes(samples: int | None, cost: float | None) -> str:
    return "never" if samples is None else f"{samples}, {cost:.1f} x"


def _ranged(value: float | None, low: float | None, high: float | None, sign: str) -> str:
    if value is None:
        return NONE
    if low is None or high is None or low == high:
        return _number(value, sign)
    return f"{_number(value, sign)} [{_number(low, sign)}, {_number(high, sign)}]"


def _number(value: float, sign: str) -> str:
    return f"{value:{sign}.3f}".replace("-", "−")


def _signed(text: str | None) -> str:
    return NONE if text is None else text.replace("-", "−")
