"""What is found out about a server survives the process, for a week, without secrets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from openai_runs import ask, collect

from outthink.engines.openai import Facts, OpenAIEngine
from outthink.engines.openai.body import EXPIRES, file_for, recall, remember
from support.chat_server import ChatServer, Reply, Seen, chat, refusal, refusing

URL, MODEL = "http://h/v1", "toy"


def stored(tmp_path: Path, at: float = 1000.0) -> Path:
    facts = Facts(now=lambda: at)
    facts.learn(length_name="max_completion_tokens", top_logprobs=5, prefix=False, seed=True, top_k_off=-1)
    facts.refuse("top_k")
    path = file_for(tmp_path / "deep" / "servers", URL, MODEL)
    remember(path, facts, URL, MODEL)
    return path


def test_facts_come_back(tmp_path: Path) -> None:
    path = stored(tmp_path)
    facts = recall(path, now=lambda: 2000.0)
    assert facts.refused == {"top_k"}
    assert (facts.length_name, facts.top_logprobs, facts.prefix, facts.seed) == (
        "max_completion_tokens",
        5,
        False,
        True,
    )
    assert facts.top_k_off == -1
    assert facts.logprobs is None
    assert not facts.changed
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("later", [EXPIRES, EXPIRES * 2, -5000.0])
def test_facts_expire(tmp_path: Path, later: float) -> None:
    facts = recall(stored(tmp_path), now=lambda: 1000.0 + later)
    assert facts == Facts()


def test_a_fact_that_is_seen_again_keeps_its_date_unless_it_was_tried() -> None:
    clock = [1.0]
    facts = Facts(now=lambda: clock[0])
    facts.learn(prefix=False)
    facts.refuse("top_k")
    clock[0] = 2.0
    facts.learn(prefix=False)
    facts.refuse("top_k")
    assert facts.learnt == {"prefix": 1.0, "refused:top_k": 1.0}
    facts.learn(prefix=False, again=True)
    assert facts.learnt["prefix"] == 2.0


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        '{"facts": 1, "learnt": {}}',
        '{"facts": {"prefix": "yes", "top_logprobs": true}, "learnt": {"prefix": 1, "top_logprobs": 1}}',
        '{"facts": {"refused": "top_k"}, "learnt": {"refused:top_k": 1}}',
        '{"facts": {"prefix": true, "refused": [7, "top_k"]}, "learnt": {"prefix": "now", "refused:top_k": null}}',
        "\x00\xff",
    ],
)
def test_a_corrupt_file_is_ignored(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("latin-1"))
    assert recall(path, now=lambda: 2.0) == Facts()


def test_a_disk_that_refuses_costs_only_the_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    facts = Facts()
    facts.refuse("top_k")
    remember(tmp_path / "file" / "x.json", facts, URL, MODEL)
    assert recall(tmp_path / "file" / "x.json") == Facts()


def test_each_url_and_model_has_its_own_file(tmp_path: Path) -> None:
    names = {file_for(tmp_path, url, model) for url in ("http://a/v1", "http://b/v1") for model in ("m", "n")}
    assert len(names) == 4


def strict(seen: Seen) -> Reply:
    return refusing({"top_k": refusal("Unknown parameter: 'top_k'", param="top_k")}, chat())(seen)


def test_a_new_engine_starts_with_what_an_old_one_found_out(tmp_path: Path) -> None:
    with ChatServer(strict) as server:
        for _ in range(2):
            engine = OpenAIEngine(server.url, "toy", api_key="topsecret", memory=tmp_path)
            asyncio.run(collect(engine, ask("a private question")))
        assert len(server.calls) == 3
        other = OpenAIEngine(server.url, "other", memory=tmp_path)
        asyncio.run(collect(other, ask()))
        assert len(server.calls) == 5
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "topsecret" not in text
    assert "private" not in text
    assert json.loads(next(tmp_path.iterdir()).read_text())["facts"]["refused"] == ["top_k"]


def test_no_secret_of_the_url_is_stored(tmp_path: Path) -> None:
    with ChatServer(strict) as server:
        url = server.url.replace("//", "//me:pass-word@") + "?key=t0ken"
        asyncio.run(collect(OpenAIEngine(url, "toy", memory=tmp_path), ask()))
    (path,) = tmp_path.iterdir()
    assert "pass-word" not in path.read_text()
    assert "t0ken" not in path.read_text()


@pytest.mark.parametrize("variable", ["OUTTHINK_CACHE", "XDG_CACHE_HOME"])
def test_the_cache_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("OUTTHINK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    with ChatServer(strict) as server:
        asyncio.run(collect(OpenAIEngine(server.url, "toy"), ask()))
    folder = tmp_path / "servers" if variable == "OUTTHINK_CACHE" else tmp_path / "outthink" / "servers"
    assert len(list(folder.iterdir())) == 1


def test_facts_may_be_given_and_nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path))
    facts = Facts(prefix=True, logprobs=True, top_logprobs=20, tokenizer="llama.cpp")
    with ChatServer(strict) as server:
        engine = OpenAIEngine(server.url, "toy", memory=None, facts=facts)
        asyncio.run(collect(engine, ask()))
    assert engine.features.prefix is True
    assert engine.features.top_logprobs == 20
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_where_nothing_was_learnt(tmp_path: Path) -> None:
    with ChatServer(chat()) as server:
        engine = OpenAIEngine(server.url, "toy", memory=tmp_path)

        async def main() -> Any:
            await collect(engine, ask())
            await engine.aclose()

        asyncio.run(main())
    assert list(tmp_path.iterdir()) == []
