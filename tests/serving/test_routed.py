"""A router chooses the model in `ask`, `batch` and the proxy alike, and exactly as `router eval` says."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("sklearn")

import outthink as ot
from outthink.cli.main import main
from outthink.controller.cascade import Cascade, Stage
from outthink.controller.policy.rules import rule_from_json
from outthink.controller.router.chooser import ModelChooser
from outthink.core.errors import BadInput
from outthink.serving.chat.backends import Policies
from outthink.serving.pool.backend import BackendSettings
from outthink.serving.protocols import Key
from support.chat_server import ChatServer, chat, models
from support.ledgers import KeyRing
from support.policies import content, policy
from support.proxy_server import ProxyServer
from support.routing_rows import rows, write

COUNT = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a router between `small` and `large`, and what it chooses for prompts that it has not seen."""
    folder = tmp_path_factory.mktemp("routed")
    write(folder / "train.parquet", rows(200))
    write(folder / "test.parquet", rows(COUNT, seed=1))
    named = ["--models", "weak=small,strong=large", "--parameters", "small=1000", "large=2000"]
    assert main(["router", "train", str(folder / "train.parquet"), "--out", str(folder / "router"), *named]) == 0
    judged = ["router", "eval", str(folder / "test.parquet"), "--router", str(folder / "router")]
    assert main([*judged, "--choices", str(folder / "choices.jsonl")]) == 0
    assert main([*judged, "--choices", str(folder / "choices.parquet")]) == 0
    return folder


