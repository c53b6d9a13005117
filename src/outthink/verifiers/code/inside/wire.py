"""Plain values as bytes, and frames of bytes on a pipe.

Knows: None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, Fraction, Decimal;
reading them runs no code of the sender's. Everything else crosses as `Opaque`. Does not know who
talks to whom.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

LIMIT = 16 * 2**20  # bytes of one frame
ITEMS = 100_000  # items taken from an iterator, which may be endless
Value = Any  # what the tested code makes: any Python object
_LENGTH = struct.Struct("<I")
_FLOAT = struct.Struct("<d")


class Malformed(ValueError):
    """The bytes are no values, or the value cannot be sent."""


class Opaque:
    """A value of a type that does not cross: equal to nothing but itself, with its truth, text and items."""

    def __init__(self, true: bool, text: str, items: list[Value] | None) -> None:
        self.true, self.text, self.items = true, text, items

    def __bool__(self) -> bool:
        return self.true

    def __repr__(self) -> str:
        return self.text

    def __iter__(self) -> Iterator[Value]:
        if self.items is None:
            raise TypeError(f"{self.text} is not iterable")
        return iter(self.items)


def encode(value: object, *, strict: bool = False) -> bytes:
    """Bytes of a value.

    Args:
        strict: refuse values of other types instead of sending what is known of them.

    Raises Malformed for a value that is too large or refused, RecursionError for one too deep.
    """
    parts: list[bytes] = []
    _put(value, parts, strict)
    data = b"".join(parts)
    if len(data) > LIMIT:
        raise Malformed(f"a value of {len(data)} bytes is too large")
    return data


def decode(data: bytes) -> Value:
    """The value of bytes, whoever made them. Raises Malformed for anything `encode` does not make."""
    try:
        value, end = _get(data, 0)
    except (IndexError, struct.error, ValueError, TypeError, ArithmeticError) as error:
        raise Malformed(str(error)) from error
    if end != len(data):
        raise Malformed("more bytes than a value")
    return value


def send(pipe: int, kind: bytes, data: bytes = b"") -> None:
    """Write one frame: its length, one byte that says what it is, and its content."""
    rest = memoryview(_LENGTH.pack(len(data)) + kind + data)
    while rest:
        rest = rest[os.write(pipe, rest) :]


def receive(pipe: int) -> tuple[bytes, bytes] | None:
    """One frame's kind and content, None at the end of the pipe. Raises Malformed for one over the limit."""
    head = _read(pipe, _LENGTH.size + 1)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head[:4])
    if length > LIMIT:
        raise Malformed(f"a frame of {length} bytes is too large")
    data = _read(pipe, length)
    return None if data is None else (head[4:], data)


def _read(pipe: int, size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(pipe, min(size, 2**20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _sized(tag: bytes, data: bytes) -> bytes:
    if len(data) > LIMIT:
        raise Malformed(f"a value of {len(data)} bytes is too large")
    return tag + _LENGTH.pack(len(data)) + data


def _integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _put(value: Value, parts: list[bytes], strict: bool) -> None:
    # The base type's own methods are called, so that a subclass sends what it holds, not what it claims.
    if value is None or value is True or value is False:
        parts.append({None: b"N", True: b"T", False: b"F"}[value])
    elif isinstance(value, int):
        parts.append(_sized(b"i", _integer(int.__int__(value))))
    elif isinstance(value, float):
        parts.append(b"f" + _FLOAT.pack(float.__float__(value)))
    elif isinstance(value, str):
        parts.append(_sized(b"s", str.encode(value, "utf-8", "surrogatepass")))
    elif isinstance(value, bytes | bytearray):
        parts.append(_sized(b"b" if isinstance(value, bytes) else b"B", bytes(value)))
    elif isinstance(value, complex):
        parts.append(b"c" + _FLOAT.pack(value.real) + _FLOAT.pack(value.imag))
    elif isinstance(value, list | tuple | set | frozenset):
        tag, base = next((tag, base) for tag, base in _ROWS.items() if isinstance(value, base))
        items = list(base.__iter__(value))
        parts.append(tag + _LENGTH.pack(len(items)))
        for item in items:
            _put(item, parts, strict)
    elif isinstance(value, dict):
        pairs = list(dict.items(value))
        parts.append(b"d" + _LENGTH.pack(len(pairs)))
        for pair in pairs:
            for item in pair:
                _put(item, parts, strict)
    elif (number := _exact(value)) is not None:
        parts.append(number)
    elif strict:
        raise Malformed(f"a {type(value).__name__} cannot be handed to the tested code")
    else:
        _put_opaque(value, parts)


def _exact(value: Value) -> bytes | None:
    """Decimal and Fraction as text; neither module is imported unless the program did."""
    for tag, module, name in ((b"D", "decimal", "Decimal"), (b"Q", "fractions", "Fraction")):
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type) and isinstance(value, kind):
            return _sized(tag, str(value).encode())
    return None


def _put_opaque(value: Value, parts: list[bytes]) -> None:
    items: list[Value] | None = None
    if hasattr(type(value), "__iter__") and not isinstance(value, type):
        items = [item for item, _ in zip(value, range(ITEMS), strict=False)]
    parts.append(b"o")
    _put(bool(value), parts, False)
    _put(repr(value)[:200], parts, False)
    _put(items, parts, False)


def _decimal(text: str) -> Value:
    from decimal import Decimal

    return Decimal(text)


def _fraction(text: str) -> Value:
    from fractions import Fraction

    return Fraction(text)


_LEAVES: dict[bytes, Callable[[bytes], Value]] = {
    b"i": lambda data: int.from_bytes(data, "little", signed=True),
    b"s": lambda data: data.decode("utf-8", "surrogatepass"),
    b"b": bytes,
    b"B": bytearray,
    b"D": lambda data: _decimal(data.decode()),
    b"Q": lambda data: _fraction(data.decode()),
}
_ROWS: dict[bytes, Value] = {b"l": list, b"t": tuple, b"S": set, b"Z": frozenset}


def _get(data: bytes, at: int) -> tuple[Value, int]:
    tag, at = data[at : at + 1], at + 1
    if tag in (b"N", b"T", b"F"):
        return {b"N": None, b"T": True, b"F": False}[tag], at
    if tag == b"f":
        return _FLOAT.unpack_from(data, at)[0], at + 8
    if tag == b"c":
        return complex(*struct.unpack_from("<dd", data, at)), at + 16
    if tag == b"o":
        true, at = _get(data, at)
        text, at = _get(data, at)
        items, at = _get(data, at)
        if not isinstance(text, str) or not isinstance(items, list | None):
            raise Malformed("no opaque value")
        return Opaque(true is True, text, items), at
    (count,) = _LENGTH.unpack_from(data, at)
    at += _LENGTH.size
    if tag in _LEAVES:
        if at + count > len(data):
            raise Malformed("a value was cut")
        return _LEAVES[tag](data[at : at + count]), at + count
    items = []
    for _ in range(2 * count if tag == b"d" else count):
        item, at = _get(data, at)
        items.append(item)
    if tag == b"d":
        return dict(zip(items[::2], items[1::2], strict=True)), at
    if tag not in _ROWS:
        raise Malformed(f"no value starts with {tag!r}")
    return _ROWS[tag](items), at
