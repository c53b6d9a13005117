"""Plugins in the proxy: loaded once at its start, named by clients; what a client names is never imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from outthink.cli.main import main
from outthink.controller.plugins import load_plugins
from outthink.core import plugins
from outthink.strategies import registry
from support.chat_server import ChatServer, chat
from support.plugins import install
from support.proxy_server import ProxyServer

CODE = '''
import outthink as ot


@ot.strategy("plugged", source="a test", streams="tokens")
async def plugged(session, request, *, n=2):
    """The first sample."""
    async for sample in session.sample(request, n=n):
        return ot.Verdict(sample.answer, sample.text)


def opened(rest):
    from outthink.verifiers import FunctionVerifier

    return FunctionVerifier(lambda request, text: 1.0, name="liked")


def roman(text):
    return str(["I", "II", "III"].index(text.strip()) + 1)
'''
BAIT = "raise SystemExit('imported over the wire')"
ENTRIES = {
    "strategies": {"plugged": "served_code:plugged", "single": "served_code:plugged"},
    "verifiers": {"liked": "served_code:opened"},
    "answers": {"roman": "served_code:roman", "broken": "missing_code:read"},
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the path with a distribution, and a module that nobody may import."""
    install(tmp_path, "served", ENTRIES, modules={"served_code": CODE})
    (tmp_path / "bait_code.py").write_text(BAIT)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    yield tmp_path
    sys.modules.pop("served_code", None)


@pytest.fixture
def proxy(site: Path) -> Iterator[ProxyServer]:
    with ChatServer(chat(["II"])) as backend, ProxyServer(backend.url) as running:
        yield running


@pytest.mark.parametrize("text", ["python:bait_code:run", "python:bait_code:run,n=2", "plugged"])
def test_what_is_not_loaded_is_unknown_over_the_wire(
    proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(plugins, "installed", lambda *groups: pytest.fail("looked for plugins"))
    before = list(sys.path)
    received = [
        proxy.chat(f"outthink/{text}"),
        proxy.chat("outthink/auto", outthink={"strategy": text}),
        proxy.chat("m", headers={"x-outthink-strategy": text}),
    ]
    for got, field in zip(received, ("model", "outthink.strategy", "x-outthink-strategy"), strict=True):
        assert got.status == 400
        assert (got.error["param"], got.error["code"]) == (field, "invalid_strategy")
        assert f"{text.partition(':')[0]!r} is not known" in got.error["message"]
    for name in ("verifier", "answer"):
        got = proxy.chat("outthink/auto", outthink={name: text})
        assert got.error["param"] == f"outthink.{name}"
    assert "bait_code" not in sys.modules
    assert "served_code" not in sys.modules
    assert sys.path == before


def test_a_client_names_what_has_been_loaded(proxy: ProxyServer) -> None:
    problems = {plugin.name: problem for plugin, problem in load_plugins()}
    assert [name for name, problem in problems.items() if problem] == ["single", "broken"]
    wanted = {"strategy": "plugged:n=1", "verifier": "liked", "answer": "roman"}
    got = proxy.chat("outthink/auto", outthink=wanted)
    assert (got.status, got.json["choices"][0]["message"]["content"]) == (200, "II")
    receipt = got.json["outthink"]["receipt"]
    assert (receipt["strategy"], receipt["answer"]) == ("plugged:n=1", "2")
    assert proxy.chat("outthink/auto", outthink={"answer": "broken"}).status == 400


def test_the_served_document_lists_what_has_been_loaded_behind_our_own(proxy: ProxyServer) -> None:
    def enums() -> dict[str, list[str]]:
        body = proxy.get("/openapi.json").json["paths"]["/v1/chat/completions"]["post"]["requestBody"]
        options = body["content"]["application/json"]["schema"]["properties"]["outthink"]["properties"]
        return {name: options[name]["enum"] for name in ("verifier", "answer")}

    before = enums()
    load_plugins()
    assert enums() == {"verifier": [*before["verifier"], "liked"], "answer": [*before["answer"], "roman"]}


def test_a_key_may_name_one_and_no_module(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    assert main(["keys", "add", "k", "--ledger", ledger, "--strategy", "plugged:n=1"]) == 0
    assert main(["keys", "add", "other", "--ledger", ledger, "--strategy", "python:bait_code:run"]) == 2
    assert "is no strategy" in capsys.readouterr().err
    assert "bait_code" not in sys.modules


def test_the_check_lists_them_and_those_that_are_refused(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer(chat(["II"])) as backend:
        assert main(["serve", "--check", "--model", backend.url]) == 0, "a refused plugin keeps nothing from working"
    lines = capsys.readouterr().out.splitlines()
    assert "verifier liked: of served 1.0" in lines
    (refused,) = [line for line in lines if line.startswith("strategy single: is refused")]
    assert "is offered by outthink 0." in refused
    (failed,) = [line for line in lines if line.startswith("answer broken: is refused")]
    assert "entry point missing_code:read of served 1.0 cannot be loaded" in failed


def test_the_command_loads_them_at_its_start_and_names_what_it_refuses(site: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from outthink.cli.main import entry; entry()", "serve", "--port", "0"]
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OUTTHINK_STATE": str(tmp_path / "state")}
    with ChatServer(chat(["II"])) as backend:
        process = subprocess.Popen(
            [*command, "--model", backend.url], stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
        )
        try:
            assert process.stderr is not None
            lines = [process.stderr.readline() for _ in range(3)]
        finally:
            process.kill()
            process.communicate(timeout=10)
    assert "serves" in lines[0]
    assert lines[1].startswith("outthink serve: strategy: 'single' is offered by outthink 0.")
    assert "by served 1.0" in lines[1]
    assert lines[2].startswith("outthink serve: answer 'broken': entry point missing_code:read of served 1.0 cannot")
