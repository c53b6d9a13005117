"""Bodies of OpenAI-compatible servers: JSON in and out, what caps a completion, and where its tokens are counted.

Knows: orjson where it is installed, the one table of length fields, and the layouts of `usage` (chat, responses,
DeepSeek) and `timings` (llama.cpp). Does not know which field a server accepts, or how counts of a stream add up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from outthink.http.events import Json

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


def read_count(value: Json) -> int | None:
    """A count: a non-negative whole number, however it is written, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        return None
    return int(value)


class Usage(NamedTuple):
    """Tokens of one reply; None where the server does not tell. `cached` are part of `prompt`."""

    prompt: int | None = None
    cached: int | None = None
    completion: int | None = None


def read_usage(usage: Mapping[str, Any]) -> Usage:
    """The counts of a chat's `usage`; a prompt of 0 tokens means that it was not counted."""
    cached = _detail(usage.get("prompt_tokens_details"))
    if cached is None:
        cached = read_count(usage.get("prompt_cache_hit_tokens"))  # DeepSeek
    return Usage(read_count(usage.get("prompt_tokens")) or None, cached, read_count(usage.get("completion_tokens")))


def read_responses_usage(usage: Mapping[str, Any]) -> Usage:
    """The counts of the `usage` of `/v1/responses`, which has names of its own."""
    cached = _detail(usage.get("input_tokens_details"))
    return Usage(read_count(usage.get("input_tokens")), cached, read_count(usage.get("output_tokens")))


def read_timings(timings: Mapping[str, Any]) -> Usage:
    """llama.cpp's counts: `prompt_n` leaves out what `cache_n` was read from the cache."""
    generated, prompt, cached = (read_count(timings.get(key)) for key in ("predicted_n", "prompt_n", "cache_n"))
    total = prompt + cached if prompt and cached is not None else None
    return Usage(total, cached, generated or None)


def _detail(details: Json) -> int | None:
    return read_count(details.get("cached_tokens")) if isinstance(details, dict) else None
