"""Calls, thinking and fields that nobody knows reach clients whole through strategies, streamed or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("openai.lib.streaming._deltas", reason="needs the openai client")

from openai.lib.streaming._deltas import accumulate_delta

from support.chat_server import DONE, ChatServer, chunk, event, stream, token, usage, whole
from support.proxy_server import CHAT, ProxyServer

MODELS = ["outthink/single", "outthink/self-consistency@2"]
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("weather", "time", "f")]
Delta = dict[str, Any]


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


def call(name: str | None, arguments: Any, **more: Any) -> Delta:
    """A piece of one call."""
    return {"function": {"arguments": arguments, **({"name": name} if name is not None else {})}, **more}


def calls(*pieces: Delta) -> list[Delta]:
    """A delta for each piece."""
    return [{"tool_calls": [piece]} for piece in pieces]


def asked(proxy: ProxyServer, backend: ChatServer, model: str, deltas: list[Delta], **more: Any) -> list[Delta]:
    """The choice that a client gets of a reply in such deltas: whole, and put together from a stream."""
    end = more.pop("end", {"index": 0, "delta": {}, "finish_reason": more.pop("finish", "stop")})
    backend.routes[CHAT] = stream(
        *(chunk(delta=delta) for delta in deltas), event({"choices": [end]}), usage(5, 2), DONE
    )
    got = proxy.chat(model, **more)
    assert got.status == 200, got.content
    streamed = proxy.chat(model, stream=True, **more)
    choice: Delta = {"message": {}}
    for received in streamed.events[:-1]:
        (row,) = received["choices"]
        choice["message"] = accumulate_delta(choice["message"], row.pop("delta"))  # type: ignore[assignment]
        choice.update({name: value for name, value in row.items() if value is not None})
    made = choice["message"].get("tool_calls")
    for one in made if isinstance(made, list) else ():
        del one["index"]
    return [got.json["choices"][0], choice]


WHOLE = ('{"a": 1}', '{"b": 2}')


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "deltas",
    [
        # One index for all (Gemini, Ollama, SGLang): told apart by a new id, whatever the arguments are.
        calls(call("weather", WHOLE[0], index=0, id="1"), call("time", WHOLE[1], index=0, id="2")),
        # The same in pieces, where continuations name nothing, or say it all again.
        calls(
            call("weather", "", index=0, id="1"),
            call(None, '{"a":', index=0, id=""),
            call("", " 1}", index=0, id=None, type=None),
            call("time", '{"b": ', index=0, id="2"),
            call("time", "2}", index=0, id="2"),
        ),
        # No index at all, by ids, in turns.
        calls(
            call("weather", '{"a"', id="1"),
            call("time", '{"b"', id="2"),
            call(None, ": 1}", id="1"),
            call(None, ": 2}", id="2"),
        ),
        # Indices that are no whole numbers in JSON's eyes.
        calls(
            call("weather", '{"a"', index=0.0, id="1"),
            call("time", '{"b"', index="1", id="2"),
            call(None, ": 1}", index=0.0),
            call(None, ": 2}", index="1"),
        ),
        # A list of one: indices that do not begin at 0, as of the tool in the request.
        calls(call("weather", WHOLE[0], index=3, id="1"), call("time", WHOLE[1], index=5, id="2")),
        # A new id with every piece (vLLM).
        calls(
            call("weather", '{"a"', index=0, id="1"),
            call(None, ": 1}", index=0, id="x1"),
            call("time", WHOLE[1], index=1, id="2"),
            call(None, "", index=1, id="x2"),
        ),
        # The id first, and its name behind it.
        calls(
            {"index": 0, "id": "1", "type": "function"},
            call("weather", WHOLE[0], index=0),
            {"index": 0, "id": "2"},
            call("time", "", index=0),
            call(None, WHOLE[1], index=0),
        ),
        # All in one delta (llama.cpp).
        [{"tool_calls": [call("weather", WHOLE[0], id="1"), call("time", WHOLE[1], id="2")]}],
        # As an object by itself.
        [{"tool_calls": call("weather", WHOLE[0], id="1")}, {"tool_calls": call("time", WHOLE[1], id="2")}],
    ],
)
def test_parallel_calls(proxy: ProxyServer, backend: ChatServer, model: str, deltas: list[Delta]) -> None:
    for choice in asked(proxy, backend, model, deltas, tools=TOOLS, finish="tool_calls"):
        made = [(one["id"], one["type"], one["function"]) for one in choice["message"]["tool_calls"]]
        assert made == [
            ("1", "function", {"name": "weather", "arguments": WHOLE[0]}),
            ("2", "function", {"name": "time", "arguments": WHOLE[1]}),
        ]
        assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("model", MODELS)
def test_calls_without_ids_are_told_apart_by_names(proxy: ProxyServer, backend: ChatServer, model: str) -> None:
    deltas = calls(
        call("f", "", index=0), call(None, WHOLE[0], index=0), call("f", "", index=0), call(None, WHOLE[1], index=0)
    )
    for choice in asked(proxy, backend, model, deltas, tools=TOOLS):
        made = [one["function"]["arguments"] for one in choice["message"]["tool_calls"]]
        assert made == list(WHOLE)


@pytest.mark.parametrize("model", MODELS)
def test_arguments_as_an_object_and_what_calls_hold_beside(proxy: ProxyServer, backend: ChatServer, model: str) -> None:
    signed = {"google": {"thought_signature": "ab"}}
    deltas = [{"tool_calls": [call("f", {"a": "</think>"}, index=0, id="1", extra_content=signed)]}]
    for choice in asked(proxy, backend, model, deltas, tools=TOOLS):
        (made,) = choice["message"]["tool_calls"]
        assert made["function"] == {"name": "f", "arguments": {"a": "</think>"}}
        assert made["extra_content"] == signed


@pytest.mark.parametrize("model", MODELS)
def test_custom_tools_and_functions_of_old(proxy: ProxyServer, backend: ChatServer, model: str) -> None:
    tools = [{"type": "custom", "custom": {"name": "run"}}]
    pieces = [{"custom": {"name": "run", "input": "print("}, "type": "custom", "id": "1"}, {"custom": {"input": "1)"}}]
    for choice in asked(proxy, backend, model, calls(*({"index": 0, **piece} for piece in pieces)), tools=tools):
        assert choice["message"]["tool_calls"][0]["custom"] == {"name": "run", "input": "print(1)"}
    pieces = [{"name": "f"}, {"name": "f", "arguments": '{"a"'}, {"name": None, "arguments": ": 1}"}]
    old = {"functions": [{"name": "f"}], "finish": "function_call"}
    for choice in asked(proxy, backend, model, [{"function_call": piece} for piece in pieces], **old):
        assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a": 1}'}
        assert choice["finish_reason"] == "function_call"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_call_that_was_cut_off_says_so(proxy: ProxyServer, backend: ChatServer, model: str, reason: str) -> None:
    deltas = calls(call("f", WHOLE[0], index=0, id="1"), call("time", '{"b', index=1, id="2"))
    for choice in asked(proxy, backend, model, deltas, finish=reason, tools=TOOLS):
        assert choice["finish_reason"] == reason
        assert len(choice["message"]["tool_calls"]) == 2


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("deltas", "message"),
    [
        ([{"reasoning": {"text": "x"}}], {"reasoning": {"text": "x"}, "reasoning_content": "x"}),
        ([{"reasoning": "x"}, {"reasoning": "y"}], {"reasoning": "xy", "reasoning_content": "xy"}),
        ([{"reasoning": "x", "reasoning_content": "x"}], {"reasoning": "x", "reasoning_content": "x"}),
        (
            [
                {"reasoning_details": [{"type": "reasoning.text", "text": "a", "format": "f", "index": 0}]},
                {"reasoning_details": [{"type": "reasoning.text", "text": "b", "format": "f", "index": 0}]},
                {"reasoning_details": [{"type": "reasoning.encrypted", "data": "c", "index": 1}]},
            ],
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "ab", "format": "f", "index": 0},
                    {"type": "reasoning.encrypted", "data": "c", "index": 1},
                ],
                "reasoning_content": "ab",
            },
        ),
        (
            [{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}],
            {"reasoning_content": "hm"},
        ),
        ([{"content": [{"type": "text", "text": "o"}, {"type": "output_text", "text": "k"}]}], {"content": "ok 1"}),
        ([{"content": [{"type": "refusal", "refusal": "no"}]}], {"refusal": "no"}),
        ([{"content": [{"type": "image_url", "url": "u"}]}], {"content_parts": [{"type": "image_url", "url": "u"}]}),
        ([{"links": [{"url": "a"}]}, {"links": [{"url": "b"}]}], {"links": [{"url": "a"}, {"url": "b"}]}),
        ([{"audio": {"id": "i", "data": "x"}}] * 2, {"audio": {"id": "i", "data": "xx"}}),
        ([{"odd": 2.5}, {"odd": 2.5}, {"odd": None}, {"odd": ""}], {"odd": 2.5}),
        ([{"odd": 1}, {"odd": 2}], {"odd": 2}),
        ([{"odd": False}, {"odd": True}], {"odd": True}),
        ([{"odd": 1}, {"odd": "text"}], {"odd": "text"}),
        ([{"content": 4}, {"content": False}], {"content": "4false 1"}),
        (
            [
                {"content": [{"type": "thinking", "thinking": "a", "signature": "s", "closed": True}]},
                {"content": [{"type": "text", "text": "b", "citations": ["c"], "id": "t"}]},
            ],
            {
                "reasoning_content": "a",
                "content": "b 1",
                "content_parts": [
                    {"type": "thinking", "signature": "s", "closed": True},
                    {"type": "text", "citations": ["c"], "id": "t"},
                ],
            },
        ),
        ([{"refusal": False}, {"tool_calls": 3}], {"refusal": False, "tool_calls": 3}),
    ],
)  # fmt: skip
def test_fields_in_pieces(
    proxy: ProxyServer, backend: ChatServer, model: str, deltas: list[Delta], message: Delta
) -> None:
    for choice in asked(proxy, backend, model, [*deltas, {"content": " 1"}]):
        assert {name: choice["message"].get(name) for name in message} == message


@pytest.mark.parametrize("model", MODELS)
def test_fields_of_the_choice(proxy: ProxyServer, backend: ChatServer, model: str) -> None:
    end = {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "\n", "token_ids": [7]}
    steps = [event({"choices": [{"index": 0, "delta": {"content": "a"}, "token_ids": [at]}]}) for at in range(2)]
    for choice in asked(proxy, backend, model, [], end=end):
        assert (choice["stop_reason"], choice["token_ids"]) == ("\n", [7])
    backend.routes[CHAT] = stream(*steps, event({"choices": [end]}), DONE)
    assert proxy.chat(model).json["choices"][0]["token_ids"] == [0, 1, 7]
    assert proxy.chat(model, stream=True).events[-2]["choices"][0]["token_ids"] == [0, 1, 7]


TOLD: list[Delta] = [
    {"system_fingerprint": "f", "provider": "P", "prompt_filter_results": [{"index": 0}], "obfuscation": "xyz"},
    {"system_fingerprint": "f", "provider": "P", "citations": ["u"], "x_groq": {"id": "r"}},
    {"system_fingerprint": "f", "provider": "P", "citations": ["u", "v"], "x_groq": {"usage": {"n": 1}}, "cost": None},
    {"citations": [], "service_tier": "flex", "timings": {"predicted_n": 1}, "outthink": {"receipt": "none of ours"}},
]
REPLIES: Delta = {
    "system_fingerprint": "f",
    "provider": "P",
    "prompt_filter_results": [{"index": 0}],
    "citations": ["u", "v"],
    "x_groq": {"id": "r", "usage": {"n": 1}},
    "service_tier": "flex",
}
HEAD = {"id", "object", "created", "model", "choices", "usage", "outthink"}


@pytest.mark.parametrize("model", MODELS)
def test_fields_of_the_reply(proxy: ProxyServer, backend: ChatServer, model: str) -> None:
    backend.routes[CHAT] = stream(
        *(chunk(text, **told) for text, told in zip("abcd", TOLD, strict=True)), chunk(finish="stop"), usage(5, 2), DONE
    )
    got = proxy.chat(model).json
    assert {name: value for name, value in got.items() if name not in HEAD} == REPLIES
    assert got["outthink"]["receipt"]["tokens"]
    *_, last, counted, _ = proxy.chat(model, stream=True, stream_options={"include_usage": True}).events
    assert {name: value for name, value in last.items() if name not in HEAD} == REPLIES
    assert counted["system_fingerprint"] == "f"


@pytest.mark.parametrize("model", MODELS)
def test_lists_of_which_some_elements_have_an_index(proxy: ProxyServer, backend: ChatServer, model: str) -> None:
    for pieces in ([[{"index": 0, "a": "x"}], [{"a": "y"}]], [[{"index": 0, "a": "x"}, {"a": "y"}]]):
        _, streamed = asked(proxy, backend, model, [{"odd": piece} for piece in pieces])
        assert streamed["message"]["odd"] == [{"index": 0, "a": "x"}, {"index": 1, "a": "y"}]


def test_log_probabilities_of_tokens_without_text_stream_too(proxy: ProxyServer, backend: ChatServer) -> None:
    entries = [token("a", -0.5), token("", -0.25), token("b", -0.125)]
    pieces = [chunk(entry["token"], logprobs=[entry]) for entry in entries]
    refused = {"index": 0, "delta": {"refusal": "no"}, "logprobs": {"content": None, "refusal": [token("no", -1)]}}
    backend.routes[CHAT] = stream(*pieces, event({"choices": [refused]}), chunk(finish="stop"), usage(5, 2), DONE)
    choices = [
        received["choices"][0] for received in proxy.chat("outthink/single", stream=True, logprobs=True).events[:-1]
    ]
    got = [entry["logprob"] for choice in choices for entry in (choice["logprobs"] or {}).get("content", ())]
    assert got == [-0.5, -0.25, -0.125]
    (whole_choice,) = proxy.chat("outthink/single", logprobs=True).json["choices"]
    assert [entry["logprob"] for entry in whole_choice["logprobs"]["content"]] == got
    assert [entry["logprob"] for entry in whole_choice["logprobs"]["refusal"]] == [-1]
    assert (whole_choice["message"]["content"], whole_choice["message"]["refusal"]) == ("ab", "no")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("value", [3, True, "text", [[1]], {"a": {"b": [None]}}, [None, "a"], {}])
@pytest.mark.parametrize(
    "name", ["content", "tool_calls", "function_call", "refusal", "reasoning_content", "role", "x"]
)
def test_no_type_is_an_error(proxy: ProxyServer, backend: ChatServer, model: str, name: str, value: Any) -> None:
    message = {"role": "assistant", "content": "ok", name: value}
    backend.routes[CHAT] = whole({"choices": [{"message": message, "finish_reason": "stop"}]})
    got = proxy.chat(model)
    assert got.status == 200, got.content
    assert json.loads(got.content)["choices"][0]["finish_reason"]
    assert proxy.chat(model, stream=True).events[-1] == "[DONE]"


@pytest.mark.parametrize("model", MODELS)
def test_a_character_in_halves_is_one(proxy: ProxyServer, backend: ChatServer, model: str) -> None:
    deltas = [{"content": "a\ud83d"}, {"content": "\ude00"}, {"content": "\ud83d"}, {"content": "\ude00b\ud83d"}]
    for choice in asked(proxy, backend, model, deltas):
        assert choice["message"]["content"] == "a\U0001f600\U0001f600b\ufffd"
    for name in ("reasoning_content", "refusal"):
        for choice in asked(proxy, backend, model, [{name: delta["content"]} for delta in deltas]):
            assert choice["message"][name] == "a\U0001f600\U0001f600b\ufffd"
            assert not choice["message"].get("content")
    texts = [delta["content"] for delta in deltas]
    calls: list[Any] = [
        {"tool_calls": [{"index": at, "id": f"c{at}", "function": {"name": "f", "arguments": ""}} for at in (0, 1)]}
    ]
    calls += [
        {"tool_calls": [{"index": at, "function": {"arguments": text}} for at in (0, 1)], "own": {"note": text}}
        for text in texts
    ]
    for choice in asked(proxy, backend, model, calls):
        said = [call["function"]["arguments"] for call in choice["message"]["tool_calls"]]
        assert [*said, choice["message"]["own"]["note"]] == ["a\U0001f600\U0001f600b\ufffd"] * 3


def test_a_server_may_count_choices_from_any_number(proxy: ProxyServer, backend: ChatServer) -> None:
    for model in MODELS:
        for index in (1, "1", 3):
            backend.routes[CHAT] = whole({"choices": [{"index": index, "message": {"content": "a"}}], "usage": {}})
            assert [choice["index"] for choice in proxy.chat(model).json["choices"]] == [0]


def test_control_characters_in_a_text_are_read(proxy: ProxyServer, backend: ChatServer) -> None:
    backend.routes[CHAT] = stream(chunk("a?b").replace(b"?", b"\0\t"), chunk(finish="stop"), DONE)
    for model in MODELS:
        assert proxy.chat(model).json["choices"][0]["message"]["content"] == "a\0\tb"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"type": "length"}, "length"),
        ("MODEL_CONTEXT_WINDOW_EXCEEDED", "length"),
        ("eos", "stop"),
        ("Safety", "content_filter"),
    ],
)
def test_reasons_are_the_clients_own(
    proxy: ProxyServer, backend: ChatServer, model: str, told: Any, reason: str
) -> None:
    texts = [chunk("a", finish="null"), chunk("b", finish="")]
    backend.routes[CHAT] = stream(*texts, chunk(finish=told), DONE)  # type: ignore[arg-type]
    (choice,) = proxy.chat(model).json["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("ab", reason)
    assert proxy.chat(model, stream=True).events[-2]["choices"][0]["finish_reason"] == reason
    backend.routes[CHAT] = stream(*texts)
    assert proxy.chat(model).status == 502


def test_a_count_of_nothing_beside_calls_is_unknown(proxy: ProxyServer, backend: ChatServer) -> None:
    message = {"tool_calls": [call("f", "{}", id="1", type="function")]}
    nothing = {"prompt_tokens": 0, "completion_tokens": 0}
    backend.routes[CHAT] = whole({"choices": [{"message": message}], "usage": nothing})  # and no reason for the end
    got = proxy.chat("outthink/single", tools=TOOLS).json
    assert got["outthink"]["receipt"]["tokens"] is None
    assert got["choices"][0]["finish_reason"] == "tool_calls"


def test_parts_under_one_index_stay_apart(proxy: ProxyServer, backend: ChatServer) -> None:
    parts = [{"type": "reasoning.summary", "summary": "a"}, {"type": "reasoning.encrypted", "data": "b", "id": "r"}]
    deltas = [{"reasoning_details": [{**part, "index": 0}]} for part in parts]
    for model in MODELS:
        for choice, indices in zip(asked(proxy, backend, model, deltas), ([0, 0], [0, 1]), strict=True):
            expected = [{**part, "index": index} for part, index in zip(parts, indices, strict=True)]
            assert choice["message"]["reasoning_details"] == expected


@pytest.mark.parametrize("streamed", [False, True])
def test_details_of_the_usage_are_summed(proxy: ProxyServer, backend: ChatServer, streamed: bool) -> None:
    details = {"reasoning_tokens": 3, "audio_tokens": 0, "note": "x"}
    counts = {"completion_tokens_details": details, "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 1}}
    backend.routes[CHAT] = stream(chunk("4"), chunk(finish="stop"), usage(5, 9, **counts), DONE)
    fields = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    got = proxy.chat("outthink/self-consistency@2", **fields)
    told = got.events[-2]["usage"] if streamed else got.json["usage"]
    assert told["completion_tokens_details"] == {"reasoning_tokens": 6, "audio_tokens": 0}
    assert told["prompt_tokens_details"] == {"cached_tokens": 4, "audio_tokens": 2}
    assert (told["prompt_tokens"], told["completion_tokens"]) == (10, 18)
