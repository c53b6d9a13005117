"""Random bodies against a server that obeys every field: a minute of what `benchmarks/ceilings.py` does at length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
WIDE = Key("wide", budget=Budget(tokens=40_000))


@pytest.mark.parametrize(("seed", "fields"), [(101, FieldSettings()), (102, BOUNDED), (103, RENAMED)])
def test_no_body_costs_more_than_its_key_may_spend(tmp_path: Path, seed: int, fields: FieldSettings) -> None:
    found = OverspendSearch(tmp_path, fields).run(seed, requests=REQUESTS, seconds=SECONDS)
    assert not found.faults
    assert found.served > found.requests / 10
    assert found.honest_served > found.honest / 2
    assert found.tightest > 0.9


def test_backends_of_one_model_may_call_a_length_by_different_names() -> None:
    names = ("max_completion_tokens", "max_tokens", None)
    with LenientServer() as first, LenientServer() as second, LenientServer() as third:
        servers = dict(zip((first, second, third), names, strict=True))
        backends = [
            BackendSettings(url=each.url, fields=FieldSettings(length_name=name)) for each, name in servers.items()
        ]
        # Without affinity each backend gets some; with it their ports decide.
        with ProxyServer(*backends, ledger=KeyRing(WIDE, "free"), pool={"affinity": False}) as proxy:
            for at in range(12):
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


SCHEMA = {"properties": {"max_tokens": {"type": "string", "maxLength": 9, "default": {"n": 8}}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("structured_outputs.max_tokens", {"regex": "a", "max_tokens": 240}),
        ("structured_outputs.json.x[1].numPredict", {"json": {"x": [{}, {"numPredict": "240"}]}}),
        ("documents[1].n_predict", [{"text": "7"}, {"n_predict": [240]}]),
        ("response_format.n", {"type": "json_object", "n": 8}),
        ("json_schema.properties.most_words", {"properties": {"most_words": 240}}),
        ("lora[0].reply_limit", [{"id": 0, "scale": 0.5, "reply_limit": "240"}]),
        ("tools[0].function.thinking_budget", [{"type": "function", "function": {"thinking_budget": 240.0}}]),
    ],
)
def test_names_that_clients_choose_are_no_lengths_and_lengths_among_them_are_refused(field: str, value: Any) -> None:
    named = {"structured_outputs": {"json": SCHEMA}, "documents": [{"text": "7", "year": 2024}], "json_schema": SCHEMA}
    named["lora"] = [{"id": 0, "scale": 0.5}]
    by = {"Authorization": "Bearer wide"}
    with LenientServer() as server, ProxyServer(server.url, ledger=KeyRing(WIDE)) as proxy:
        for model in ("toy", "outthink/single"):
            got = proxy.chat(model, headers=by, **{field.partition(".")[0].partition("[")[0]: value})
            assert (got.status, got.error["param"]) == (400, field)
            assert got.error["message"].endswith("leave it out")
            assert not server.work
        for own in (named, {"metadata": {"max_tokens": "2000", "n": "3"}}):
            assert proxy.chat("toy", headers=by, **own).status == 200
            assert {name: server.bodies[-1][name] for name in own} == own


def test_a_name_of_a_mebibyte_is_neither_copied_nor_told() -> None:
    name, by = "x" * (1 << 20), {"Authorization": "Bearer wide"}
    key = Key("wide", budget=Budget(tokens=10_000_000))
    with LenientServer() as server, ProxyServer(server.url, ledger=KeyRing(key)) as proxy:
        many = {name: [{"year": "old"}] * 20_000}  # their places written out would be 20 GB
        for fields in ({"documents": many}, {"logit_bias": many}):
            assert proxy.chat("toy", headers=by, **fields).status == 200
        for field, value in ((name, 5), ("documents", {name: {"n_predict": 5}}), ("options", {name: 5}), ("", 5)):
            got = proxy.chat("toy", headers=by, **{field: value})
            assert (got.status, got.error["code"]) == (400, "field_not_allowed")
            assert got.error["param"]
            assert len(got.content) < 2000


@pytest.mark.parametrize(
    "more", [{"models": ["dear"]}, {"fallbacks": [{"model": "dear"}]}, {"extra_body": {"Models": ["dear"]}}]
)
def test_a_key_for_some_models_names_no_further_ones(more: dict[str, Any]) -> None:
    keys = KeyRing(Key("narrow", models=("toy", "outthink/single")), "free")
    with LenientServer() as server, ProxyServer(server.url, ledger=keys) as proxy:
        for model in ("toy", "outthink/single"):
            got = proxy.chat(model, headers={"Authorization": "Bearer narrow"}, **more)
            assert (got.status, got.error["code"]) == (400, "model_not_allowed")
            assert proxy.chat(model, headers={"Authorization": "Bearer free"}, **more).status == 200
        inside = {"extra_body": {"model": "dear"}}
        assert proxy.chat("toy", headers={"Authorization": "Bearer narrow"}, **inside).status == 400
        assert proxy.chat("outthink/single", headers={"Authorization": "Bearer narrow"}, **inside).status == 200
        assert b"dear" not in server.server.seen[-1].content


def test_several_conversations_are_no_chat() -> None:
    one = [{"role": "user", "content": "Hi"}]
    with LenientServer() as server, ProxyServer(server.url, ledger=KeyRing(WIDE, "free")) as proxy:
        for path, name, value, at in (
            ("/v1/chat/completions", "messages", [one] * 9, 0),
            ("/v1/chat/completions", "messages", [*one, "Hi"], 1),
            ("/v1/responses", "input", ["Hi"] * 9, 0),
        ):
            body = {"model": "toy", name: value}
            got = proxy.send("POST", path, body, authorization="Bearer wide")
            assert (got.status, got.error["param"]) == (400, f"{name}[{at}]")
            assert not server.work
            assert proxy.send("POST", path, body, authorization="Bearer free").status == 200
            server.work.clear()
        assert proxy.chat("toy", one, headers={"Authorization": "Bearer wide"}).status == 200