@pytest.fixture(scope="module")
def choices(made: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    read = [json.loads(line) for line in (made / "choices.jsonl").read_text().splitlines()]
    assert pyarrow.parquet.read_table(made / "choices.parquet").to_pylist() == read
    assert [row["row"] for row in read] == list(range(COUNT))
    assert {row["model"] for row in read} == {"small", "large"}
    return read


@pytest.fixture
def servers() -> Iterator[dict[str, ChatServer]]:
    with ExitStack() as stack:
        reply = chat(["The answer is 7."])
        yield {
            name: stack.enter_context(ChatServer(reply, routes={"/v1/models": models(name)}))
            for name in ("small", "large", "other")
        }


def urls(servers: dict[str, ChatServer], *names: str) -> list[str]:
    return [servers[name].url for name in names or ("small", "large")]


def test_asked_one_by_one_prompts_go_where_eval_says(
    made: Path, choices: list[dict[str, Any]], servers: dict[str, ChatServer]
) -> None:
    calls = {name: len(server.calls) for name, server in servers.items()}
    routed: list[str] = []
    with ot.SyncClient(urls(servers), router=made / "router", routed=lambda choice: routed.append(choice.model)) as it:
        for row in choices:
            result = it.ask(row["prompt"])
            assert result.model == row["model"]
            entry, *others = result.receipt.entries
            assert (entry.role, entry.model, entry.tokens) == ("router", row["model"], 0)
            assert entry.chances == row["chances"]
            assert entry.router == ot.load_predictor(made / "router").id
            assert entry.seconds is not None
            assert [other.model for other in others] == [row["model"]]
            assert result.json()["receipt"]["entries"][0]["chances"] == row["chances"]
            assert "chances" not in result.json()["receipt"]["entries"][1]
    assert routed == [row["model"] for row in choices]
    for name in ("small", "large"):
        asked = len(servers[name].calls) - calls[name]
        assert asked == sum(row["model"] == name for row in choices)


def test_a_batch_draws_each_request_from_its_model_within_one_budget(
    made: Path, choices: list[dict[str, Any]], servers: dict[str, ChatServer], tmp_path: Path
) -> None:
    prompts = [row["prompt"] for row in choices]
    options: dict[str, Any] = {"router": made / "router", "at_most": 2, "journal": tmp_path / "kept.journal"}
    with ot.SyncClient(urls(servers)) as client:
        batch = client.ask_batch(prompts, **options)
        for result, row in zip(batch.results, choices, strict=True):
            assert (result.model, result.answer) == (row["model"], "7")
            assert {entry.model for entry in result.receipt.entries} == {row["model"]}
            assert result.receipt.entries[0].role == "router"
        calls = sum(len(server.calls) for server in servers.values())
        again = client.ask_batch(prompts, **options)
        assert sum(len(server.calls) for server in servers.values()) == calls, "all of it is in the journal"
        assert [result.answer for result in again.results] == ["7"] * COUNT
        with pytest.raises(BadInput, match=r"is the journal of another batch \(router\)"):
            client.ask_batch(prompts, **options | {"operating_point": "strong-share=1"})
        short = client.ask_batch(prompts, router=made / "router", budget="tokens=2000", max_tokens=64)
    assert 0 < (short.receipt.tokens or 0) <= 2000
    assert any(result.stopped == "budget:tokens" for result in short.results)


def receipt_of(proxy: ProxyServer, prompt: str, model: str = "outthink/auto", **more: Any) -> dict[str, Any]:
    got = proxy.chat(model, prompt, **more)
    assert got.status == 200, got.json
    receipt: dict[str, Any] = got.json["outthink"]["receipt"]
    return receipt


def test_the_proxy_sends_each_request_where_eval_says(
    made: Path, choices: list[dict[str, Any]], servers: dict[str, ChatServer]
) -> None:
    with ProxyServer(*urls(servers), router=ModelChooser(made / "router")) as proxy:
        for row in choices:
            receipt = receipt_of(proxy, row["prompt"])
            assert receipt["model"] == row["model"]
            entry, *others = receipt["entries"]
            assert (entry["role"], entry["chances"]) == ("router", row["chances"])
            assert [other["model"] for other in others] == [row["model"]]
        voted = receipt_of(proxy, choices[0]["prompt"], "outthink/self-consistency@2")
        assert [entry["role"] for entry in voted["entries"]] == ["router", "policy", "policy"]
        named = receipt_of(proxy, choices[0]["prompt"], outthink={"model": "small"})
        assert (named["model"], [entry["role"] for entry in named["entries"]]) == ("small", ["policy"])
        assert receipt_of(proxy, choices[0]["prompt"])["usd"] is None
        assert proxy.get("/metrics").status in (200, 404)


def test_a_key_gets_only_models_that_it_may_use(
    made: Path, choices: list[dict[str, Any]], servers: dict[str, ChatServer]
) -> None:
    strong = next(row["prompt"] for row in choices if row["model"] == "large")
    ring = KeyRing(Key("bound", models=("outthink/auto", "outthink/single", "small")), Key("free"))
    with ProxyServer(*urls(servers), router=ModelChooser(made / "router"), ledger=ring) as proxy:
        found = [receipt_of(proxy, strong, headers={"Authorization": f"Bearer {key}"}) for key in ("bound", "free")]
    assert [receipt["model"] for receipt in found] == ["small", "large"]
    assert [entry["role"] for entry in found[0]["entries"]] == ["policy"], "there was nothing to choose"


def test_a_proxy_without_two_of_its_models_says_so(made: Path, servers: dict[str, ChatServer]) -> None:
    with ProxyServer(*urls(servers, "small", "other"), router=ModelChooser(made / "router")) as proxy:
        got = proxy.chat("outthink/auto", "Write a sum.")
        assert (got.status, got.error["code"]) == (503, "router_models")
        assert "chooses among small, large, and at hand are small, other" in got.error["message"]
        assert proxy.chat("outthink/single", "Write a sum.", outthink={"model": "small"}).status == 200
    with ProxyServer(*urls(servers, "small", "other"), router=ModelChooser(made / "router", {"large": "other"})) as it:
        assert {receipt_of(it, row)["model"] for row in ("Write a sum.", "Write a proof.")} <= {"small", "other"}


def test_the_proxy_knows_a_backend_by_its_alias_too(
    made: Path, choices: list[dict[str, Any]], servers: dict[str, ChatServer]
) -> None:
    row = next(row for row in choices if row["model"] == "large")
    backends = [BackendSettings(url=servers["small"].url), BackendSettings(url=servers["other"].url, alias="large")]
    with ProxyServer(*backends, router=ModelChooser(made / "router")) as proxy:
        assert receipt_of(proxy, row["prompt"])["model"] == "other"


def test_names_are_mapped_and_a_model_that_the_router_does_not_know_is_never_chosen(
    made: Path, choices: list[dict[str, Any]], servers: dict[str, ChatServer]
) -> None:
    row = next(row for row in choices if row["model"] == "large")
    names = {"large": "other"}
    with ot.SyncClient(urls(servers, "other", "small", "large"), router=made / "router", router_map=names) as client:
        result = client.ask(row["prompt"])
    assert result.model == "other"
    assert any("does not know large, which it never chooses" in note for note in result.receipt.notes)


@pytest.mark.parametrize(
    ("hand", "options", "line"),
    [
        (("small",), {}, "chooses among small, large, and at hand are small; give two of its models"),
        (("small", "other"), {}, "chooses among small, large, and at hand are small, other"),
        (("small", "large"), {"router_map": {"huge": "large"}}, "router map: 'huge' is no model of the router"),
        (("small", "large"), {"operating_point": "nearest=1"}, "is no way to route"),
        (("small", "large"), {"router": None, "router_map": {"a": "b"}}, "goes with a router"),
        (("small", "large"), {"router": "nowhere"}, "predictor: 'nowhere' does not exist"),
    ],
)
def test_what_makes_a_router_useless_here_is_one_line(
    hand: tuple[str, ...], options: dict[str, Any], line: str, made: Path, servers: dict[str, ChatServer]
) -> None:
    given = {"router": made / "router", **options}
    with ot.SyncClient(urls(servers, *hand)) as client, pytest.raises(BadInput, match=line) as caught:
        client.ask("Write a sum.", **given)
    assert "\n" not in str(caught.value)
    with ot.SyncClient(urls(servers, *hand)) as client, pytest.raises(BadInput, match=line):
        client.ask_batch(["Write a sum."], **given)


def test_a_policy_over_several_models_refuses_a_router(made: Path, servers: dict[str, ChatServer]) -> None:
    fixed = rule_from_json({"kind": "fixed"})
    calibrated = policy(rule=Cascade((Stage(None, 1, fixed, 0.5), Stage("large", 1, fixed))).json())
    line = r"router: .* is not asked: the policy .* chooses among models itself \(large\)"
    with ot.SyncClient(urls(servers)) as client, pytest.raises(BadInput, match=line):
        client.ask("Write a sum.", strategy="auto", policy=calibrated, router=made / "router")


def test_a_policy_that_is_loaded_later_does_not_take_the_router_s_place(
    made: Path, servers: dict[str, ChatServer], tmp_path: Path
) -> None:
    fixed = rule_from_json({"kind": "fixed"})
    own, path = policy(), tmp_path / "policy.json"
    own.save(path)
    policies = Policies(path)
    with ProxyServer(*urls(servers), router=ModelChooser(made / "router"), policies=policies) as proxy:
        policy(rule=Cascade((Stage(None, 1, fixed, 0.5), Stage("large", 1, fixed))).json()).save(path)
        proxy.do(policies.reload())
        assert re.search(r"chooses among models itself \(large\).*stays", str(policies.problem))
        assert policies.active is not None
        assert policies.active.id == own.id
        got = proxy.chat("outthink/auto", "Write a sum of 3 and 4.", outthink={"answer": "number"})
        assert got.json["outthink"]["receipt"]["entries"][0]["role"] == "router"


def test_a_policy_of_the_chosen_model_decides_the_rest(made: Path, servers: dict[str, ChatServer]) -> None:
    values = content()
    for task in values["tasks"]:
        task["model"] = "small"
    values["pool"][0]["model"] = "small"
    calibrated = policy(tasks=values["tasks"], pool=values["pool"])
    with ot.SyncClient(urls(servers), router=made / "router", operating_point="strong-share=0") as client:
        result = client.ask("Write a sum about 12 and 40.", strategy="auto", policy=calibrated, answer="number")
    assert result.model == "small"
    assert any(note.startswith(f"policy {calibrated.id}") for note in result.receipt.notes)


def test_the_command_line_explains_and_batches(
    made: Path,
    choices: list[dict[str, Any]],
    servers: dict[str, ChatServer],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = urls(servers)
    hand = ["--model", first, "--also", second, "--router", str(made / "router")]
    row = next(row for row in choices if row["model"] == "large")
    capsys.readouterr()
    assert main(["ask", row["prompt"], *hand, "--explain", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["model"] == "large"
    assert "believed: small: " in shown.err
    assert "chose: large, because the gain of large, +0." in shown.err
    assert main(["ask", row["prompt"], *hand, "--operating-point", "strong-share=0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "small"
    questions = "".join(json.dumps({"question": each["prompt"]}) + "\n" for each in choices[:6])
    (tmp_path / "questions.jsonl").write_text(questions)
    assert main(["batch", str(tmp_path / "questions.jsonl"), *hand, "--n", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["model"] for line in lines] == [each["model"] for each in choices[:6]]


def test_choosing_is_quick(made: Path, choices: list[dict[str, Any]]) -> None:
    async def ask() -> list[float]:
        engines = [ot.ScriptedEngine(lambda call: ot.Completion(answer="7"), model=name) for name in ("small", "large")]
        async with ot.Client(engines, router=made / "router") as client:
            results = [await client.ask(row["prompt"]) for row in choices]
        assert [result.model for result in results] == [row["model"] for row in choices]
        return [result.receipt.entries[0].seconds or 0.0 for result in results]

    assert sorted(asyncio.run(ask()))[COUNT // 2] < 0.05, "the benchmark holds it to 5 ms of processor time"
