"""Bodies of OpenAI-compatible servers: JSON in and out, and what caps a completion.

Knows: orjson where it is installed, and the one table of length fields. Does not know which field a server accepts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

JsonDict = dict[str, Any]
"""A decoded JSON object: what a server or client has put into it is not known before it is looked at."""

decode: Callable[[bytes], Any] = json.loads if orjson is None else orjson.loads
"""Raises ValueError; orjson also refuses invalid UTF-8, and reads a chat five times as fast."""


def encode(value: object) -> bytes:
    """A value as JSON."""
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:  # numbers beyond 64 bits, lone surrogates
            pass
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


CHAT_LENGTH_FIELDS = ("max_tokens", "max_completion_tokens")
"""The old name and the new one; a server that knows one may refuse the other."""
RESPONSES_LENGTH_FIELD = "max_output_tokens"
LENGTH_FIELDS = (*CHAT_LENGTH_FIELDS, RESPONSES_LENGTH_FIELD)
"""Every field that caps a completion, in the order in which they are looked for."""


def length_field(path: str) -> str:
    """The length field that every server of an endpoint knows."""
    return RESPONSES_LENGTH_FIELD if path.endswith("/responses") else CHAT_LENGTH_FIELDS[0]
