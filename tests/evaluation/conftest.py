"""Rows as `compare` gives them: two files, the references and two contenders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # controls and figures that only benchmarks use

LADDER = (1, 2, 4, 8, 16, 32)


def row(traces: str, strategy: str, n: int, accuracy: float, tokens: float, **more: Any) -> dict[str, Any]:
    """One row with plausible values for everything that is not given."""
    known = {
        "traces": traces,
        "model": traces.split("--")[0],
        "strategy": strategy,
        "n": n,
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.04,
        "accuracy_high": accuracy + 0.05,
        "tokens": tokens,
        "prompt_tokens": 74.0,
        "cancelled_tokens": 0.0,
        "flops": 1e9 * (tokens + 74),
        "seconds": tokens / 50,
        "samples": float(n),
        "ahead": n,
        "seeds": 4,
        "problems": 350,
        "difference": 0.0,
        "difference_low": 0.0,
        "difference_high": 0.0,
    }
    return known | more


@pytest.fixture
def report_rows() -> list[dict[str, Any]]:
    """38 rows."""
    rows = []
    for traces, start in (("small--demo", 0.2), ("large--demo", 0.5)):
        rows.append(row(traces, "greedy", 1, start + 0.05, 271.0))
        for rung, n in enumerate(LADDER):
            rows.append(row(traces, "self-consistency", n, start + 0.04 * rung, 260.0 * n))
            better = {"difference": 0.012, "difference_low": 0.004, "difference_high": 0.02}
            rows.append(row(traces, "adaptive-consistency", n, start + 0.04 * rung, 260 * n**0.9, **better))
            rows.append(row(traces, "oracle", n, start + 0.09 * rung, 260.0 * n, difference=None))
    return rows
