"""A message that a server has cut into deltas is the message again: for strategies, and for what their clients get."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp")
pytest.importorskip("openai.lib.streaming._deltas", reason="needs the openai client")

from openai.lib.streaming._deltas import accumulate_delta

from outthink.serving.chat.calls import RawChoice

TEXT = st.text(alphabet='ab "\\{}[]<é\n', min_size=1, max_size=12)
ARGUMENTS = st.dictionaries(st.sampled_from(["city", "days"]), TEXT | st.integers() | st.lists(TEXT, max_size=2))
DELTA = dict[str, Any]


def cut(draw: st.DrawFn, text: str) -> list[str]:
    """A text in one to four pieces, none of them empty."""
    places = draw(st.lists(st.integers(1, max(1, len(text) - 1)), max_size=3))
    borders = [0, *sorted({place for place in places if place < len(text)}), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(borders)]


def told(deltas: list[DELTA]) -> tuple[RawChoice, list[DELTA]]:
    """What was gathered, and what clients of a stream were told."""
    choice, shown = RawChoice(), []
    for delta in deltas:
        shown.append(choice.add({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}))
        shown[-1] = json.loads(json.dumps(shown[-1]))  # a chunk is sent before the next one comes
    return choice, [*shown, choice.rest()]


def gathered(deltas: list[DELTA]) -> DELTA:
    """What the official client makes of them, without the indices of calls."""
    message: DELTA = {}
    for delta in deltas:
        message = accumulate_delta(message, delta)  # type: ignore[arg-type, assignment]
    for call in message.get("tool_calls", ()):
        del call["index"]
    return message


def head(style: str, first: bool, value: str) -> DELTA:
    """The value of a field that comes once, in every piece, or is empty in the later ones."""
    if first or style == "always":
        return {"value": value}
    return {"value": {"empty": "", "null": None}[style]} if style in ("empty", "null") else {}


@st.composite
def cut_calls(draw: st.DrawFn) -> tuple[list[DELTA], list[DELTA]]:
    """Calls, and the deltas of a server that tells them apart in one way or another."""
    indexed = draw(st.sampled_from(["right", "same", "none"]))
    ids = draw(st.sampled_from(["first", "always", "empty", "null", "none", *["new"] * (indexed == "right")]))
    named = draw(st.sampled_from(["first", "empty", "null", *["always"] * (ids != "new")]))
    together = draw(st.booleans())
    calls: list[DELTA] = []
    rows: list[list[DELTA]] = []
    for at in range(draw(st.integers(1, 3))):
        function = {"name": draw(st.sampled_from(["weather", "time"])), "arguments": json.dumps(draw(ARGUMENTS))}
        calls.append({"type": "function", "function": function} | ({} if ids == "none" else {"id": f"call_{at}"}))
        pieces = [function["arguments"]] if together and indexed == "none" else cut(draw, function["arguments"])
        if len(pieces) > 1:
            pieces = [""] * draw(st.integers(0, 1)) + pieces + [""] * draw(st.integers(0, 1))
        rows.append([])
        for turn, piece in enumerate(pieces):
            name, id = (
                head(style, not turn, value) for style, value in ((named, function["name"]), (ids, f"call_{at}"))
            )
            row: DELTA = {"function": {"arguments": piece, **({"name": name["value"]} if name else {})}}
            row |= {"id": id["value"]} if id and ids != "none" else {}
            row |= {"id": f"call_{at}" if not turn else f"other_{at}_{turn}"} if ids == "new" else {}
            row |= {} if indexed == "none" else {"index": at if indexed == "right" else 0}
            rows[-1].append(row | draw(st.sampled_from([{}, {"type": "function"}, {"type": None}])))
    if not together:
        return calls, [{"tool_calls": [row]} for call in rows for row in call]
    if indexed != "right":
        return calls, [{"tool_calls": [row for call in rows for row in call]}]
    turns = range(max(map(len, rows)))
    return calls, [{"tool_calls": [call[turn] for call in rows if turn < len(call)]} for turn in turns]


@given(cut_calls())
def test_calls_are_put_together(cutting: tuple[list[DELTA], list[DELTA]]) -> None:
    calls, deltas = cutting
    choice, shown = told(json.loads(json.dumps(deltas)))
    assert choice.message("")["tool_calls"] == calls
    assert gathered(shown)["tool_calls"] == calls


def cut_value(draw: st.DrawFn, value: Any) -> list[Any]:
    """A value of a field that nobody knows, as a server streams it."""
    if isinstance(value, str):
        return list(cut(draw, value))
    if isinstance(value, dict):  # what labels it comes again with every piece
        labels = {name: inner for name, inner in value.items() if name in ("type", "id", "index", "format")}
        texts = {name: inner for name, inner in value.items() if name not in labels}
        pieces = [labels | {name: piece} for name, text in texts.items() for piece in cut_value(draw, text)]
        return pieces or [labels]
    if isinstance(value, list):
        return [
            [piece]
            for element in value
            for piece in (cut_value(draw, element) if isinstance(element, dict) and "index" in element else [element])
        ]
    return [value] * draw(st.integers(1, 2))


DETAIL = st.fixed_dictionaries(
    {"type": st.sampled_from(["reasoning.text", "reasoning.summary"]), "text": TEXT, "format": st.just("f-1")}
)
DETAILS = st.lists(DETAIL, min_size=1, max_size=3).map(
    lambda rows: [row | {"index": at} for at, row in enumerate(rows)]
)
OBJECT = st.fixed_dictionaries({"id": st.just("a"), "data": TEXT, "expires": st.integers(1), "seen": st.booleans()})
UNKNOWN = st.fixed_dictionaries(
    {},
    optional={
        "note": TEXT,
        "audio": OBJECT,
        "reasoning_details": DETAILS,
        "annotations": st.lists(st.fixed_dictionaries({"url": TEXT}), min_size=1, max_size=3),
        "token_ids": st.lists(st.integers(), min_size=1, max_size=4),
        "score": st.integers(),
        "safe": st.booleans(),
        "reasoning": TEXT | st.fixed_dictionaries({"text": TEXT}),
    },
)


@st.composite
def cut_message(draw: st.DrawFn) -> tuple[DELTA, str, list[DELTA]]:
    """A message, its thinking, and the deltas of a server that sends it."""
    message: DELTA = draw(UNKNOWN)
    rows = [[{name: piece} for piece in cut_value(draw, value)] for name, value in message.items()]
    content, thought = draw(TEXT), draw(st.just("") | TEXT)
    typed = draw(st.booleans())
    texts: list[Any] = (
        [[{"type": "text", "text": piece}] for piece in cut(draw, content)] if typed else list(cut(draw, content))
    )
    if thought:
        thoughts = [
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": piece}]}]}
            for piece in cut(draw, thought)
        ]
        rows.append(thoughts if typed else [{"reasoning_content": piece} for piece in cut(draw, thought)])
    rows.append([{"content": piece} for piece in texts])
    deltas = draw(st.permutations(rows))
    empty = draw(
        st.sampled_from([{}, {"content": None, "reasoning_content": ""}, {"role": "assistant", "refusal": None}])
    )
    return message | {"content": content}, thought, [empty | delta for row in deltas for delta in row]


@given(cut_message())
def test_messages_are_put_together(cutting: tuple[DELTA, str, list[DELTA]]) -> None:
    message, thought, deltas = cutting
    choice, shown = told(json.loads(json.dumps(deltas)))
    got = choice.message("".join(delta.get("content") or "" for delta in shown))
    assert message.items() <= got.items()
    if thought and "reasoning" not in message and "reasoning_details" not in message:
        assert got["reasoning_content"] == thought
    streamed = gathered(shown)
    assert {name: streamed[name] for name in message} == message
