"""The smaller verbs: strategies, doctor, cache, help and version."""

from __future__ import annotations

import json
import sys

import outthink as ot


def test_version(cli) -> None:
    done = cli("--version")
    assert (done.code, done.out.strip()) == (0, f"outthink {ot.__version__}")


def test_every_strategy_is_in_the_table_with_its_parameters(cli) -> None:
    done = cli("strategies", "--markdown")
    for name in ("single", "greedy", "self-consistency", "adaptive-consistency", "esc", "short-m-of-k", "best-of-n",
                 "borda", "deepconf", "deepconf-online"):  # fmt: skip
        assert f"| `{name}` |" in done.out
    assert "confidence=0.95" in done.out
    assert cli("strategies").code == 0


def test_doctor_examines_a_server(cli, server) -> None:
    done = cli("doctor", server.url, "--json")
    assert done.code == 0
    result = {finding["name"]: finding["state"] for finding in done.json["findings"]}
    assert result["reachable"] == "yes"
    assert result["streaming"] == "yes"


def test_doctor_says_what_a_dead_server_is(cli) -> None:
    done = cli("doctor", "http://127.0.0.1:9/v1")
    assert done.code == 1
    assert len(done.err.strip().splitlines()) == 1


def test_doctor_without_a_server_describes_the_installation(cli) -> None:
    done = cli("doctor", "--json")
    assert {"Python", "embedded model"} <= {finding["name"] for finding in json.loads(done.out)["findings"]}


def test_the_cache_can_be_found_and_cleared(cli, server) -> None:
    cli("ask", "x", "--model", server.url, "--cache")
    path = cli("cache", "path").out.strip()
    assert path.endswith("responses.sqlite")
    assert cli("cache", "clear").code == 0
    cli("ask", "x", "--model", server.url, "--cache")
    assert len(server.calls) == 2


def test_doctor_prints_remedies_with_their_brackets(cli, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    assert "'.[local]'" in cli("doctor").out
