"""`ask --verifier`: from a name to scores in the receipt, and what is refused before any call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import outthink as ot
from outthink.cli.main import main
from support.chat_server import ChatServer, Reply, Seen, chat


def answering(seen: Seen) -> Reply:
    """A model that is mostly wrong, and right about what is right when it is asked to judge."""
    asked = seen.body["messages"][-1]["content"]
    if "<solution>" in asked:
        return chat([f"Verdict: {'yes' if 'answer is 42' in asked else 'no'}"], counts=(50, 4))
    number = 42 if seen.body.get("seed", 0) % 3 == 0 else 41
    return chat([f"The answer is {number}."], counts=(7, 5))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path))
    for name in ("OUTTHINK_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with ChatServer(answering) as running:
        yield running


WEIGHTED = ("--strategy", "weighted-vote:n=3", "--answer", "number", "--seed", "0")


@pytest.mark.parametrize("own", [True, False])
def test_a_judge_by_name_and_by_address(server: ChatServer, capsys: pytest.CaptureFixture[str], own: bool) -> None:
    name = "judge" if own else f"judge:{server.url}"
    code = main(["ask", "Six times seven?", "--model", server.url, *WEIGHTED, "--verifier", name, "--json"])
    received = json.loads(capsys.readouterr().out)
    assert code == 0
    assert received["answer"] == "42"  # outvoted two to one, but believed
    entries = [entry for entry in received["receipt"]["entries"] if entry["role"] == "verifier"]
    assert [(entry["model"], entry["prompt_tokens"], entry["completion_tokens"]) for entry in entries] == [
        ("toy", 150, 12)
    ]
    assert received["receipt"]["tokens"] == 3 * 12 + 162


def test_a_strategy_that_needs_a_verifier_is_refused_before_any_call(
    server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["ask", "Six times seven?", "--model", server.url, *WEIGHTED])
    assert code == 2
    assert "weighted-vote needs one; give --verifier" in " ".join(capsys.readouterr().err.split())
    assert server.seen == []


def test_an_unknown_verifier_is_refused_before_any_call(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["ask", "Six times seven?", "--model", server.url, *WEIGHTED, "--verifier", "oracle"])
    assert code == 2
    assert "judge" in capsys.readouterr().err  # it lists the choices
    assert server.seen == []


def test_wishes_about_thinking_are_sent(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    wishes = ("--reasoning-effort", "low", "--thinking-tokens", "64")
    assert main(["ask", "Six times seven?", "--model", server.url, *wishes, "--json"]) == 0
    body = server.calls[0].body
    assert (body["reasoning_effort"], body["thinking_token_budget"]) == ("low", 64)
    assert json.loads(capsys.readouterr().out)["receipt"]["notes"] == []
    assert main(["ask", "Six times seven?", "--model", server.url, "--thinking-tokens", "-1"]) == 2


def test_a_judge_on_a_scripted_engine_by_name() -> None:
    """On the virtual clock, judged by the engine that answers."""

    def script(call: ot.engines.protocol.Call) -> ot.Completion:
        asked = call.messages[-1].text
        if "<solution>" in asked:
            return ot.Completion(text=f"Verdict: {'yes' if 'answer is 1' in asked else 'no'}", tokens=4)
        return ot.Completion(answer=str(call.index), tokens=10)

    engine = ot.ScriptedEngine(script, prompt_tokens=5)
    result = asyncio.run(
        ot.ask("q", model=engine, answer="number", strategy="weighted-vote:n=3", verifier="judge", budget="tokens=9000")
    )
    assert result.answer == "1"
    assert result.receipt.tokens == 3 * 15 + 3 * 9


def test_a_judge_that_is_not_there_costs_nothing(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    gone = ["--verifier", "judge:http://127.0.0.1:9/v1"]
    assert main(["ask", "Six times seven?", "--model", server.url, *WEIGHTED, *gone]) == 1
    assert "127.0.0.1:9" in capsys.readouterr().err
    assert server.calls == []
