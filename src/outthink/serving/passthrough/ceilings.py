"""Pass-through under a key's ceilings: the request is made to fit, or refused.

Knows: which fields cap a completion, and what a request cannot exceed. A request that fits, of a key
without a budget by day or month, is not touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from outthink.economics.tariff import Tariff
from outthink.engines.openai.tokens import Counts, read_count
from outthink.serving.bodies import decode, encode
from outthink.serving.failure import Failure, unknown_cost
from outthink.serving.protocols import Key

_NAMES = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_FEWEST = 1


class Capped(NamedTuple):
    """What is sent, and what it cannot exceed. `hide`: the usage chunk is ours and not for the client."""

    content: bytes
    tokens: int
    usd: float | None
    hide: bool


def capped(key: Key, path: str, content: bytes, body: Mapping[str, Any], usual: int, tariff: Tariff) -> Capped:
    """The request as this key may send it. Raises Failure where its ceilings leave no room.

    Args:
        usual: tokens of a completion where the request does not say.
    """
    name = next((known for known in _NAMES if body.get(known) is not None), None)
    told = read_count(body.get(name)) if name is not None else None
    times = max(1, read_count(body.get("n")) or 1, read_count(body.get("best_of")) or 1)
    cap = told or usual
    if (ceiling := key.budget.tokens) is not None:
        cap = min(cap, (ceiling - len(content)) // times)
    if cap < _FEWEST:
        raise _no_room(f"{key.budget.tokens} tokens")
    tokens = len(content) + cap * times
    usd = tariff.usd_bound(len(content), cap * times)
    for limit, most, unit in (
        (key.budget.usd, usd, "dollars"),
        (key.budget.joules, tariff.joules_bound(len(content), cap * times), "joules"),
    ):
        if limit is not None and most is None:
            raise unknown_cost("model", tariff.model, unit, "this key has a ceiling for it")
        if limit is not None and most is not None and most > limit:
            raise _no_room(f"{limit:g} {unit}")
    limited = key.limited or any(currency != "seconds" for currency in key.budget.limited)
    changes: dict[str, Any] = {}
    if limited and cap != told:
        changes[name or ("max_output_tokens" if path.endswith("/responses") else "max_tokens")] = cap
    options = body.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage") is True
    hide = key.limited and body.get("stream") is True and not asked and not path.endswith("/responses")
    if hide:
        changes["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return Capped(encode({**body, **changes}) if changes else content, tokens, usd, hide)


def _no_room(ceiling: str) -> Failure:
    return Failure(
        400,
        f"max_tokens: the request does not fit this key's ceiling of {ceiling}; shorten it or lower max_tokens",
        param="max_tokens",
        code="ceiling",
    )


class Hiding:
    """Takes the chunk with the usage out of a stream whose client has not asked for it."""

    __slots__ = ("held", "seen")

    def __init__(self) -> None:
        self.held = b""
        """The beginning of an event."""
        self.seen = b""
        """What was taken out."""

    def feed(self, piece: bytes) -> bytes:
        """Whole events that the client may see."""
        self.held += piece
        whole_events, mark, rest = self.held.rpartition(b"\n\n")
        if not mark:
            return b""
        self.held = rest
        if b'"usage"' not in whole_events:
            return whole_events + mark
        shown = []
        for event in whole_events.split(b"\n\n"):
            if b'"usage"' in event and event.replace(b" ", b"").find(b'"choices":[]') >= 0:
                self.seen = event
            else:
                shown.append(event + mark)
        return b"".join(shown)

    def close(self) -> bytes:
        """What is left at the end."""
        held, self.held = self.held, b""
        return held


# What a backend says it used, read from raw bytes. Knows where `usage` stands; decodes nothing else.
#
# A reply is forwarded as it came, so only its end is looked at: `usage` follows the choices in every
# known server, streamed or whole, and inside a JSON string its quotes would be escaped.

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
        cached = read_count(details.get("cached_tokens")) if isinstance(details, dict) else None
        return Used(read_count(told.get("input_tokens")), cached, read_count(told.get("output_tokens")))
    counts.usage(told)
    return Used(counts.prompt, counts.cached, read_count(told.get("completion_tokens")))
