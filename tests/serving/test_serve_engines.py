"""The proxy before a real vLLM, which needs an environment of its own and ten minutes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_what_comes_through_is_what_vllm_says_and_is_charged() -> None:
    python, model = (os.environ.get(f"OUTTHINK_VLLM_{name}") for name in ("PYTHON", "MODEL"))
    if not python or not model:
        pytest.skip("OUTTHINK_VLLM_PYTHON and OUTTHINK_VLLM_MODEL name no vLLM (3.4 GB; see benchmarks/README.md)")
    sys.path.insert(0, str(BENCHMARKS))
    import serve_engine_checks
    import serve_engines

    names = [check.__name__ for kind in serve_engine_checks.CHECKS.values() for check in kind]
    rows, _ = serve_engines.measured(python, model, names)
    assert len(rows) > 100
    assert [row for row in rows if not row["right"]] == []
