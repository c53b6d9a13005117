"""Values between the sandboxes: they cross unchanged, and hostile bytes make no value."""

from __future__ import annotations

import math
import os
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.verifiers.code.inside.containers import changes, state, update
from outthink.verifiers.code.inside.exports import Exports
from outthink.verifiers.code.inside.values import Others, pack, unpack
from outthink.verifiers.code.inside.wire import LIMIT, Malformed, receive, send

_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False) | st.fractions() | st.decimals(allow_nan=False)
)  # fmt: skip
_KEYS = st.integers() | st.text() | st.tuples(st.integers(), st.text())
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(_KEYS, inner)
        | st.sets(_KEYS)
        | st.frozensets(_KEYS)
    ),
    max_leaves=20,
)


def encode(value: Any) -> bytes:
    return pack(value, Others())[0]


def decode(data: bytes) -> Any:
    return unpack(data, Others())[0]


def same(left: Any, right: Any) -> bool:
    if type(left) is not type(right) or left != right:
        return False
    if isinstance(left, list | tuple):
        return all(same(*pair) for pair in zip(left, right, strict=True))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return True


@settings(deadline=None, max_examples=40)
@given(_VALUES)
def test_values_cross_unchanged(value: Any) -> None:
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize(
    "value",
    [
        math.inf, -math.inf, -0.0, 2**9000, "\ud800", True, 1, 1.0, bytearray(b"x"), Fraction(1, 3), Decimal("1.10"),
        range(1, 9, 2), slice(1, None), deque([1, 2], maxlen=3), Counter("aab"), OrderedDict(b=1, a=2),
        date(2024, 2, 29), datetime(2024, 2, 29, 1, 2, tzinfo=timezone(timedelta(hours=1))), timedelta(1, 2, 3),
        {"a": 1}.keys(), {"a": 1}.items(), ..., NotImplemented, defaultdict(None, {"a": 1}),
    ],
)  # fmt: skip
def test_odd_values_keep_type_and_text(value: Any) -> None:
    back = decode(encode(value))
    assert type(back) is type(value)
    assert back == value
    assert repr(back) == repr(value)


def test_not_a_number_stays_one() -> None:
    assert math.isnan(decode(encode(math.nan)))


def test_aliases_stay_aliases() -> None:
    row: list[Any] = [1]
    grid, again = decode(encode(([row, row], row)))
    assert grid[0] is grid[1] is again
    row.append(row)
    loop = decode(encode(row))
    assert loop[1] is loop


def test_a_callers_own_containers_come_back_changed() -> None:
    # What the caller has, what it sends, what the other side does with it, and what comes back.
    inner: list[Any] = [3, 1]
    mine = {"rows": inner, "same": inner, "set": {1}, "bytes": bytearray(b"x")}
    data, sent = pack((mine, 7), Others())
    (there, _), met = unpack(data, Others())
    before = state(met)
    there["rows"].sort()
    there["new"] = there["rows"]
    there["set"].add(2)
    there["bytes"].extend(b"y")
    reply, _ = pack((there["same"], changes(met, before)), Others(), met)
    (value, changed), _ = unpack(reply, Others(), sent)
    update(sent, changed)
    assert value is inner
    assert inner == [1, 3]
    assert mine == {"rows": [1, 3], "same": [1, 3], "set": {1, 2}, "bytes": bytearray(b"xy"), "new": [1, 3]}
    assert mine["new"] is inner


def test_what_did_not_change_is_not_sent() -> None:
    _, met = unpack(encode([[1, 2], {"a": {3}}]), Others())
    assert changes(met, state(met)) == []


def test_an_object_of_a_class_is_described_by_number_and_plain_content() -> None:
    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __int__(self) -> int:
            return 3

        __hash__ = int.__hash__

    word, _, kind, held = Exports(lambda *_: None).describe(Liar(5))
    assert (word, held, type(held)) == ("object", 5, int)
    assert kind[0] == "class"
    assert kind[2][:2] == ("Liar", (int,))
    assert set(kind[2][2]) == {"__eq__", "__hash__", "__int__"}


def test_what_is_not_plain_is_refused() -> None:
    with pytest.raises(Malformed, match="function cannot be handed"):
        encode(([3, lambda: 3],))


@settings(deadline=None)
@given(
    st.binary(max_size=60)
    | st.builds(
        lambda tag, rest: tag + rest,
        st.sampled_from([bytes([tag]) for tag in b"ldSistQDoBCOUqxarZ"]),
        st.binary(max_size=20),
    )
)
def test_hostile_bytes_are_values_or_refused(data: bytes) -> None:
    try:
        encode(decode(data))
    except (Malformed, RecursionError):
        pass


def test_frames() -> None:
    reader, writer = os.pipe()
    try:
        send(writer, b"V", b"abc")
        send(writer, b"H")
        assert receive(reader) == (b"V", b"abc")
        assert receive(reader) == (b"H", b"")
        os.write(writer, (LIMIT + 1).to_bytes(4, "little") + b"V")
        with pytest.raises(Malformed, match="too large"):
            receive(reader)
        os.write(writer, b"\x03\0\0\0Vx")
    finally:
        os.close(writer)
    assert receive(reader) is None
    os.close(reader)
