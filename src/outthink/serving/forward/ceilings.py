"""What a request that is passed through may use.

Knows: under which name a cap is written, and how a request is made to fit a key's ceilings. A request of a key without
ceilings and budgets is sent as it came. Does not know the ledger, nor which backend answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from outthink.economics.tariff import Tariff
from outthink.http.fields import (
    CHAT_LENGTH_FIELDS,
    ENDPOINTS,
    JsonDict,
    Kind,
    completions_in,
    encode,
    endpoint_of,
    kind_of,
    length_field,
    names_of,
    read_whole,
)
from outthink.http.usage import read_count
from outthink.serving.bounds.checked import check_models, checked_body
from outthink.serving.failure import Failure, bad_field, unknown_cost
from outthink.serving.pool.rules import FieldRules
from outthink.serving.protocols import Key

_PARTS = b'"type"'
"""Pictures and tools have it, which are more than their bytes."""
_LENGTHS = frozenset(names_of("length"))
_SHOWN: tuple[Kind, ...] = ("length", "choices", "beams", "input", "plain", "free", "named", "schema", "labels")
_BOUNDED = {
    endpoint: frozenset(("model", "stream")).union(
        name for kind in _SHOWN for name in names_of(kind) if kind_of(endpoint, name) in _SHOWN
    )
    for endpoint in ENDPOINTS
    if endpoint != "responses"  # it may go on from what the request does not show
} | {"responses": frozenset[str]()}
"""Names of fields that raise no bound where the request's bytes are counted."""


class CappedRequest(NamedTuple):
    """What is sent, and what it cannot exceed.

    Args:
        hide_usage: the usage chunk is ours and not for the client.
        completions: how many are asked for, over all prompts.
        length: tokens that none of them exceeds, None where nothing is limited.
    """

    content: bytes
    tokens: int
    usd: float | None
    hide_usage: bool
    completions: int
    length: int | None = None


def cap_request(
    key: Key,
    path: str,
    content: bytes,
    body: JsonDict,
    default_tokens: int,
    tariff: Tariff,
    rules: FieldRules | None = None,
) -> CappedRequest:
    """The request as this key may send it. Raises Failure where its ceilings leave no room, or for what has no bound.

    Args:
        default_tokens: of a completion where the request does not say.
        rules: what the operator lets a limited key send.
    """
    if not key.counted:  # a ceiling of seconds is kept by the clock, and needs no cap on tokens
        return _uncapped(path, content, body, default_tokens, tariff)
    checked = checked_body(key, path, body, rules or FieldRules())
    # No tokeniser makes more tokens than there are bytes; pictures and sound have bounds of their own.
    prompt = len(content) - checked.shown + checked.unseen
    name = checked.length_name
    cap = 0 if name is None else checked.told or default_tokens
    room = None if key.budget.tokens is None else key.budget.tokens - prompt
    if room is not None:
        most = room // checked.completions - checked.thinking
        cap = min(cap, most)
        if room < 0 or (name is not None and most < 1):
            raise _no_room(f"{key.budget.tokens} tokens", name)
    if name is not None and checked.told is None:
        most = (cap + checked.thinking) * checked.completions
        for limit, bound in ((key.budget.usd, tariff.usd_bound), (key.budget.joules, tariff.joules_bound)):
            most = _affordable(limit, bound, prompt, most)
        cap = max(1, min(cap, most // checked.completions - checked.thinking))
    if name is not None and checked.floor > cap:
        problem = f"is more than the {cap} tokens that this completion may have"
        raise bad_field(checked.floor_name, checked.floor, problem, "lower it, or raise max_tokens")
    length = 0 if name is None else cap + checked.thinking
    generated = length * checked.completions
    usd = tariff.usd_bound(prompt, generated)
    _check(key.budget.usd, usd, "dollars", tariff, name)
    _check(key.budget.joules, tariff.joules_bound(prompt, generated), "joules", tariff, name)
    sent = checked.body
    if name is not None:
        sent[name] = cap
    options = sent.get("stream_options")
    wants_usage = isinstance(options, dict) and options.get("include_usage") is True
    # A budget needs the counts; the Responses API tells them without being asked.
    told_anyway = checked.endpoint in ("responses", "embeddings")
    hide = key.limited and sent.get("stream") is True and not wants_usage and not told_anyway
    if hide:
        sent["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return CappedRequest(encode(sent), prompt + generated, usd, hide, checked.completions, length)


def named_once(body: JsonDict) -> bytes:
    """A body for a key that may use some models only: no server can find another name in it. Raises Failure."""
    check_models(body, passed=True)
    return encode(body)  # of a name that was doubled only the one that we have read


def _uncapped(path: str, content: bytes, body: JsonDict, default_tokens: int, tariff: Tariff) -> CappedRequest:
    """A request that nothing limits: what it asks for, as far as it can be told, and its bytes as they came."""
    completions, name = completions_in(path, body), length_field(path)
    asked = next((count for field in (name, *CHAT_LENGTH_FIELDS) if (count := read_count(body.get(field or "")))), None)
    generated = 0 if name is None else (asked or default_tokens) * completions
    usd = tariff.usd_bound(len(content), generated)
    return CappedRequest(content, len(content) + generated, usd, False, completions)


def known_bound(path: str, content: bytes, body: JsonDict, completions: int) -> int | None:
    """Tokens that a request cannot exceed as it came, None where its bytes do not show it at a glance."""
    endpoint, most = endpoint_of(path), 0
    for name in _LENGTHS.intersection(body):
        most = max(most, read_whole(body[name]) or 0)
    if not (most or endpoint == "embeddings") or not _BOUNDED[endpoint].issuperset(body) or _PARTS in content:
        return None
    return len(content) + completions * most


def _affordable(limit: float | None, bound: Callable[[int, int], float | None], prompt: int, most: int) -> int:
    """How many of so many generated tokens a ceiling leaves room for; all where it is none, or nobody knows."""
    whole, least = bound(prompt, most), bound(prompt, 0)
    if limit is None or whole is None or least is None or whole <= limit:
        return most
    fitting = max(0, int((limit - least) / (whole - least) * most)) if whole > least else 0  # bounds are linear
    return fitting if (bound(prompt, fitting) or 0) <= limit else fitting - 1


def _check(limit: float | None, bound: float | None, unit: str, tariff: Tariff, name: str | None) -> None:
    """Raise Failure for a request that may cost more than its key's ceiling, or nobody knows how much."""
    if limit is None:
        return
    if bound is None:
        raise unknown_cost("model", tariff.model, unit, "this key has a ceiling for it")
    if bound > limit:
        raise _no_room(f"{limit:g} {unit}", name)


def _no_room(ceiling: str, name: str | None) -> Failure:
    field, remedy = ("input", "shorten it") if name is None else ("max_tokens", "shorten it or lower max_tokens")
    message = f"{field}: the request does not fit this key's ceiling of {ceiling}; {remedy}"
    return Failure(400, message, param=field, code="ceiling")
