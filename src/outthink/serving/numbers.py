"""Identifiers of requests. Knows that they are sortable by time, unique and safe in URLs and headers."""

from __future__ import annotations

import itertools
import os
import re
import time

_LEGAL = re.compile(r"rcpt-[0-9a-f]{24,40}\Z")
_RANDOM = os.urandom(5).hex()
_COUNT = itertools.count(int.from_bytes(os.urandom(3), "big"))


def new_id() -> str:
    """A new identifier: milliseconds, a random number of this process, and a count."""
    return f"rcpt-{time.time_ns() // 1_000_000:012x}{_RANDOM}{next(_COUNT) & 0xFFFFFFFF:08x}"


def legal_id(text: str) -> bool:
    """Whether a text could be an identifier."""
    return _LEGAL.match(text) is not None
