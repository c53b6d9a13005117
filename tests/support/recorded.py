"""The recorded samples that the repository ships, and the mark of tests that read them.

The source distribution lacks them, and the shipped verifier's weights: 18 MB beside 2.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from outthink.engines.traces import Traces, load
from outthink.evaluation.calibration.votes import Table, deal_one

DEMO = Path(__file__).resolve().parents[2] / "data" / "demo"
needs_demo = pytest.mark.skipif(
    not list(DEMO.glob("qwen*.parquet")), reason="needs data/demo, which the source distribution lacks"
)


@cache
def demo_traces() -> Traces:
    """The samples of the larger of the two models."""
    return load(DEMO / "qwen2.5-coder-1.5b-instruct-q4--demo.parquet")


@cache
def demo_table(orders: int, depth: int) -> Table:
    """The same, dealt."""
    return deal_one(demo_traces(), orders=orders, depth=depth)
