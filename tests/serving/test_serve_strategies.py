"""Strategies over chats: votes, budgets, seeds, tools, structured output, and what the reply says of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.watch import Watcher
from support.chat_server import DONE, ChatServer, Gate, Reply, Seen, chat, chunk, refusal, stream, token, usage, whole
from support.proxy_server import ProxyServer


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer(chat(["The answer is 4."])) as server:
        yield server


def says(*texts: str) -> Any:
    """An answer by the request's seed, counted from 0."""
    return lambda seen: chat([texts[seen.body["seed"] % len(texts)]])


def calls(*made: tuple[str, str]) -> Reply:
    """A stream with tool calls, their arguments in two pieces."""
    steps: list[bytes] = [chunk(delta={"role": "assistant", "content": None})]
    for at, (name, arguments) in enumerate(made):
        head = {"index": at, "id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": ""}}
        steps.append(chunk(delta={"tool_calls": [head]}))
        for piece in (arguments[:3], arguments[3:]):
            steps.append(chunk(delta={"tool_calls": [{"index": at, "function": {"arguments": piece}}]}))
    return stream(*steps, chunk(finish="tool_calls"), usage(9, 6), DONE)


def tool(name: str, **properties: str) -> dict[str, Any]:
    """A tool whose arguments are all required."""
    schema = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in properties.items()},
        "required": list(properties),
    }
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def test_a_vote_and_everything_that_was_spent(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes["/v1/chat/completions"] = says(
        "It is \\boxed{4}.", "It is \\boxed{5}.", "So \\boxed{4}", "\\boxed{5}"
    )
    got = proxy.chat("outthink/self-consistency@8", seed=0, outthink={"answer": "number"})
    choice = got.json["choices"][0]
    assert choice["message"]["content"] == "It is \\boxed{4}."
    assert choice["finish_reason"] == "stop"
    assert sorted(seen.body["seed"] for seen in backend.calls) == list(range(8))
    assert got.json["usage"]["prompt_tokens"] == 8 * 5
    assert got.json["usage"]["completion_tokens"] == 8 * 2
    receipt = got.json["outthink"]["receipt"]
    assert (receipt["tokens"], receipt["answer"], receipt["strategy"]) == (56, "4", "self-consistency:n=8")
    assert receipt["id"] == got.headers["x-outthink-receipt"]
    kept = proxy.get(f"/v1/receipts/{receipt['id']}").json["receipt"]
    assert kept == receipt


def test_a_vote_beyond_change_is_not_waited_for(backend: ChatServer, proxy: ProxyServer) -> None:
    def answer(seen: Seen) -> Reply:
        return chat(["\\boxed{1}"], delay=10.0 if seen.body["seed"] >= 5 else 0.0)

    backend.routes["/v1/chat/completions"] = answer
    got = proxy.chat("outthink/self-consistency@8", seed=0)
    receipt = got.json["outthink"]["receipt"]
    assert receipt["answer"] == "1"
    assert receipt["stopped"] == "consensus"
    assert receipt["seconds"] < 5
    assert [entry["status"] for entry in receipt["entries"]].count("cancelled") == 3


def test_messages_and_unknown_fields_reach_the_backend_as_given(backend: ChatServer, proxy: ProxyServer) -> None:
    messages = [
        {"content": "Be brief.", "role": "developer", "name": "ops"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:,"}},
            ],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
    proxy.chat(
        "outthink/self-consistency@2", messages, stop=["\n\n"], vendor={"a": [1]}, top_p=0.5, parallel_tool_calls=False
    )
    for seen in backend.calls:
        assert seen.body["messages"] == messages
        assert "content" not in seen.body["messages"][2]
        assert seen.body["vendor"] == {"a": [1]}
        assert (seen.body["stop"], seen.body["top_p"], seen.body["parallel_tool_calls"]) == (["\n\n"], 0.5, False)
        assert seen.body["model"] == "toy"
        assert "outthink" not in seen.body
        assert "n" not in seen.body


def test_the_stricter_budget_wins_wherever_it_stands(proxy: ProxyServer) -> None:
    def spent(own: str, header: str) -> dict[str, Any]:
        got = proxy.chat(
            "outthink/self-consistency@64",
            outthink={"budget": own},
            headers={"x-outthink-budget": header},
            max_tokens=64,
            seed=0,
        )
        return dict(got.json["outthink"]["receipt"])

    for own, header in (("tokens=400", "tokens=9000"), ("tokens=9000", "tokens=400")):
        receipt = spent(own, header)
        assert receipt["at_most"]["tokens"] <= 400  # of samples that were cut off nobody may know more
        assert receipt["answer"] == "4"


def test_body_over_model_over_header(proxy: ProxyServer) -> None:
    def ran(model: str, own: str | None, header: str | None) -> str:
        fields: dict[str, Any] = {"outthink": {"strategy": own}} if own else {}
        got = proxy.chat(model, headers={"x-outthink-strategy": header} if header else None, **fields)
        return str(got.json["outthink"]["receipt"]["strategy"])

    assert ran("outthink/self-consistency@2", "esc@4", "greedy").startswith("esc:n=4")
    assert ran("outthink/self-consistency@2", None, "greedy") == "self-consistency:n=2"
    assert ran("outthink/auto", None, "greedy") == "greedy"
    assert ran("outthink/auto", None, None) == "single"
    assert ran("toy", "self-consistency@3:ties=random", None) == "self-consistency:n=3,ties=random"
    assert ran("toy", None, "self-consistency@2") == "self-consistency:n=2"


def test_auto_votes_where_answers_can_agree(proxy: ProxyServer) -> None:
    got = proxy.chat("outthink/auto", outthink={"answer": "number"})
    receipt = got.json["outthink"]["receipt"]
    assert receipt["strategy"].startswith("adaptive-consistency")
    assert receipt["stopped"] == "consensus"


def test_temperature_zero_is_replaced_and_said_so(backend: ChatServer, proxy: ProxyServer) -> None:
    got = proxy.chat("outthink/self-consistency@2", temperature=0)
    assert {seen.body["temperature"] for seen in backend.calls} == {0.8}
    assert any("temperature" in note for note in got.json["outthink"]["receipt"]["notes"])
    backend.seen.clear()
    proxy.chat("outthink/single", temperature=0)
    assert backend.calls[0].body["temperature"] == 0


def test_n_returns_the_best_answers(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes["/v1/chat/completions"] = says(
        "\\boxed{1}", "\\boxed{2}", "a \\boxed{2}", "\\boxed{3}", "\\boxed{2}", "\\boxed{3}"
    )
    got = proxy.chat("outthink/self-consistency@6", n=3, seed=0)
    assert [choice["message"]["content"] for choice in got.json["choices"]] == [
        "\\boxed{2}",
        "\\boxed{3}",
        "\\boxed{1}",
    ]
    assert [choice["index"] for choice in got.json["choices"]] == [0, 1, 2]
    assert len(proxy.chat("outthink/single", n=2, seed=0).json["choices"]) == 2
    assert proxy.chat("outthink/self-consistency@2", n=3).error["param"] == "n"


def test_votes_on_tool_calls(backend: ChatServer, proxy: ProxyServer) -> None:
    replies = [
        calls(("weather", '{"city": "Rome", "days": 2}')),
        calls(("weather", '{"days":2,"city":"Rome"}')),
        calls(("weather", '{"city": "Oslo", "days": 1}')),
        calls(("weather", '{"city": "Oslo"')),
        calls(("weather", '{"city": "Oslo", "days": "one"}')),
        calls(("unheard_of", "{}")),
    ]
    backend.routes["/v1/chat/completions"] = lambda seen: replies[seen.body["seed"]]
    tools = [tool("weather", city="string", days="integer")]
    got = proxy.chat("outthink/self-consistency@6", tools=tools, tool_choice="required", seed=0)
    choice = got.json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["id"] == "call_0"
    assert json.loads(call["function"]["arguments"]) == {"city": "Rome", "days": 2}
    assert backend.calls[0].body["tools"] == tools
    assert backend.calls[0].body["tool_choice"] == "required"


def test_calling_or_not_is_a_vote_too(backend: ChatServer, proxy: ProxyServer) -> None:
    words = [chat(["It is sunny."]), chat(["Sunny, I think."]), chat(["No rain."]), calls(("weather", "{}"))]
    backend.routes["/v1/chat/completions"] = lambda seen: words[seen.body["seed"]]
    got = proxy.chat("outthink/self-consistency@4", tools=[tool("weather")], seed=0)
    assert got.json["choices"][0]["message"]["content"] == "It is sunny."
    assert "tool_calls" not in got.json["choices"][0]["message"]


def test_parallel_calls_agree_in_any_order(backend: ChatServer, proxy: ProxyServer) -> None:
    one, two = ("weather", '{"city":"Rome"}'), ("clock", '{"zone":"CET"}')
    replies = [calls(("clock", '{"zone":"PST"}')), calls(one, two), calls(two, one)]
    backend.routes["/v1/chat/completions"] = lambda seen: replies[seen.body["seed"]]
    tools = [tool("weather", city="string"), tool("clock", zone="string")]
    got = proxy.chat("outthink/self-consistency@3", tools=tools, seed=0)
    assert len(got.json["choices"][0]["message"]["tool_calls"]) == 2


def test_only_json_that_fits_the_schema_votes(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes["/v1/chat/completions"] = says('{"n": "x"}', '{"n": "x"}', '{"n": "x"}', '{ "n": 1.0 }', '{"n": 1}')
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "count", "schema": schema}}
    got = proxy.chat("outthink/self-consistency@5", response_format=form, seed=0)
    assert got.json["outthink"]["receipt"]["answer"] == '{"n":1}'
    assert got.json["choices"][0]["message"]["content"] == '{ "n": 1.0 }'
    assert backend.calls[0].body["response_format"] == form


def test_logprobs_are_the_chosen_samples(backend: ChatServer, proxy: ProxyServer) -> None:
    late = Gate()  # of the two with one text the earlier is chosen, also where it ends later

    class Opening(Watcher):
        def sampled(self, id: str, index: int, state: str, answer: Any, tokens: Any, backend: str) -> None:
            if (index, state) == (2, "finished"):
                late.open()

    proxy.app.watchers.add(Opening())

    def answer(seen: Seen) -> Reply:
        at = seen.body["seed"]
        return stream(
            *([late] if at == 1 else []),
            chunk(f"\\boxed{{{min(at, 1)}}}", logprobs=[token(f"t{at}", -0.1, (-0.1, -2.0))]),
            chunk(finish="stop"),
            usage(3, 1),
            DONE,
        )

    backend.routes["/v1/chat/completions"] = answer
    got = proxy.chat("outthink/self-consistency@3", logprobs=True, top_logprobs=1, seed=0)
    (entry,) = got.json["choices"][0]["logprobs"]["content"]
    assert entry["token"] == "t1"
    assert len(entry["top_logprobs"]) == 1
    assert proxy.chat("outthink/self-consistency@3", seed=0).json["choices"][0]["logprobs"] is None


def test_a_verifier_of_the_client_opens_nothing(proxy: ProxyServer) -> None:
    for name in ("http://127.0.0.1:1/", "/etc", "schema:/etc/passwd", "judge:http://127.0.0.1:1/"):
        got = proxy.chat("outthink/best-of-n@2", outthink={"verifier": name})
        assert got.error["param"] == "outthink.verifier"


def test_refusals_of_the_backend_are_the_clients_to_mend(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes["/v1/chat/completions"] = refusal("images are not supported by this model")
    got = proxy.chat("outthink/self-consistency@2")
    assert got.status == 400
    assert "images are not supported" in got.error["message"]
    backend.routes["/v1/chat/completions"] = whole({"error": {"message": "slow down"}}, 429, retry_after="40")
    got = proxy.chat("outthink/single")
    assert got.status == 429
    assert int(got.headers["retry-after"]) == 40


def test_settings_of_one_client_never_reach_another(backend: ChatServer, proxy: ProxyServer) -> None:
    def answer(seen: Seen) -> Reply:
        return chat([f"\\boxed{{{seen.body['messages'][0]['content']}}}"])

    backend.routes["/v1/chat/completions"] = answer
    wrong: list[str] = []

    def client(number: int) -> None:
        n = 1 + number % 5
        for round_ in range(3):
            mark = f"c{number}r{round_}"
            got = proxy.chat(
                f"outthink/self-consistency@{n}" if number % 2 else "toy",
                mark,
                stream=number % 3 == 0,
                temperature=0.5 + number / 100,
                user=mark,
            )
            if mark not in got.content.decode():
                wrong.append(mark)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    for seen in backend.calls:
        mark = seen.body["messages"][0]["content"]
        number = int(mark[1:].partition("r")[0])
        assert seen.body["user"] == mark
        assert seen.body["temperature"] == 0.5 + number / 100
    counts: dict[str, int] = {}
    for seen in backend.calls:
        counts[seen.body["user"]] = counts.get(seen.body["user"], 0) + 1
    assert all(count <= 1 + int(mark[1:].partition("r")[0]) % 5 for mark, count in counts.items())
