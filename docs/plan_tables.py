"""What the page on capacity shows: saturation beside the ceiling, two traces on GPUs, and how fast the simulator is.

Knows: rows of `benchmarks/results/plan.json`. Does not know how they were measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
Row = dict[str, Any]


def table(argument: str) -> str:
    """The Markdown of one part: `saturation`, `azure` or `speed`; KeyError for another."""
    found: list[Row] = json.loads((RESULTS / "plan.json").read_text())["rows"]
    return {"saturation": _saturation, "azure": _azure, "speed": _speed}[argument](found)


def _kind(found: list[Row], kind: str) -> list[Row]:
    return [row for row in found if row["kind"] == kind]


def _saturation(found: list[Row]) -> str:
    """What the simulated server reaches of the ceiling."""
    rows = _kind(found, "saturation")
    lines = ["| of the ceiling, simulated | memory, tokens | restarts | keeps its tokens | reservation |"]
    lines.append("|---|--:|--:|--:|--:|")
    for name, memory in dict.fromkeys((row["workload"], row["memory"]) for row in rows):
        of = {row["preempt"]: row for row in rows if (row["workload"], row["memory"]) == (name, memory)}
        cells = [f"{row['over_ceiling']:.3f} ({row['reference']:.3f})" for row in (of["restart"], of["keep"])]
        lines.append(f"| {name} | {memory:,} | {cells[0]} | {cells[1]} | {of['keep']['reservation']:.3f} |")
    about = "Requests a second of a full server over M / (b E[g]), means of ten seeds; in brackets an independent"
    about += " simulation of the same rules."
    return "\n".join([*lines, "", about])


def _azure(found: list[Row]) -> str:
    """GPUs of two traces by four rules."""
    rows = _kind(found, "azure")
    most = max(row["services"] for row in rows)
    lines = [
        f"| {most} services side by side | samples | in flight | formula | simulated | begun first | reservation |"
    ]
    lines.append("|---|---|--:|--:|--:|--:|--:|")
    for row in rows:
        if row["services"] == most:
            gpus = [row[key] for key in ("gpus", "gpus_simulated", "gpus_simulated_priority", "gpus_reservation")]
            cells = " | ".join(str(count) for count in gpus)
            lines.append(f"| {row['trace']}, {row['rate']:.0f}/s | {row['samples']} | {row['in_flight']} | {cells} |")
    return "\n".join(lines)


def _speed(found: list[Row]) -> str:
    """Request-iterations a second."""
    speed = {row["workload"]: row["a_second"] / 1e6 for row in _kind(found, "speed")}
    (million,) = _kind(found, "million rows")
    return (
        f"One core works through {speed['independent']:.0f} million request-iterations a second for independent "
        f"requests and {speed['groups']:.0f} million with groups, shared prompts, stopping, cancelling and preemption; "
        f"a trace of a million rows is planned in {million['planned']:.1f} s and simulated in "
        f"{million['simulated']:.1f} s."
    )
