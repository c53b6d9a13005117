"""Frames of bytes on a pipe.

Knows: how long a frame may be, and where one ends. Does not know what a frame holds, or who talks to whom.
"""

from __future__ import annotations

import os
import struct

LIMIT = 16 * 2**20  # bytes of one frame
_LENGTH = struct.Struct("<I")


class Malformed(ValueError):
    """The bytes are no values, or the value cannot be sent."""


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
