"""The smaller verbs: strategies, doctor, cache, help and version."""

from __future__ import annotations

import json
import sys

import pytest

import outthink as ot
from outthink.strategies import STYLES, strategies


def test_version(cli) -> None:
    done = cli("--version")
    assert (done.code, done.out.strip()) == (0, f"outthink {ot.__version__}")


def test_every_strategy_is_in_the_table_with_its_parameters(cli) -> None:
    done = cli("strategies", "--markdown")
    for name in ("single", "greedy", "self-consistency", "adaptive-consistency", "esc", "short-m-of-k", "best-of-n",
                 "borda", "deepconf", "deepconf-online"):  # fmt: skip
        assert f"| `{name}` |" in done.out
    assert "confidence=0.95" in done.out


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_strategies_are_read_in_a_terminal_of_80_columns(cli, monkeypatch, columns) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    done = cli("strategies")
    assert max(map(len, done.out.splitlines())) <= columns
    told = " ".join(done.out.split())
    for name, known in strategies().items():
        assert f"{name} {known.summary}" in told
        assert known.source in told
        for key, value in known.defaults.items():
            assert f"{key}={'auto' if value is None else value}" in told
    for name, style in STYLES.items():
        assert f"{name} {style.instruction}" in told


def test_the_list_of_strategies_for_programs(cli) -> None:
    found = {row["name"]: row for row in cli("strategies", "--json").json}
    assert list(found) == list(strategies())
    for name, row in found.items():
        assert set(row) == {"name", "summary", "needs", "source", "parameters", "traits", "plugin"}
        assert row["plugin"] is None
        assert {each["name"]: each["default"] for each in row["parameters"]} == strategies()[name].defaults
        assert all(each["description"] for each in row["parameters"]), name
    window, ties = found["esc"]["parameters"][1:]
    assert window == {
        "name": "window",
        "type": "int",
        "default": 5,
        "choices": [],
        "description": "answers in a row that must agree",
    }
    assert (ties["type"], ties["choices"]) == ("str", ["confidence", "random"])
    assert found["budget-forcing"]["parameters"][0] | {"description": ""} == {
        "name": "max_think",
        "type": "int",
        "default": None,
        "choices": [],
        "description": "",
    }
    assert found["beam"]["traits"]["needs_verifier"] is True
    assert found["best-of-n"]["traits"]["needs_verifier"] is False


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
