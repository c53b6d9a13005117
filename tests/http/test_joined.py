"""Secrets in pieces: what a client puts together from the events of a stream holds none, and nothing honest is lost."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.http.secrets import MaskedResponse, SecretMask
from support.fake_transport import FakeReply

KEY = 'c0rrect/"horse"-staple'
HALVES = KEY[: len(KEY) // 2], KEY[len(KEY) // 2 :]
"""Either is masked by itself: it can only be of a key."""
Texts = dict[tuple[int, str], str]


def event(choice: int, name: str, text: str, finish: str | None = None) -> bytes:
    delta = {"tool_calls": [{"index": 0, "function": {name: text}}]} if name == "arguments" else {name: text}
    body = {"id": "c", "choices": [{"index": choice, "delta": delta if name else {}, "finish_reason": finish}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def passed(pieces: list[bytes], key: str = KEY) -> list[bytes]:
    async def read() -> list[bytes]:
        return [piece async for piece in MaskedResponse(FakeReply([*pieces]), SecretMask([key]))]

    return asyncio.run(read())


def texts(content: bytes) -> Texts:
    """What a client puts together, by choice and name."""
    joined: Texts = defaultdict(str)
    for line in content.splitlines():
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                delta = choice["delta"]
                for call in delta.pop("tool_calls", ()):
                    delta |= call["function"]
                for name, text in delta.items():
                    joined[choice["index"], name] += text
    return joined


def cut(text: str, data: st.DataObject) -> list[str]:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


words = st.lists(st.sampled_from([KEY, KEY[:1], KEY[:5], KEY[:9], KEY[3:], KEY[:-1], " and ", "é\n", "\\"]), max_size=5)


@given(st.lists(words, min_size=3, max_size=3), st.data())
@settings(deadline=None)
def test_what_is_put_together_holds_no_key_and_all_that_is_honest(parts: list[list[str]], data: st.DataObject) -> None:
    places = [(0, "content"), (1, "content"), (0, "arguments")]
    said = {place: "".join(words) for place, words in zip(places, parts, strict=True)}
    waiting = {place: cut(text, data) for place, text in said.items()}
    events = []
    while left := [place for place, pieces in waiting.items() if pieces]:
        place = data.draw(st.sampled_from(left))
        events.append(event(*place, waiting[place].pop(0)))
    events += [event(choice, "", "", "stop") for choice in (1, 0)] + [b"data: [DONE]\n\n"]
    content = b"".join(events)
    edges = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=8)))
    pieces = [content[start:end] for start, end in zip([0, *edges], [*edges, len(content)], strict=True)]
    for came in (passed(events), passed(pieces)):
        shown = texts(b"".join(came))
        for place, text in said.items():
            assert KEY not in shown[place]
            if not any(half in text for half in HALVES):
                assert shown[place] == text
        assert b"".join(came).endswith(b"data: [DONE]\n\n")
    assert len(passed(events)) == len(events)  # each as soon as it has come


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize(
    "form", [str, lambda key: base64.b64encode(f"u:{key}".encode()).decode(), lambda key: key.encode().hex().upper()]
)
def test_other_ways_to_write_it_are_joined_too(form: type[str], size: int) -> None:
    said = form(KEY)
    events = [event(0, "content", said[at : at + size]) for at in range(0, len(said), size)]
    shown = texts(b"".join(passed([*events, event(0, "", "", "stop")])))[0, "content"]
    assert "***" in shown
    assert said[3:-4] not in shown


def test_a_text_that_ends_as_a_key_begins_is_whole_however_the_stream_ends() -> None:
    begun = [event(0, "content", "see "), event(0, "content", KEY[:6])]
    for end in ([], [b"data: [DONE]\n\n"], [event(0, "", "", "stop"), b"data: [DONE]\n\n"]):
        assert texts(b"".join(passed([*begun, *end])))[0, "content"] == "see " + KEY[:6]


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
def test_events_of_a_response_are_texts_too(end: str) -> None:
    def named(kind: str, **fields: str) -> bytes:
        body = json.dumps({"type": f"response.output_text.{kind}", "output_index": 0, **fields})
        return f"event: response.output_text.{kind}{end[: len(end) // 2]}data: {body}{end}".encode()

    letters = [named("delta", delta=letter) for letter in [*"so ", *KEY, "!"]]
    came = b"".join(passed([*letters, named("done", text="x")]))
    lines = [json.loads(line[6:]) for line in came.splitlines() if line.startswith(b"data: ")]
    shown = "".join(line.get("delta", "") for line in lines)
    assert shown == f"so {KEY[:3]}***!"


def token(text: str) -> dict[str, Any]:
    """A token as log-probabilities have it: its text, its bytes, and itself among the alternatives."""
    told = {"token": text, "logprob": -0.5, "bytes": [*text.encode()]}
    return {**told, "top_logprobs": [told, {"token": "z", "logprob": -3, "bytes": [122]}]}


def spelled(value: Any, name: str, rank: int | None = None) -> str:
    """What the values of a name make up, in their order; of alternatives those of a rank."""
    if isinstance(value, list):
        return "".join(spelled(item, name, rank) for item in value)
    if not isinstance(value, dict):
        return ""
    if rank is not None and "top_logprobs" in value:
        return spelled(value["top_logprobs"][rank : rank + 1], name)
    own = value.get(name)
    text = own if isinstance(own, str) else "".join(map(chr, own)) if isinstance(own, list) and name == "bytes" else ""
    inside = [each for key, each in value.items() if key not in (name, "top_logprobs") or isinstance(each, dict)]
    return text + spelled(inside, name, rank)


@pytest.mark.parametrize("size", [1, 3, 7, 30])
def test_no_list_spells_a_key(size: int) -> None:
    pieces = ["so ", *(KEY[at : at + size] for at in range(0, len(KEY), size)), " ok"]
    tokens = [token(piece) for piece in pieces]
    unnamed = [{"bytes": [*piece.encode()]} for piece in pieces]
    legacy = {"tokens": pieces, "top_logprobs": [{piece: -1} for piece in pieces]}
    for choice in (
        {"message": {"content": [{"type": "text", "text": piece} for piece in pieces]}},
        {"message": {"content": "a"}, "logprobs": {"content": tokens}},
        {"message": {"content": "token"}, "logprobs": {"token": unnamed}},
        {"text": "a", "logprobs": legacy},
    ):
        content = json.dumps({"choices": [{"index": 0, **choice}], "usage": {"total_tokens": 3}}, indent=1).encode()
        (whole,) = passed([content[:99], content[99:]])
        said = json.loads(whole)
        for rank in (None, 0):
            for name in ("text", "token", "bytes"):
                assert not any(half in spelled(said, name, rank) for half in HALVES)
        assert not any(half in "".join(said["choices"][0].get("logprobs", {}).get("tokens", ())) for half in HALVES)
        assert said["usage"] == {"total_tokens": 3}
        assert b"***" in whole or b"null" in whole
    events = [
        b'data: {"choices": [{"index": 0, "logprobs": {"content": %s}}]}\n\n' % json.dumps(tokens[at : at + 2]).encode()
        for at in range(0, len(tokens), 2)
    ]
    told = [json.loads(event[6:]) for event in passed([*events, b"data: [DONE]\n\n"])[:-1]]
    assert len(told) == len(events)
    for rank in (None, 0):
        for name in ("token", "bytes"):
            assert not any(half in spelled(told, name, rank) for half in HALVES)
        assert spelled(told, "token", rank).endswith("*** ok")


@pytest.mark.parametrize("size", [3, 7])
def test_no_tokens_of_a_text_completion_spell_a_key(size: int) -> None:
    pieces = ["so ", *(KEY[at : at + size] for at in range(0, len(KEY), size)), " ok"]
    lists = [{"tokens": [piece], "top_logprobs": [{piece: -1}], "text_offset": [0]} for piece in pieces]
    events = [
        b"data: " + json.dumps({"choices": [{"index": 0, "text": "a", "logprobs": each}]}).encode() + b"\n\n"
        for each in lists
    ]
    told = [json.loads(event[6:])["choices"][0]["logprobs"] for event in passed([*events, b"data: [DONE]\n\n"])[:-1]]
    assert "".join(each["tokens"][0] for each in told).endswith("*** ok")
    tops = "".join(name for each in told for top in each["top_logprobs"] for name in top)
    assert not any(half in tops for half in HALVES)
    assert (told[0], told[-1]["text_offset"]) == (lists[0], [0])


def test_a_reply_whose_lists_spell_nothing_stays_as_it_came() -> None:
    choice = {"message": {"content": [{"type": "text", "text": "a"}] * 3}, "logprobs": {"content": [token("so ")]}}
    content = json.dumps({"choices": [choice]}, indent=2).encode()
    assert passed([content]) == [content]
    long = json.dumps({"choices": [choice] * 9000}).encode()
    assert b"".join(passed([long[at : at + 9000] for at in range(0, len(long), 9000)])) == long
