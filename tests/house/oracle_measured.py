"""What the oracle does not record, or compares only roughly: dates, machines, and figures that hold measured time."""

from __future__ import annotations

IGNORED: dict[str, str] = {
    "benchmarks/*/date": "when it ran",
    "benchmarks/*/commit": "what was measured",
    "benchmarks/*/machine": "where it ran, and how busy that was",
    "benchmarks/*/versions": "of what is installed",
    "benchmarks/*/cost/*_ms": "measured time",
    "benchmarks/*/cost/resident_mb": "measured memory",
    "benchmarks/*/targets/processor time *": "measured time",
    "benchmarks/*/targets/memory *": "measured memory",
    "benchmarks/router/rows/*/router_cost_share": "measured time",
    "benchmarks/router/router.svg": "drawn over costs that hold measured time",
    "policy/file/created": "the day it was made",
    "policy/file/expires": "a year after that day",
    "policy/file/id": "a digest over the days, too",
}
"""Pattern of `part/path` -> why it is not recorded."""

CLOSE: dict[str, tuple[float, str]] = {
    "benchmarks/router/rows/*/auc_cost": (1e-4, "the router's measured time is charged"),
    "benchmarks/router/curves/*/cost_share": (1e-4, "the router's measured time is charged"),
    "benchmarks/router/cost/files_mb": (1e-3, "a router's file holds the day it was made"),
}
"""Pattern of `part/path` -> how far a number may be from the baseline, and why."""
