"""Random bodies against a server that obeys every field: a minute of what `benchmarks/ceilings.py` does at length."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from outthink.core.request import Budget
from outthink.serving.pool import BackendSettings
from outthink.serving.pool.rules import FieldSettings
from outthink.serving.protocols import Key
from support.ledgers import KeyRing
from support.lenient_server import LenientServer
from support.overspending import BOUNDED, RENAMED, OverspendSearch
from support.proxy_server import ProxyServer

SECONDS = 20.0
REQUESTS = 1_000


@pytest.mark.parametrize(("seed", "fields"), [(101, FieldSettings()), (102, BOUNDED), (103, RENAMED)])
def test_no_body_costs_more_than_its_key_may_spend(tmp_path: Path, seed: int, fields: FieldSettings) -> None:
    found = OverspendSearch(tmp_path, fields).run(seed, requests=REQUESTS, seconds=SECONDS)
    assert not found.faults
    assert found.served > found.requests / 10
    assert found.honest_served > found.honest / 2
    assert found.tightest > 0.9


def test_backends_of_one_model_may_call_a_length_by_different_names() -> None:
    names, key = ("max_completion_tokens", "max_tokens", None), Key("wide", budget=Budget(tokens=40_000))
    with LenientServer() as first, LenientServer() as second, LenientServer() as third:
        servers = dict(zip((first, second, third), names, strict=True))
        backends = [
            BackendSettings(url=each.url, fields=FieldSettings(length_name=name)) for each, name in servers.items()
        ]
        with ProxyServer(*backends, ledger=KeyRing(key, "free")) as proxy:
            for at in range(12):  # of prompts that begin differently, so that each backend gets some
                for model, by in (
                    ("toy", "wide"),
                    ("outthink/self-consistency@3", "wide"),
                    ("outthink/single", "free"),
                ):
                    got = proxy.chat(model, f"{at} Hello", headers={"Authorization": f"Bearer {by}"}, max_tokens=9)
                    assert got.status == 200
        for each, name in servers.items():
            lengths = [{field: body[field] for field in body if "tokens" in field} for body in each.bodies]
            assert len(lengths) > 3
            assert all(told == {name or "max_tokens": 9} for told in lengths)
