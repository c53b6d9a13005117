"""Prompts and texts counted by the server's own tokeniser."""

from __future__ import annotations

import asyncio

import pytest
from openai_runs import NOT_FOUND, ask

from outthink.engines.openai import OpenAIEngine
from outthink.engines.protocol import Call
from support.chat_server import Answer, ChatServer, Drop, Reply, Seen, chat, refusal, stream, whole


def vllm(seen: Seen) -> Reply:
    body = seen.body
    if "messages" in body:
        count = sum(len(message["content"]) for message in body["messages"]) + 10
        return whole({"count": count - (5 if body.get("continue_final_message") else 0), "max_model_len": 4096})
    return whole({"count": len(body["prompt"].split()), "max_model_len": 4096, "tokens": [1]})


def llama(seen: Seen) -> Reply:
    return whole({"tokens": [0] * (len(seen.body["content"].split()) + seen.body.get("parse_special", 0))})


def template(seen: Seen) -> Reply:
    return whole({"prompt": " ".join(f"<{message['role']}> {message['content']}" for message in seen.body["messages"])})


def counts(routes: dict[str, Answer], *calls: Call | str) -> tuple[list[int | None], list[str], OpenAIEngine]:
    """Counts of calls (prompts) and strings (texts), and the paths that were asked."""
    with ChatServer(chat(), routes=routes) as server:
        engine = OpenAIEngine(server.url, "toy", memory=None)

        async def count(call: Call | str) -> int | None:
            return await engine.count_text(call) if isinstance(call, str) else await engine.count_prompt(call)

        async def main() -> list[int | None]:
            result = [await count(call) for call in calls]
            await engine.aclose()
            return result

        return asyncio.run(main()), [seen.path for seen in server.seen], engine


def test_vllm_counts_texts_and_chats() -> None:
    result, paths, engine = counts({"/tokenize": vllm}, "one two", ask("12345"), ask("12345", prefix="678"))
    assert result == [2, 15, 13]
    assert paths == ["/tokenize"] * 3
    assert engine.facts.tokenizer == "vllm"


def test_llama_cpp_counts_chats_by_its_template() -> None:
    routes: dict[str, Answer] = {"/tokenize": llama, "/apply-template": template}
    result, paths, engine = counts(routes, "one two", ask("one two"), ask("one two", prefix="three"))
    assert result == [2, 4, 6]
    assert paths == ["/tokenize"] + ["/apply-template", "/tokenize"] * 2
    assert engine.facts.tokenizer == "llama.cpp"


def test_a_prompt_may_be_the_first_thing_that_is_counted() -> None:
    assert counts({"/tokenize": vllm}, ask("12345"))[0] == [15]


ABSENT = [NOT_FOUND, refusal("no", 405), whole("<html>", 200), whole([1]), whole({"tokens": []})]


@pytest.mark.parametrize("reply", ABSENT)
def test_the_absence_of_a_tokeniser_is_remembered(reply: Reply) -> None:
    result, paths, engine = counts({"/tokenize": reply}, "one", ask(), "one", ask())
    assert result == [None] * 4
    assert len(paths) == 1
    assert engine.facts.tokenizer == "none"


@pytest.mark.parametrize("reply", [refusal("busy", 503), refusal("busy", 429), stream(Drop())])
def test_a_passing_failure_is_not(reply: Reply) -> None:
    def second(seen: Seen) -> Reply:
        return reply if seen.number == 0 else vllm(seen)

    result, _, _ = counts({"/tokenize": second}, "one", "one")
    assert result == [None, 1]


def test_a_tokeniser_for_texts_alone() -> None:
    def sglang(seen: Seen) -> Reply:
        return refusal("prompt: field required") if "messages" in seen.body else vllm(seen)

    result, paths, engine = counts({"/tokenize": sglang}, "one", ask(), ask(), "one two")
    assert result == [1, None, None, 2]
    assert len(paths) == 3
    assert engine.facts.counts_chats is False


def test_one_refused_chat_does_not_end_the_counting() -> None:
    def picky(seen: Seen) -> Reply:
        return refusal("no images") if "image" in str(seen.body.get("messages")) else vllm(seen)

    assert counts({"/tokenize": picky}, ask("12345"), ask("image"), ask("12345"))[0] == [15, None, 15]


def test_an_empty_text_has_no_tokens() -> None:
    assert counts({}, "")[:2] == ([0], [])


def test_a_server_that_is_gone_is_reported_by_the_call_and_not_by_the_count() -> None:
    engine = OpenAIEngine("http://127.0.0.1:9", "toy", memory=None)
    assert asyncio.run(engine.count_text("one")) is None
    assert engine.facts.tokenizer is None
