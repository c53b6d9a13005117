"""How a proxy comes by its verifier: flags and files, what is refused at the start, policies, and a server's URL."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.cli.main import main
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import Plan, Situation
from outthink.controller.policy.plan import plan as plan_for
from outthink.core.errors import BadInput
from outthink.core.request import Request
from outthink.economics.price import Price
from outthink.serving.chat import run
from outthink.serving.chat.backends import Policies
from outthink.serving.config import read_config
from outthink.serving.pool import BackendSettings
from outthink.serving.proxy import Proxy
from outthink.serving.verifier import ServedVerifier
from support.chat_server import ChatServer, models, whole
from support.policies import carrying
from support.proxy_process import serving, starting
from support.proxy_server import ProxyServer
from support.samples import question
from support.scripted_verifiers import judged, make_gate, plugged, waiting_at
from support.waiting import until

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return plugged(tmp_path, monkeypatch)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `outthink serve` here; its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["serve", "--ledger", "memory:", "--port", "0", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    """A policy that carries the verifier scripted-1."""
    carrying("scripted-1").save(tmp_path / "policy.json")
    return tmp_path / "policy.json"


def vote(url: str) -> dict[str, Any]:
    body = {"model": "outthink/weighted-vote@2", "messages": [{"role": "user", "content": "What is it?"}]}
    body["outthink"] = {"answer": "number"}
    asked = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as reply:
        receipt: dict[str, Any] = json.load(reply)["outthink"]["receipt"]
        return receipt


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_file_names_it_and_it_ends_with_the_proxy(backend: ChatServer, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "outthink.toml"
    file.write_text(f'[serve]\nverifier = "scripted:{folder}"\n[serve.ledger]\nurl = "memory:"\n')
    for number in (signal.SIGTERM, signal.SIGKILL):
        with serving("--config", str(file), "--model", backend.url) as (process, url):
            (entry,) = [each for each in vote(url)["entries"] if each["role"] == "verifier"]
            assert (entry["model"], entry["status"]) == ("scripted", "finished")
            (child,) = children(process.pid)
            process.send_signal(number)
            process.wait(60)
            until(lambda child=child: not Path(f"/proc/{child}").exists(), "the child's end")  # type: ignore[misc]
    assert len(judged(folder)) == 2


def test_it_does_not_listen_before_it_is_opened(backend: ChatServer, folder: Path) -> None:
    opening = make_gate(folder, "opening")
    arguments = ("--model", backend.url, "--verifier", f"scripted:{folder}", "--ledger", "memory:")
    with starting(*arguments) as process:
        assert process.stderr is not None
        with waiting_at(opening):
            listening = Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()
            inodes = {re.sub(r"\D", "", os.readlink(fd)) for fd in Path(f"/proc/{process.pid}/fd").iterdir()}
            assert not [row for row in listening if row.split()[3] == "0A" and row.split()[9] in inodes]
        assert "serves" in process.stderr.readline()


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("nowhere", "verifier: 'nowhere' is not known; use one of"),
        ("exact", "has no gold answers"),
        ("judge", "has no model to ask"),
        ("scripted:nowhere", "verifier: 'nowhere' is no folder"),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    command: Command, backend: ChatServer, folder: Path, name: str, part: str
) -> None:
    code, out, err = command("--model", backend.url, "--verifier", name)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert part in err


def test_a_server_without_the_api_is_refused_and_a_secret_is_not_shown(command: Command, backend: ChatServer) -> None:
    with ChatServer(routes={"/v1/models": whole({"detail": "Not Found"}, 404)}) as other:
        code, _, err = command("--model", backend.url, "--verifier", other.url)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert "cannot be used" in err
    code, _, err = command("--model", backend.url, "--verifier", "http://me:hunter2@127.0.0.1:9")
    assert code == 2
    assert "hunter2" not in err


def test_the_check_opens_it(command: Command, backend: ChatServer, folder: Path) -> None:
    code, out, _ = command("--check", "--model", backend.url, "--verifier", f"scripted:{folder}")
    assert code == 0
    assert f"verifier scripted:{folder}: scripted-1 judges" in out.splitlines()
    assert f'source = "scripted:{folder}"  # --verifier' in out
    code, _, err = command("--check", "--model", backend.url, "--verifier", "scripted:nowhere")
    assert code == 1
    assert "verifier scripted:nowhere: 'nowhere' is no folder" in err


def test_a_folder_of_a_file_is_its_neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "judge").mkdir()
    file = tmp_path / "outthink.toml"
    for text, source in (('verifier = "judge"', str(tmp_path / "judge")), ('verifier = "a/b"', "a/b")):
        file.write_text(f'model = "http://127.0.0.1:9/v1"\n[serve]\n{text}\n')
        assert read_config(file).verifier.source == source
        assert read_config(file, environ={"OUTTHINK_SERVE_VERIFIER": "c/d"}).verifier.source == "c/d"
    file.write_text('model = "http://127.0.0.1:9/v1"\n[serve.verifier]\nsource = "judge"\n')
    assert read_config(file).verifier.source == str(tmp_path / "judge")


def test_a_policy_of_another_verifier_is_refused(
    command: Command, backend: ChatServer, folder: Path, carried: Path
) -> None:
    (folder / "id").write_text("scripted-2")
    code, _, err = command("--model", backend.url, "--verifier", f"scripted:{folder}", "--policy", str(carried))
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "verifier: 'scripted-2' is not what the policy sha256:" in err
    assert "was calibrated with (scripted-1); take that one, or calibrate again" in err


def test_a_changed_policy_of_another_verifier_is_not_used(carried: Path) -> None:
    policies = Policies(carried)
    policies.check_verifier("scripted-1")
    carrying("scripted-2").save(carried)
    asyncio.run(policies.reload())
    assert "'scripted-1' is not what the policy" in str(policies.problem)


def test_a_policy_whose_verifier_is_not_served_is_a_line(carried: Path) -> None:
    config = read_config(None, models="http://127.0.0.1:9/v1", environ={"OUTTHINK_SERVE_POLICY": str(carried)})
    (line,) = Proxy(config).unjudged
    assert "carries the verifier scripted-1, and none is served: its arm without one is used" in line


def test_a_policy_hears_which_verifier_is_at_hand(
    backend: ChatServer, folder: Path, carried: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Situation] = []

    def planned(policy: Policy, request: Request, situation: Situation) -> Plan:
        seen.append(situation)
        return plan_for(policy, request, situation)

    monkeypatch.setattr(run, "plan_for", planned)
    policies = Policies(carried)
    served = ServedVerifier(f"scripted:{folder}", policies.check_verifier, pause=0.0)
    priced = BackendSettings(url=backend.url, price=Price.parse("1,2"))
    with ProxyServer(priced, policies=policies, verifier=served) as proxy:

        def asked(**own: Any) -> str | None:
            got = proxy.chat("outthink/auto", question(3), outthink={"answer": "number", **own})
            assert got.status == 200, got.content
            notes = got.json["outthink"]["receipt"]["notes"]
            assert any("scripted-1 costs" in note for note in notes) == ("budget" in own)
            at_hand = seen[-1].verifier
            # One note says that it is missing; which arm runs, and who is paid, goes with it.
            receipt = got.json["outthink"]["receipt"]
            missed = [note for note in notes if "is left out: none is at hand" in note]
            assert len(missed) == (at_hand is None)
            assert receipt["strategy"] == f"auto ({'fixed@4' if at_hand is None else 'linear-gain@4+verifier'})"
            judges = {entry["model"] for entry in receipt["entries"] if entry["role"] == "verifier"}
            assert judges == (set() if at_hand is None else {"scripted"})
            return at_hand

        try:
            assert asked() is None, "it is not opened"
            assert served.without == 1
            proxy.do(served.start())
            assert asked() == "scripted-1"
            assert asked(verifier="confidence") is None, "another one judges"
            assert asked(budget={"usd": 1.0}) is None, "nobody knows its price"
            assert served.without == 1
        finally:
            proxy.do(served.stop())
        assert asked() is None
        assert served.without == 2


def test_a_server_may_come_later_and_fail_for_a_while(backend: ChatServer) -> None:
    replies = whole({"data": [{"score": 0.9}], "usage": {"prompt_tokens": 11}})
    routes = {"/v1/models": models("prm"), "/score": replies}
    with ChatServer(routes=routes) as gone:
        port = gone.port
    served = ServedVerifier(f"http://127.0.0.1:{port}", lambda id: None, pause=0.0)
    with ProxyServer(backend.url, verifier=served) as proxy:

        def tokens() -> list[int | None]:
            got = proxy.chat("outthink/weighted-vote@2", outthink={"answer": "number"})
            assert got.status == 200, got.content
            entries = got.json["outthink"]["receipt"]["entries"]
            return [entry["prompt_tokens"] for entry in entries if entry["role"] == "verifier"]

        proxy.do(served.start())
        try:
            assert served.problem is not None
            assert tokens() == [0], "nothing was read"
            with ChatServer(routes=routes, port=port) as server:
                until(lambda: served.problem is None)
                assert tokens() == [22]
                server.routes["/score"] = whole({"detail": "out of memory"}, 500)
                tokens()
                server.routes["/v1/models"] = whole({"detail": "out of memory"}, 500)
                tokens()
                until(lambda: served.problem is not None)
                server.routes.update(routes)
                until(lambda: served.problem is None)
                assert tokens() == [22]
            tokens()
            assert served.at_hand is None
        finally:
            proxy.do(served.stop())
    assert served.without >= 3


def test_a_verifier_that_reads_a_requests_own_model_is_refused_where_it_is_made() -> None:
    with pytest.raises(BadInput, match="has no model to ask"):
        ServedVerifier("judge", lambda id: None)
