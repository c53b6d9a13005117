"""What every test has of its own: the folder in which facts about servers are remembered."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of a server but what this test has found out: others had servers at the same port.

    The embedded model is fetched once for all tests.
    """
    if request.node.get_closest_marker("embedded") is None:
        monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
