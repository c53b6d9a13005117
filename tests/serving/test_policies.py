"""Policies of a running proxy: read again when they change, tried in the shadow or on a share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.controller.policy.artefact import Policy
from outthink.core.errors import BadInput
from outthink.economics.price import Price
from outthink.serving.chat.backends import Policies
from outthink.serving.ledger.memory import MemoryLedger
from outthink.serving.pool import BackendSettings
from outthink.serving.pool.rules import FieldSettings
from outthink.serving.protocols import Key, Reservation
from support.chat_server import ChatServer, chat, models
from support.ledgers import KeyRing
from support.policies import content, policy
from support.proxy_server import CHAT, ProxyServer
from support.samples import question


def chosen(n: int) -> Policy:
    tasks = content()["tasks"]
    tasks[0]["chosen"] = n
    return policy(tasks=tasks)


def asked(proxy: ProxyServer) -> dict[str, Any]:
    got = proxy.chat("outthink/auto", question(3), outthink={"answer": "number"}, seed=0)
    assert got.status == 200
    return got.json["outthink"]["receipt"]


def test_a_changed_file_is_used_without_a_restart_and_a_broken_one_is_not(backend: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    chosen(4).save(path)
    policies = Policies(path)
    with ProxyServer(backend.url, policies=policies) as proxy:
        assert asked(proxy)["strategy"] == "auto (fixed@4)"
        chosen(2).save(path)
        proxy.do(policies.reload())
        assert asked(proxy)["strategy"] == "auto (fixed@2)"
        for broken in ("{", "[" * 100_000):
            path.write_text(broken)
            proxy.do(policies.reload())
            assert asked(proxy)["strategy"] == "auto (fixed@2)"
            assert policies.problem is not None
            assert proxy.get("/readyz").json["policy"] == policies.problem
        chosen(1).save(path)
        proxy.do(policies.reload())
        assert asked(proxy)["strategy"] == "auto (fixed@1)"
        assert proxy.get("/readyz").json == {"status": "ready"}


CHEAP, DEAR = Price.parse("1,1"), Price.parse("10,10")
PICTURE = [{"type": "text", "text": question(3)}, {"type": "image_url", "image_url": {"url": "http://a.example/b"}}]


@pytest.fixture
def cascading(backend: ChatServer, tmp_path: Path) -> Iterator[tuple[ProxyServer, ChatServer]]:
    """A proxy whose policy goes on to a dearer model, for a key with a budget in dollars."""
    own = {"model": None, "n": 2, "tau": 1.0, "signal": "agreement", "keep": 0.0, "rule": {"kind": "fixed"}}
    policy(rule={"kind": "cascade", "stages": [own, own | {"model": "large"}]}).save(tmp_path / "policy.json")
    keys = KeyRing(
        Key("daily", limited=True, priced=True),
        Key("narrow", models=("outthink/auto", "tiny")),
        Key("own", strategy="auto", models=("tiny",)),
        Key("both", models=("outthink/auto", "tiny", "large")),
        Key("unnamed", models=("outthink/auto",)),
    )
    with ChatServer(chat(["The answer is 5."])) as large:
        large.routes["/v1/models"] = models("large")
        backends = [
            BackendSettings(
                url=backend.url, price=CHEAP, fields=FieldSettings(image_tokens=50, allow_fields=("mode",))
            ),
            BackendSettings(url=large.url, price=DEAR, fields=FieldSettings(setting="[backends.large]")),
        ]
        with ProxyServer(*backends, ledger=keys, policies=Policies(tmp_path / "policy.json")) as proxy:
            yield proxy, large


def test_what_a_further_model_allows_and_costs_counts_as_well(
    cascading: tuple[ProxyServer, ChatServer], backend: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, large = cascading
    backend.routes[CHAT] = lambda seen: chat([f"The answer is {seen.number}."])  # so that the votes disagree
    reserved: list[float] = []

    async def reserve(key: Key, tokens: int | None, usd: float | None, request_id: str, *_: Any) -> Reservation:
        reserved.append((usd or 0) / (tokens or 1))
        return Reservation(request_id, key.id, tokens, usd)

    monkeypatch.setattr(proxy.ledger, "reserve", reserve)
    asking: dict[str, Any] = {"outthink": {"answer": "number"}, "max_tokens": 100}
    by = {"Authorization": "Bearer daily"}
    got = proxy.chat("outthink/auto", question(3), headers=by, **asking)
    assert (got.status, len(large.calls)) == (200, 2)
    assert reserved[0] >= 10e-6  # dollars a token: the dear one's
    for more, setting in (({"mode": 3}, 'allow_fields = ["mode"]'), ({"content": PICTURE}, "image_tokens")):
        refused = proxy.chat("outthink/auto", more.pop("content", question(3)), headers=by, **more, **asking)
        assert refused.status == 400
        assert f"[backends.large] {setting}" in refused.error["message"]
    assert proxy.chat("outthink/self-consistency@2", question(3), headers=by, mode=3, **asking).status == 200


@pytest.mark.parametrize(("key", "further"), [("narrow", 0), ("own", 0), ("both", 2), ("unnamed", 2)])
@pytest.mark.parametrize("effort", [None, "medium", "high"])
def test_a_policy_draws_from_models_that_a_key_lists_if_it_lists_any(
    cascading: tuple[ProxyServer, ChatServer], backend: ChatServer, key: str, further: int, effort: str | None
) -> None:
    proxy, large = cascading
    backend.routes[CHAT] = lambda seen: chat([f"The answer is {seen.number}."])
    more = {} if effort is None else {"reasoning_effort": effort}
    by = {"Authorization": f"Bearer {key}"}
    got = proxy.chat("outthink/auto", question(3), headers=by, outthink={"answer": "number"}, **more)
    assert (got.status, min(2, len(large.calls))) == (200, further)
    notes = got.json["outthink"]["receipt"]["notes"]
    assert any("its models are not all in the pool" in note for note in notes) == (not further)
    named = proxy.chat("outthink/auto", question(3), headers=by, outthink={"model": "large"})
    assert named.status == (200 if key == "both" else 403)


def test_a_policy_in_the_shadow_is_recorded_and_costs_nothing(backend: ChatServer, tmp_path: Path) -> None:
    active, shadow = tmp_path / "a.json", tmp_path / "b.json"
    chosen(4).save(active)
    chosen(2).save(shadow)
    policies = Policies(active, shadow)
    with ProxyServer(backend.url, policies=policies) as proxy:
        receipt = asked(proxy)
        assert receipt["strategy"] == "auto (fixed@4)"
        assert len(receipt["entries"]) == 4
        assert "shadow" not in receipt
        kept = proxy.get(f"/v1/receipts/{receipt['id']}").json["receipt"]
        assert kept["shadow"]["plan"] == "fixed@2"
        assert kept["shadow"]["policy"] == policies.candidate.id
        assert (policies.compared.agreed, policies.compared.differed) == (0, 1)
        assert policies.compared.active_tokens == 2 * policies.compared.shadow_tokens


def test_what_the_shadow_cannot_decide_is_served_all_the_same(backend: ChatServer, tmp_path: Path) -> None:
    chosen(4).save(tmp_path / "a.json")
    tasks = content()["tasks"]
    tasks[0]["difficulty"] = {"kind": "unheard-of"}
    policy(tasks=tasks).save(tmp_path / "b.json")
    policies = Policies(tmp_path / "a.json", tmp_path / "b.json")
    with ProxyServer(backend.url, policies=policies) as proxy:
        receipt = asked(proxy)
        assert receipt["strategy"] == "auto (fixed@4)"
        kept = proxy.get(f"/v1/receipts/{receipt['id']}").json["receipt"]["shadow"]
    assert kept["plan"] is None
    assert kept["error"]
    assert (policies.compared.agreed, policies.compared.differed, policies.compared.refused) == (0, 0, 1)


def test_a_shadow_is_told_to_admins_alone(backend: ChatServer, tmp_path: Path) -> None:
    class Keyed(MemoryLedger):
        guarded = True

        async def authorise(self, bearer: str | None) -> Key | None:
            return Key(bearer, admin=bearer == "admin") if bearer else None

    chosen(4).save(tmp_path / "a.json")
    chosen(2).save(tmp_path / "b.json")
    policies = Policies(tmp_path / "a.json", tmp_path / "b.json")
    with ProxyServer(backend.url, policies=policies, ledger=Keyed()) as proxy:
        user, admin = {"Authorization": "Bearer user"}, {"Authorization": "Bearer admin"}
        got = proxy.chat("outthink/auto", question(3), headers=user, outthink={"answer": "number"}, seed=0)
        path = f"/v1/receipts/{got.headers['x-outthink-receipt']}"
        seen = [proxy.get(path, **who).json["receipt"] for who in (user, admin)]
    assert [receipt["strategy"] for receipt in seen] == ["auto (fixed@4)"] * 2
    assert ["shadow" in receipt for receipt in (got.json["outthink"]["receipt"], *seen)] == [False, False, True]


def test_a_share_of_the_requests_is_decided_by_the_candidate(tmp_path: Path) -> None:
    active, candidate = tmp_path / "a.json", tmp_path / "b.json"
    chosen(4).save(active)
    chosen(2).save(candidate)
    policies = Policies(active, candidate, 0.25)
    picks = [policies.choose(f"rcpt-{number}") for number in range(4000)]
    tried = [pick for pick in picks if pick.policy is policies.candidate]
    assert 0.2 < len(tried) / 4000 < 0.3
    assert all(pick.shadow is None for pick in tried)
    assert picks == [policies.choose(f"rcpt-{number}") for number in range(4000)]
    assert Policies(active, candidate, 1.0).choose("any").policy.id == policies.candidate.id


def test_a_file_that_is_no_policy_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        Policies(tmp_path / "none.json")
