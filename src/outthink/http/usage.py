"""What a reply says that it has used: the layouts of `usage` (chat, responses, DeepSeek) and `timings` (llama.cpp).

Knows where the counts of one decoded object stand. Does not know how counts of a stream add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from outthink.http.events import Json


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
