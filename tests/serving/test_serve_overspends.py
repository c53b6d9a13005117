"""Random bodies against a server that obeys every field: a minute of what `benchmarks/ceilings.py` does at length."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.pool.rules import FieldSettings
from support.overspending import BOUNDED, OverspendSearch

SECONDS = 30.0
REQUESTS = 1_500


@pytest.mark.parametrize(("seed", "fields"), [(101, FieldSettings()), (102, BOUNDED)])
def test_no_body_costs_more_than_its_key_may_spend(tmp_path: Path, seed: int, fields: FieldSettings) -> None:
    found = OverspendSearch(tmp_path, fields).run(seed, requests=REQUESTS, seconds=SECONDS)
    assert not found.faults
    assert found.served > found.requests / 10
    assert found.honest_served > found.honest / 2
    assert found.tightest > 0.9
