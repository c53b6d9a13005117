"""What a backend says it used, read from raw bytes. Knows where `usage` stands; decodes nothing else.

A reply is forwarded as it came, so only its end is looked at: `usage` follows the choices in every
known server, streamed or whole, and inside a JSON string its quotes would be escaped.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from outthink.engines.openai.tokens import Counts, whole
from outthink.serving.encoding import decode

_TRIES = 4
_OBJECT = re.compile(rb'"(?:usage|timings)"\s*:\s*(\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})')
TAIL = 6144
"""Bytes at the end of a stream that hold its last counts."""


class Used(NamedTuple):
    """Counts of one reply; None where the backend does not tell."""

    prompt: int | None
    cached: int | None
    completion: int | None


UNKNOWN = Used(None, None, None)


def used(content: bytes) -> Used:
    """The last counts in a reply, or in the end of one."""
    for name in (b'"usage"', b'"timings"'):
        at, tries = content.rfind(name), _TRIES
        while at >= 0 and tries:
            if (match := _OBJECT.match(content, at)) is not None and (told := _decoded(match[1])):
                return _read(told, timed=name == b'"timings"')
            at, tries = content.rfind(name, 0, at), tries - 1  # chunks before the last may say null
    return UNKNOWN


def _decoded(text: bytes) -> dict[str, Any]:
    try:
        value = decode(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _read(told: dict[str, Any], *, timed: bool) -> Used:
    counts = Counts()
    if timed:
        counts.timings(told)
        return Used(counts.prompt, counts.cached, counts.tokens)
    if "input_tokens" in told:  # /v1/responses
        details = told.get("input_tokens_details")
        cached = whole(details.get("cached_tokens")) if isinstance(details, dict) else None
        return Used(whole(told.get("input_tokens")), cached, whole(told.get("output_tokens")))
    counts.usage(told)
    return Used(counts.prompt, counts.cached, whole(told.get("completion_tokens")))
