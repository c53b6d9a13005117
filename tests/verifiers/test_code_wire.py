"""Values between the sandboxes: they cross unchanged, and hostile bytes make no value."""

from __future__ import annotations

import math
import os
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.verifiers.code.inside.wire import LIMIT, Malformed, Opaque, decode, encode, receive, send

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
    assert same(decode(encode(value, strict=True)), value)


@pytest.mark.parametrize(
    "value",
    [math.inf, -math.inf, -0.0, 2**9000, "\ud800", True, 1, 1.0, bytearray(b"x"), Fraction(1, 3), Decimal("1.10")],
)
def test_odd_values_keep_type_and_text(value: Any) -> None:
    back = decode(encode(value))
    assert type(back) is type(value)
    assert back == value
    assert repr(back) == repr(value)


def test_not_a_number_stays_one() -> None:
    assert math.isnan(decode(encode(math.nan)))


def test_a_subclass_crosses_as_what_it_holds() -> None:
    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __int__(self) -> int:
            return 3

        __hash__ = int.__hash__

    class Pair(tuple[int, ...]):
        def __iter__(self) -> Any:
            return iter([9])

    assert decode(encode(Liar(5))) == 5
    assert type(decode(encode(Liar(5)))) is int
    assert decode(encode(Pair((1, 2)))) == (1, 2)


def test_other_types_cross_as_opaque_values() -> None:
    class Yes:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

        def __repr__(self) -> str:
            return "3"

    back = decode(encode(Yes()))
    assert isinstance(back, Opaque)
    assert back != 3
    assert (bool(back), str(back)) == (True, "3")
    assert list(decode(encode(n * n for n in range(3)))) == [0, 1, 4]
    assert decode(encode(n for n in range(3))) != [0, 1, 2]
    with pytest.raises(TypeError, match="not iterable"):
        list(back)


def test_arguments_are_sent_whole_or_not_at_all() -> None:
    with pytest.raises(Malformed, match="function cannot be handed"):
        encode(([3, lambda: 3],), strict=True)


@settings(deadline=None)
@given(
    st.binary(max_size=60)
    | st.builds(
        lambda tag, rest: tag + rest,
        st.sampled_from([b"l", b"d", b"S", b"i", b"s", b"t", b"Q", b"D", b"o"]),
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
