"""Server-sent events and the decoder over them, in every cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.http.events import Decoder, Events, NotJson

BODY = (
    b": ping\n\nevent: message\nid: 7\nretry: 10\ndata: one\n\n"
    b'data: {"a":\ndata: 1}\n\n\n\ndata:bare\n\ndata:  two blanks\n\ndata\n\ndata: \xc3\xa9\n\ndata: last'
)
DATA = [b"one", b'{"a":\n1}', b"bare", b" two blanks", b"\xc3\xa9", b"last"]


def parse(pieces: list[bytes]) -> list[bytes]:
    events = Events()
    result = [data for piece in pieces for data in events.feed(piece)]
    return result + events.close()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 200), max_size=12))
def test_events_do_not_depend_on_the_cuts(end: bytes, cuts: list[int]) -> None:
    body = BODY.replace(b"\n", end)
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[start:stop] for start, stop in pairwise(places)]
    assert parse(pieces) == DATA


def test_every_single_byte_alone() -> None:
    body = BODY.replace(b"\n", b"\r\n")
    assert parse([body[at : at + 1] for at in range(len(body))]) == DATA


def test_an_event_is_given_out_with_the_piece_that_completes_it() -> None:
    events = Events()
    assert events.feed(b"data: one\n") == []
    assert events.feed(b"\ndata: tw") == [b"one"]
    assert events.feed(b"o\n\n") == [b"two"]
    assert events.close() == []


def test_the_error_field_of_old_llama_cpp() -> None:
    assert parse([b'error: {"code":500,"message":"out of memory"}\n\n']) == [
        b'{"error": {"code":500,"message":"out of memory"}}'
    ]


def decode(*pieces: bytes) -> tuple[list[dict[str, Any]], Decoder]:
    decoder = Decoder()
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
    return chunks + decoder.close(), decoder


def test_a_stream_ends_with_done() -> None:
    chunks, decoder = decode(b'data: {"a": 1}\n\ndata: [DONE]\n\ndata: {"a": 2}\n\n')
    assert chunks == [{"a": 1}]
    assert decoder.done
    assert decoder.kind == "events"


@pytest.mark.parametrize("lead", [b"", b"\n\n", b" "])
def test_one_object_instead_of_a_stream(lead: bytes) -> None:
    chunks, decoder = decode(lead, b'{"a"', b": 1}")
    assert chunks == [{"a": 1}]
    assert decoder.kind == "object"
    assert not decoder.done


def test_a_web_page() -> None:
    chunks, decoder = decode(b"\n<!DOCTYPE html>", b"<html></html>")
    assert chunks == []
    assert decoder.kind == "page"


def test_nothing_at_all() -> None:
    assert decode(b"", b"\n")[1].kind == "unknown"


def test_events_without_blank_lines_between_them() -> None:
    chunks, decoder = decode(b'data: {"a": 1}\ndata: {"a": 2}\ndata: [DONE]\n')
    assert chunks == [{"a": 1}, {"a": 2}]
    assert decoder.done


@pytest.mark.parametrize("body", [b"data: {broken\n\n", b"data: 7\n\n", b"{broken", b"[1]", b"<weird", b"data: [1\n\n"])
def test_what_is_not_json_is_quoted(body: bytes) -> None:
    with pytest.raises(NotJson) as caught:
        decode(body)
    assert str(caught.value)


def test_bytes_that_are_not_utf8_do_not_stop_a_stream() -> None:
    chunks, _ = decode(b'data: {"a": "\xff"}\n\n')
    assert chunks == [{"a": "\ufffd"}]


@settings(max_examples=40, deadline=None)
@given(st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=5))
def test_any_object_survives(value: Any) -> None:
    data = json.dumps({"value": value}, ensure_ascii=False).encode()
    chunks, _ = decode(b"data: " + data + b"\r\n\r\n")
    assert chunks == [{"value": value}]
