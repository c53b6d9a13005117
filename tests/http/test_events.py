"""The one reader of events: the same data whatever the cuts, the ends of lines and the marks, each event when whole."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.http.events import BOM, Decoder, Events, NotJson

ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
NOISE = st.sampled_from([b": ping", b":", b"id: 7", b"retry: 10", b"event: message", b"nobody: knows", b"data"])
CHUNKS = st.dictionaries(st.sampled_from(["a", "usage", "choices", "x y"]), st.none() | st.text() | st.integers())
CUTS = st.lists(st.floats(0, 1), max_size=12)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], list[Any]]:
    """Events as they could be sent, each with its blank line, and what they hold."""
    sent, held = [], []
    for chunk in draw(st.lists(CHUNKS, min_size=1, max_size=6)):
        indent = draw(st.sampled_from([None, 1]))  # an indented object takes several data lines
        lines = json.dumps(chunk, indent=indent, ensure_ascii=draw(st.booleans())).encode().split(b"\n")
        lines = [draw(st.sampled_from([b"data:", b"data: "])) + line for line in lines]
        noise = draw(st.lists(NOISE.filter(lambda line: line != b"data"), max_size=2))
        event = b"".join(line + draw(ENDS) for line in [*noise, *lines])
        sent.append(event + draw(ENDS))
        if event.endswith(b"\r") and sent[-1].endswith(b"\r\n") and sent[-1] == event + b"\n":
            sent[-1] += draw(st.sampled_from([b"\n", b"\r"]))  # that line feed belongs to the line before
        held.append(chunk)
    return sent, held


def pieces(body: bytes, cuts: list[float]) -> list[bytes]:
    """A body in pieces."""
    places = [0, *sorted(int(cut * len(body)) for cut in cuts), len(body)]
    return [body[start:stop] for start, stop in pairwise(places)]


@settings(max_examples=300, deadline=None)
@given(stream=streams(), cuts=CUTS, mark=st.booleans())
def test_cuts_line_ends_and_marks_change_nothing(
    stream: tuple[list[bytes], list[Any]], cuts: list[float], mark: bool
) -> None:
    sent, held = stream
    body = BOM * mark + b"".join(sent)
    decoder = Decoder()
    chunks = [chunk for piece in pieces(body, cuts) for chunk in decoder.feed(piece)]
    assert chunks + decoder.close() == held


@settings(max_examples=300, deadline=None)
@given(stream=streams(), cuts=CUTS, mark=st.booleans())
def test_the_frames_are_the_bytes_as_they_came(
    stream: tuple[list[bytes], list[Any]], cuts: list[float], mark: bool
) -> None:
    sent, held = stream
    body = b"".join(sent)
    events = Events()
    frames = [frame for piece in pieces(BOM * mark + body, cuts) for frame in events.frames(piece)] + events.remains()
    assert b"".join(raw for raw, _ in frames) == body
    assert [json.loads(data) for _, data in frames if data is not None] == held


@settings(max_examples=200, deadline=None)
@given(stream=streams())
def test_each_event_is_given_out_with_the_byte_that_ends_it(stream: tuple[list[bytes], list[Any]]) -> None:
    sent, _ = stream
    events = Events()
    for event in sent:
        # A carriage return may end the blank line; a line feed behind it belongs to the same end.
        body = event.removesuffix(b"\n") if event.endswith((b"\r\r\n", b"\n\r\n")) else event
        given_out = [events.feed(body[at : at + 1]) for at in range(len(body))]
        assert [len(each) for each in given_out] == [0] * (len(body) - 1) + [1]
        assert events.feed(event[len(body) :]) == []


@pytest.mark.parametrize(
    "event",
    [
        b'data: {\rdata: "a": 1\rdata: }\n\n',
        b'data: {"a": 1}\r: ping\n\n',
        b'data: {"a": 1}\rid: 7\r\n\n',
        b'data: {\rdata:"a": 1}\r\rdata: [DONE]\n\n',
    ],
)
def test_lone_carriage_returns_end_lines_in_an_event_that_comes_at_once(event: bytes) -> None:
    decoder = Decoder(json.loads)
    assert decoder.feed(b'data: {"b": 2}\n\n') == [{"b": 2}]
    assert decoder.feed(event) == [{"a": 1}]
    assert decoder.done is (b"[DONE]" in event)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_byte_order_mark_is_skipped_in_any_cut(cut: int) -> None:
    for body, kind in ((b'data: {"a": 1}\n\n', "events"), (b'{"a": 1}', "object")):
        decoder = Decoder()
        marked = BOM + body
        assert decoder.feed(marked[:cut]) + decoder.feed(marked[cut:]) + decoder.close() == [{"a": 1}]
        assert decoder.kind == kind


def test_a_mark_elsewhere_is_no_mark() -> None:
    events = Events()
    assert events.feed(b"data: 1\n\n" + BOM + b"data: 2\n\ndata: 3\n\n") == [b"1", b"3"]


@pytest.mark.parametrize(
    ("event", "chunk"),
    [
        (b'event: error\ndata: {"message": "no"}\n\n', {"error": {"message": "no"}}),
        (b'event:error\r\ndata: {"error": {"code": 500}}\r\n\r\n', {"error": {"code": 500}}),
        (b"data: out of memory\nevent: error\n\n", {"error": {"message": "out of memory"}}),
        (b'error: {"code": 500}\n\n', {"error": {"code": 500}}),
        (b'event: errors\ndata: {"a": 1}\n\n', {"a": 1}),
    ],
)
def test_an_event_named_error_tells_of_one(event: bytes, chunk: Any) -> None:
    assert Decoder().feed(event) == [chunk]


@pytest.mark.parametrize(
    ("data", "done"),
    [
        (b"[DONE]", True),
        (b" [DONE] ", True),
        (b'{"text": "[DONE]"}', False),
        (b'{"text":\ndata: "[DONE]"}', False),
    ],
)
def test_the_end_is_the_whole_data_of_an_event(data: bytes, done: bool) -> None:
    decoder = Decoder()
    decoder.feed(b": [DONE]\n\nid: [DONE]\ndata: " + data + b"\n\n")
    assert decoder.done is done


def test_an_event_that_comes_byte_by_byte_takes_no_longer_than_its_length() -> None:
    events = Events()
    body = b"data: " + b"x" * 300_000 + b"\n\n"  # quadratic, this would take minutes
    assert [data for at in range(len(body)) for data in events.feed(body[at : at + 1])] == [b"x" * 300_000]


@pytest.mark.parametrize("start", [b"data: {", b"{", b": "])
def test_what_never_ends_is_given_up(start: bytes) -> None:
    decoder, piece = Decoder(), b"x" * (1 << 20)
    decoder.feed(start)
    with pytest.raises(NotJson, match="32 MiB"):
        for _ in range(33):
            decoder.feed(piece)
