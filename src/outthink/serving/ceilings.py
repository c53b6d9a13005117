"""What a request that is passed through may use, and what its backend says that it has used.

Knows: which field caps a completion, how a request is made to fit a key's ceilings, and where counts stand in a reply's
bytes. A request that fits, of a key without a budget by day or month, is not touched. Does not know the ledger, nor
which backend answers.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from outthink.economics.tariff import Tariff
from outthink.http.fields import (
    LENGTH_FIELDS,
    JsonDict,
    Usage,
    decode,
    encode,
    length_field,
    read_count,
    read_responses_usage,
    read_timings,
    read_usage,
)
from outthink.serving.failure import Failure, unknown_cost
from outthink.serving.protocols import Key


class CappedRequest(NamedTuple):
    """What is sent, and what it cannot exceed. `hide_usage`: the usage chunk is ours and not for the client."""

    content: bytes
    tokens: int
    usd: float | None
    hide_usage: bool


def cap_request(
    key: Key, path: str, content: bytes, body: JsonDict, default_tokens: int, tariff: Tariff
) -> CappedRequest:
    """The request as this key may send it. Raises Failure where its ceilings leave no room.

    Args:
        default_tokens: of a completion where the request does not say.
    """
    name = next((field for field in LENGTH_FIELDS if body.get(field) is not None), None)
    asked = read_count(body.get(name)) if name is not None else None
    completions = max(1, read_count(body.get("n")) or 1, read_count(body.get("best_of")) or 1)
    cap = asked or default_tokens
    prompt = len(content)  # no tokeniser makes more tokens than there are bytes
    if (ceiling := key.budget.tokens) is not None:
        cap = min(cap, (ceiling - prompt) // completions)
    if cap < 1:
        raise _no_room(f"{key.budget.tokens} tokens")
    generated = cap * completions
    usd = tariff.usd_bound(prompt, generated)
    _check(key.budget.usd, usd, "dollars", tariff)
    _check(key.budget.joules, tariff.joules_bound(prompt, generated), "joules", tariff)
    # A ceiling of seconds is kept by the clock, and needs no cap on tokens.
    limited = key.limited or any(currency != "seconds" for currency in key.budget.limited)
    changes: JsonDict = {}
    if limited and cap != asked:
        changes[name or length_field(path)] = cap
    options = body.get("stream_options")
    wants_usage = isinstance(options, dict) and options.get("include_usage") is True
    # A budget needs the counts; the Responses API tells them without being asked.
    hide = key.limited and body.get("stream") is True and not wants_usage and not path.endswith("/responses")
    if hide:
        changes["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return CappedRequest(encode({**body, **changes}) if changes else content, prompt + generated, usd, hide)


def _check(limit: float | None, bound: float | None, unit: str, tariff: Tariff) -> None:
    """Raise Failure for a request that may cost more than its key's ceiling, or nobody knows how much."""
    if limit is None:
        return
    if bound is None:
        raise unknown_cost("model", tariff.model, unit, "this key has a ceiling for it")
    if bound > limit:
        raise _no_room(f"{limit:g} {unit}")


def _no_room(ceiling: str) -> Failure:
    return Failure(
        400,
        f"max_tokens: the request does not fit this key's ceiling of {ceiling}; shorten it or lower max_tokens",
        param="max_tokens",
        code="ceiling",
    )


class UsageFilter:
    """Takes the chunk with the usage out of a stream whose client has not asked for it."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = b""
        """The beginning of an event."""

    def feed(self, piece: bytes) -> bytes:
        """Whole events that the client may see."""
        self.held += piece
        whole_events, mark, rest = self.held.rpartition(b"\n\n")
        if not mark:
            return b""
        self.held = rest
        if b'"usage"' not in whole_events:
            return whole_events + mark
        return b"".join(event + mark for event in whole_events.split(b"\n\n") if not _only_usage(event))

    def close(self) -> bytes:
        """What is left at the end."""
        held, self.held = self.held, b""
        return held


def _only_usage(event: bytes) -> bool:
    return b'"usage"' in event and b'"choices":[]' in event.replace(b" ", b"")


# A reply is forwarded as it came, so only its end is looked at: `usage` follows the choices in every known
# server, streamed or whole, and inside a JSON string its quotes would be escaped.

_TRIES = 4
_OBJECT = re.compile(rb'"(?:usage|timings)"\s*:\s*(\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})')
TAIL = 6144
"""Bytes at the end of a stream that hold its last counts."""
UNKNOWN = Usage()


def usage_in(content: bytes) -> Usage:
    """The last counts in a reply, or in the end of one."""
    for name in (b'"usage"', b'"timings"'):
        at, tries = content.rfind(name), _TRIES
        while at >= 0 and tries:
            if (match := _OBJECT.match(content, at)) is not None and (counts := _decoded(match[1])):
                if name == b'"timings"':
                    return read_timings(counts)
                return read_responses_usage(counts) if "input_tokens" in counts else read_usage(counts)
            at, tries = content.rfind(name, 0, at), tries - 1  # chunks before the last may say null
    return UNKNOWN


def _decoded(text: bytes) -> JsonDict:
    try:
        value = decode(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
