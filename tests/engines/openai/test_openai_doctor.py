"""The examination of a server: what it finds, what it costs, and that nothing stops it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from openai_runs import NOT_FOUND

from outthink.core.errors import EngineError
from outthink.engines.openai import Facts, Finding, OpenAIEngine, Report, examine
from support.chat_server import (
    DONE,
    Answer,
    ChatServer,
    Hang,
    Reply,
    Seen,
    chunk,
    models,
    refusal,
    stream,
    token,
    usage,
    whole,
)

PARIS = " Paris."


class Toy:
    """A server with switches, one for each thing that servers do differently."""

    def __init__(self, **switches: Any) -> None:
        self.repeats = self.anew = self.sums = False
        self.seeded = self.several = self.streams = self.alternatives = self.timings = True
        self.extensions = self.usage = True
        self.field = "content"
        for name, value in switches.items():
            assert hasattr(self, name)
            setattr(self, name, value)
        self.calls = 0

    def __call__(self, seen: Seen) -> Reply:
        body = seen.body
        self.calls += 1
        assert (body.get("max_tokens") or body["max_completion_tokens"]) <= 16
        for name in ("top_k", "min_p", "timings_per_token"):
            if not self.extensions and name in body:
                return refusal(f"Unknown parameter: '{name}'", param=name, code="unknown_parameter")
        if body["messages"][-1]["role"] == "assistant":
            return self.continuation(body["messages"][-1]["content"])
        seed = body.get("seed", 0) if self.seeded else self.calls
        words = [f" name{seed}", f" and{seed}"]
        if body.get("n", 1) > 1:
            return self.choices(words) if self.several else self.choices(words, count=1)
        return self.stream(words, body) if self.streams and body.get("stream") else self.choices(words, count=1)

    def stream(self, words: list[str], body: dict[str, Any]) -> Reply:
        asked = body.get("top_logprobs", 0) if self.alternatives else 0
        pieces = []
        for at, word in enumerate(words, 1):
            entries = [token(word, -1.0, [-1.0] * asked)] if self.alternatives and body.get("logprobs") else None
            more: dict[str, Any] = {"timings": {"predicted_n": at, "prompt_n": 9, "cache_n": 0}} if self.timings else {}
            pieces.append(chunk(delta={self.field: word}, logprobs=entries, **more))
        last = [usage(9, len(words))] if self.usage else []
        return stream(*pieces, chunk(finish="stop"), *last, DONE)

    def choices(self, words: list[str], count: int = 2) -> Reply:
        entries = {"content": [token(word) for word in words]} if self.alternatives else None
        choice = {"message": {"content": "".join(words)}, "finish_reason": "stop", "logprobs": entries}
        used = len(words) * (count if self.sums else 1)
        rows = [{**choice, "index": at} for at in range(count)]
        return whole({"choices": rows, "usage": {"prompt_tokens": 9, "completion_tokens": used}})

    def continuation(self, prefix: str) -> Reply:
        if self.anew:
            return stream(chunk("The capital of France is Paris"), chunk(finish="length"), DONE)
        text = (prefix if self.repeats else "") + PARIS
        return stream(chunk(delta={self.field: text}), chunk(finish="stop"), DONE)


def report(
    answer: Answer, *, routes: dict[str, Answer] | None = None, **options: Any
) -> tuple[Report, ChatServer, Any]:
    with ChatServer(answer, routes=routes) as server:
        engine = OpenAIEngine(server.url, options.pop("model", "toy"), memory=None, **options)

        async def main() -> Report:
            try:
                return await examine(engine)
            finally:
                await engine.aclose()

        result = asyncio.run(main())
        assert result.requests == len(server.seen) <= 12
        names = [finding.name for finding in result.findings]
        assert len(set(names)) == len(names) == 19
        return result, server, engine


def of(found: Report, name: str) -> Finding:
    return next(finding for finding in found.findings if finding.name == name)


def states(found: Report) -> dict[str, str]:
    return {finding.name: finding.state for finding in found.findings}


TOKENIZE: dict[str, Answer] = {
    "/tokenize": lambda seen: whole({"count": 9 if "messages" in seen.body else 4, "max_model_len": 99})
}


def test_a_server_that_can_do_everything() -> None:
    result, _, engine = report(Toy(sums=True), routes=TOKENIZE, model=None)
    assert {name for name, state in states(result).items() if state != "yes"} == {"prefix repeated", "reasoning field"}
    assert of(result, "prefix repeated").state == "no"
    assert of(result, "prompt counts").detail == "9 tokens, as its usage says"
    features = engine.features
    assert (features.logprobs, features.top_logprobs, features.prefix, features.seed) == (True, 20, True, True)
    assert result.model == "toy"
    assert result.findings[0] == Finding("reachable", "yes", result.url)


@pytest.mark.parametrize(
    ("switch", "name", "state", "detail"),
    [
        ({"repeats": True}, "prefix repeated", "yes", "taken off"),
        ({"repeats": True}, "prefix", "yes", "Paris"),
        ({"anew": True}, "prefix", "no", "began anew"),
        ({"sums": False}, "usage sums choices", "no", "says 2 for 2 + 2"),
        ({"several": False}, "n", "no", "got 1"),
        ({"seeded": False}, "seed", "no", "another text"),
        ({"streams": False}, "streaming", "no", "at once"),
        ({"alternatives": False}, "logprobs", "no", ""),
        ({"alternatives": False}, "top_logprobs", "no", "0 of 20"),
        ({"alternatives": False, "timings": False}, "continuous counts", "no", ""),
        ({"timings": False}, "continuous counts", "yes", "log-probability entries"),
        ({"usage": False, "timings": False}, "usage in stream", "no", ""),
        ({"extensions": False}, "parameters", "no", "min_p, timings_per_token, top_k"),
        ({}, "tokenizer", "no", "/tokenize"),
        # A reasoning parser before a model that never ends its thinking.
        ({"field": "reasoning"}, "seed", "yes", "same text"),
        ({"field": "reasoning", "seeded": False}, "seed", "no", "another text"),
        ({"field": "reasoning"}, "prefix", "unknown", "came as reasoning"),
    ],
)
def test_what_a_server_lacks(switch: dict[str, Any], name: str, state: str, detail: str) -> None:
    result, _, _ = report(Toy(**switch))
    assert of(result, name).state == state
    assert detail in of(result, name).detail


def test_the_doctor_leaves_what_it_found_to_later_runs(tmp_path: Path) -> None:
    with ChatServer(Toy(repeats=True, extensions=False)) as server:

        async def main() -> None:
            engine = OpenAIEngine(server.url, "toy", memory=tmp_path, facts=Facts(prefix=False))
            await examine(engine)
            await engine.aclose()
            later = OpenAIEngine(server.url, "toy", memory=tmp_path)
            await later.prepare(None)  # type: ignore[arg-type]
            assert later.features.prefix is True
            assert later.facts.repeats is True
            assert "top_k" in later.facts.refused

        asyncio.run(main())


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (refusal("bad key", 401), "OPENAI_API_KEY"),
        (refusal("busy", 503), "busy"),
        (whole("<html>hi</html>"), "HTML"),
        (stream(chunk("A"), b"data: {oops\n\n"), "oops"),
        (stream(b'data: {"error": {"message": "engine died"}}\n\n'), "engine died"),
    ],
)
def test_a_server_that_answers_nothing_useful(reply: Reply, said: str) -> None:
    result, _, _ = report(reply)
    assert of(result, "reachable").state == "yes"
    assert any(said in finding.detail for finding in result.findings)
    assert of(result, "seed").state in ("unknown", "no")


@pytest.mark.parametrize("listed", [NOT_FOUND, models("other"), refusal("bad key", 401)])
def test_the_list_of_models_is_not_needed(listed: Reply) -> None:
    result, _, _ = report(Toy(), routes={"/v1/models": listed})
    assert of(result, "models").state in ("yes", "no", "unknown")
    assert of(result, "completion").state == "yes"


def test_a_refused_key_without_a_model() -> None:
    result, _, _ = report(Toy(), routes={"/v1/models": refusal("bad key", 401)}, model=None)
    assert "OPENAI_API_KEY" in of(result, "models").detail
    assert of(result, "completion").state == "unknown"


def test_single_probes_may_fail() -> None:
    toy = Toy()

    def answer(seen: Seen) -> Reply:
        if seen.body["messages"][-1]["role"] == "assistant":
            return refusal("prefill is not possible here")
        return refusal("boom", 500) if seen.body.get("n") else toy(seen)

    result, _, engine = report(answer)
    assert of(result, "prefix").state == "no"
    assert of(result, "n").state == "unknown"
    assert of(result, "seed").state == "yes"
    assert engine.features.prefix is False


def test_a_server_that_refuses_several_choices() -> None:
    toy = Toy()
    result, _, _ = report(lambda seen: refusal("n must be 1") if seen.body.get("n") else toy(seen))
    assert of(result, "n").state == "no"
    assert "n must be 1" in of(result, "n").detail
    assert of(result, "usage sums choices").state == "unknown"


def test_a_hanging_completion_does_not_hang_the_doctor() -> None:
    result, _, _ = report(stream(Hang()), idle_timeout=0.1)
    assert of(result, "completion").state == "unknown"
    assert "sent nothing" in of(result, "completion").detail


def test_a_server_that_is_not_there() -> None:
    engine = OpenAIEngine("http://127.0.0.1:9", memory=None)
    with pytest.raises(EngineError, match="is it running"):
        asyncio.run(examine(engine))
