"""What a request that is passed through may use.

Knows: which field caps a completion, and how a request is made to fit a key's ceilings. A request that fits, of a key
without a budget by day or month, is not touched. Does not know the ledger, nor which backend answers.
"""

from __future__ import annotations

from typing import NamedTuple

from outthink.economics.tariff import Tariff
from outthink.http.fields import (
    CHAT_LENGTH_FIELDS,
    RESPONSES_LENGTH_FIELD,
    JsonDict,
    completions_in,
    encode,
    length_field,
)
from outthink.http.usage import read_count
from outthink.serving.failure import Failure, unknown_cost
from outthink.serving.protocols import Key

_LENGTH_FIELDS = (*CHAT_LENGTH_FIELDS, RESPONSES_LENGTH_FIELD)


class CappedRequest(NamedTuple):
    """What is sent, and what it cannot exceed.

    Args:
        hide_usage: the usage chunk is ours and not for the client.
        completions: how many are asked for, over all prompts.
    """

    content: bytes
    tokens: int
    usd: float | None
    hide_usage: bool
    completions: int


def cap_request(
    key: Key, path: str, content: bytes, body: JsonDict, default_tokens: int, tariff: Tariff
) -> CappedRequest:
    """The request as this key may send it. Raises Failure where its ceilings leave no room.

    Args:
        default_tokens: of a completion where the request does not say.
    """
    name = next((field for field in _LENGTH_FIELDS if body.get(field) is not None), None)
    asked = read_count(body.get(name)) if name is not None else None
    completions = completions_in(path, body)
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
    if limited and cap != asked and (field := name or length_field(path)):
        changes[field] = cap
    options = body.get("stream_options")
    wants_usage = isinstance(options, dict) and options.get("include_usage") is True
    # A budget needs the counts; the Responses API tells them without being asked.
    hide = key.limited and body.get("stream") is True and not wants_usage and not path.endswith("/responses")
    if hide:
        changes["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    sent = encode({**body, **changes}) if changes else content
    return CappedRequest(sent, prompt + generated, usd, hide, completions)


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
