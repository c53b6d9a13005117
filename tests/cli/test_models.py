"""Models by name, as verbs take them, and `outthink models`, which lists them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

import outthink as ot
from support.chat_server import ChatServer, chat, models


@pytest.fixture
def other():
    with ChatServer(chat(["The answer is 4."]), routes={"/v1/models": models("one", "two")}) as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with a model that works, one whose file is gone, and one whose server is."""
    text = f"""
        model = "toy"
        [models.toy]
        url = "{server.url}"
        name = "toy"
        price = "1000,2000"
        parameters = 7
        [models.gone]
        path = "gone.gguf"
        [models.down]
        url = "http://127.0.0.1:9/v1"
    """
    path = tmp_path / "models.toml"
    path.write_text(text)
    monkeypatch.setenv("OUTTHINK_CONFIG", str(path))
    monkeypatch.delenv("OUTTHINK_MODEL", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return path


def test_ask_takes_a_model_by_its_name_with_its_price_and_parameters(cli, config) -> None:
    for arguments in (("--model", "toy"), ()):
        done = cli("ask", "2 + 2?", "--json", *arguments)
        assert done.code in (0, 3), done.err
        receipt = json.loads(done.out)["receipt"]
        assert receipt["usd"] > 0
        assert receipt["flops"] == 2 * 7 * receipt["tokens"]
    flagged = json.loads(cli("ask", "2 + 2?", "--json", "--parameters", 5, "--price", "0,0").out)["receipt"]
    assert (flagged["usd"], flagged["flops"]) == (0, 2 * 5 * flagged["tokens"])


def test_a_name_that_cannot_be_had_is_one_line_and_others_work(cli, config) -> None:
    done = cli("ask", "x", "--model", "gone")
    assert (done.code, done.out) == (2, "")
    assert f"{config}: models.gone.path: '{config.parent / 'gone.gguf'}' does not exist; correct it" in done.err
    done = cli("ask", "x", "--model", "tyo")
    assert done.code == 2
    assert "model: 'tyo' is no alias, no URL, no file and not `embedded`; did you mean toy?" in done.err
    assert cli("ask", "x", "--model", "toy").code in (0, 3)


def test_a_recording_keeps_the_parameters_and_compare_reads_them(cli, config, tmp_path: Path) -> None:
    data, out, rows = tmp_path / "sums.jsonl", tmp_path / "toy--sums.parquet", tmp_path / "rows.json"
    data.write_text("\n".join(json.dumps({"question": f"{i} + 2?", "answer": str(i + 2)}) for i in range(3)))
    done = cli("record", data, "--samples", 4, "--answer", "number", "--out", out)
    assert done.code == 0, done.err
    assert json.loads(parquet.read_schema(out).metadata[b"outthink"])["parameters"] == 7

    def flops(*more: object) -> float:
        done = cli("compare", out, "--seeds", 1, "--strategy", "self-consistency:n=2", "--json", rows, *more)
        assert done.code == 0, done.err
        row = next(row for row in json.loads(rows.read_text()) if row["strategy"] == "self-consistency")
        return row["flops"] / (row["tokens"] + row["prompt_tokens"])

    assert flops() == pytest.approx(14)
    assert flops("--parameters", 5) == flops("--parameters", "toy=5") == pytest.approx(10)
    config.write_text(config.read_text().replace("parameters = 7", "parameters = 3"))
    assert flops() == pytest.approx(6), "the alias wins over the file"
    done = cli("compare", out, "--parameters", "tyo=5")
    assert (done.code, "'tyo' is none of the models; use one of toy" in done.err) == (2, True)


def test_models_lists_what_can_be_named_and_tells_of_what_is_in_the_way(cli, config, other) -> None:
    config.write_text(config.read_text() + f'[models.many]\nurl = "{other.url}"\n')
    done = cli("models", "--json")
    assert done.code == 0, done.err
    rows = {(row["named"], row["model"]): row for row in json.loads(done.out)}
    toy = rows["toy", "toy"]
    assert (toy["parameters"], toy["source"], toy["price"], toy["trouble"]) == (7, "alias", "1000,2000", None)
    assert {model for named, model in rows if named == "many"} == {"one", "two"}
    assert "does not exist" in rows["gone", None]["trouble"]
    assert rows["down", None]["trouble"]
    assert any(named == "embedded" for named, _ in rows)
    shown = cli("models")
    assert shown.code == 0
    assert "7 (alias)" in shown.out
    assert f"gone: {config}: models.gone.path: " in shown.out
    offline = json.loads(cli("models", "many", "--offline", "--json").out)
    assert [row["model"] for row in offline] == [None]


def test_doctor_says_which_configuration_is_read(cli, config, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {row["name"]: row for row in json.loads(cli("doctor", "--json").out)["findings"]}
    assert found["configuration"]["detail"] == f"{config} ($OUTTHINK_CONFIG), 3 models by name"


def test_a_client_keeps_what_a_name_meant_at_first(config) -> None:
    with ot.SyncClient("toy", strategy="single") as client:
        first = client.ask("2 + 2?")
        config.unlink()
        again = client.ask("2 + 2?")
    for result in (first, again):
        receipt = result.receipt.json()
        assert receipt["flops"] == 14 * receipt["tokens"]
        assert receipt["usd"] > 0
