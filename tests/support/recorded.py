"""The recorded samples that the repository ships, and the mark of tests that read them.

The source distribution lacks them, and the shipped verifier's weights: 18 MB beside 2.
"""

from __future__ import annotations

from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "data" / "demo"
needs_demo = pytest.mark.skipif(
    not list(DEMO.glob("qwen*.parquet")), reason="needs data/demo, which the source distribution lacks"
)
