"""Speaking a server's dialect: what to leave out or rename after a refusal.

Knows: which parameters can be done without and how refusals are worded. Does not send anything.
"""

from __future__ import annotations

import re
from typing import Any

from outthink.engines.openai.body import EXTENSIONS, OPTIONAL, THINKING, names
from outthink.engines.openai.complaint import Complaint
from outthink.engines.openai.facts import Facts

STATUSES = frozenset({400, 422, 500, 501})
"""Refusals that may be about one parameter; 500 is llama-cpp-python's way to refuse log-probabilities."""

_LENGTHS = ("max_tokens", "max_completion_tokens")
_BOUND = re.compile(
    r"(?:at most|less than or equal to|<=|up to|max(?:imum)?(?: allowed)?(?: of| is|:)?|between \d+ and|and)\s*(\d+)"
)
_BAD_VALUE = re.compile(r"unsupported[ _]value|does not support|supported values|input should be", re.IGNORECASE)
_OFF_IS_MINUS_ONE = re.compile(r"-1|at least 1|greater than|positive|>=? ?[01]\b")


def adapt(refusal: Complaint, sent: dict[str, Any], facts: Facts, *, status: int = 400) -> bool:
    """Learn from a refusal of `sent`; True if a request built anew has a chance."""
    if status not in STATUSES or refusal.context or (status == 500 and not refusal.unknown):
        return False
    name = _blamed(refusal, names(sent))
    if name in _LENGTHS:
        return _rename_length(refusal, name, facts)
    if name in ("top_logprobs", "logprobs") and "top_logprobs" in sent:
        return _fewer_alternatives(refusal, name, sent["top_logprobs"], facts)
    if name == "top_k" and sent["top_k"] == 0 and _OFF_IS_MINUS_ONE.search(refusal.message) and not refusal.unknown:
        facts.learn(top_k_off=-1)
        return True
    if name == "reasoning_effort" and (not refusal.unknown or _BAD_VALUE.search(f"{refusal.code} {refusal.message}")):
        return False  # it has the parameter, and its message lists the values
    if name in OPTIONAL or (name in ("temperature", "top_p") and refusal.unknown):
        for refused in (name, *_alike(name, facts)) if refusal.unknown else (name,):
            _drop(refused, facts)
        return True
    extensions = names(sent).intersection((*EXTENSIONS, *THINKING))
    if name is None and refusal.unknown and not refusal.param and extensions:
        for refused in (*EXTENSIONS, *extensions):
            facts.refuse(refused)
        return True
    return False


def _alike(name: str, facts: Facts) -> tuple[str, ...]:
    """What a strict server would refuse too, one by one: one that has refused a second parameter of a kind."""
    for kind in (EXTENSIONS, THINKING):
        if name in kind and facts.refused.intersection(kind):
            return kind
    return ()


def _blamed(refusal: Complaint, sent: set[str]) -> str | None:
    """The parameter of ours that the refusal is about: named apart, or first in its text."""
    for part in reversed(re.split(r"[.\s/\[\]]+", refusal.param)):
        if part in sent or part in _LENGTHS:
            return part
    if refusal.param:
        return None
    candidates = sent & (OPTIONAL - {"stream"} | {"temperature", "top_p", *_LENGTHS})
    if refusal.unknown and "stream" in sent and re.search(r"\bstream(?:ing)?\b", refusal.message, re.IGNORECASE):
        candidates.add("stream")
    found = []
    for name in candidates:
        word = r"stream(?:ing)?" if name == "stream" else re.escape(name)
        # `stream_options.x` blames x alone.
        if match := re.search(rf"(?<![\w-]){word}(?![\w-]|\.\w)", refusal.message, re.IGNORECASE):
            found.append((match.start(), name))
    return min(found)[1] if found else None


def _rename_length(refusal: Complaint, name: str, facts: Facts) -> bool:
    other = _LENGTHS[1 - _LENGTHS.index(name)]
    if not refusal.unknown and f"{other}' instead" not in refusal.message and f"use {other}" not in refusal.message:
        return False  # a bad value, which another name does not cure
    used = facts.length_name or _LENGTHS[0]
    if used != name:
        # Another request has renamed it meanwhile; if both names were refused there is nothing left.
        return used == other
    if f"refused:{other}" in facts.learnt:
        return False
    facts.learnt[f"refused:{name}"] = facts.now()
    facts.learn(length_name=other)
    return True


def _fewer_alternatives(refusal: Complaint, name: str, asked: int, facts: Facts) -> bool:
    limit = facts.top_logprobs_limit
    if limit is not None and limit < asked:
        return True  # lowered meanwhile by another request
    told = [int(number) for number in _BOUND.findall(refusal.message.lower())]
    fitting = [number for number in told if 0 < number < asked]
    if fitting:
        facts.learn(top_logprobs_limit=max(fitting))
    elif asked > 5 and not refusal.unknown:
        facts.learn(top_logprobs_limit=5)
    elif name == "top_logprobs":
        facts.learn(top_logprobs_limit=0)
    else:
        _drop("logprobs", facts)
    return True


def _drop(name: str, facts: Facts) -> None:
    facts.refuse(name)
    if name == "logprobs":
        facts.learn(logprobs=False, top_logprobs=0)
