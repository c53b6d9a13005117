"""What a data route was asked for, read from its query. Knows names and bounds; a wrong value names its field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast, get_args

from outthink.serving.failure import bad_field
from outthink.serving.numbers import legal_id
from outthink.serving.protocols import GroupBy

PAGE, LONGEST = 50, 200
"""Rows of a page, and letters of a term."""
_WORDS = ("text", "key", "model", "strategy", "stopped")
_TIMES = ("since", "until")


def group_of(query: Mapping[str, str]) -> GroupBy:
    """What spend is summed by. Raises Failure."""
    by = query.get("by", "key")
    if by not in get_args(GroupBy):
        raise bad_field("by", by[:40], "is no group", f"use one of {', '.join(get_args(GroupBy))}")
    return cast(GroupBy, by)


def times_of(query: Mapping[str, str]) -> dict[str, float]:
    """`since` and `until` in seconds since the epoch, where they are given. Raises Failure."""
    found = {}
    for name in _TIMES:
        if text := query.get(name):
            try:
                moment = float(text)
            except ValueError:
                moment = math.nan
            if not 0 <= moment < 1e11:  # up to the year 5138; NaN fails too
                raise bad_field(name, text[:40], "is no time", "give seconds since 1970")
            found[name] = moment
    return found


def terms_of(query: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of the ledger's search. Raises Failure."""
    terms: dict[str, Any] = dict(times_of(query))
    for name in _WORDS:
        if text := query.get(name, "").strip():
            if len(text) > LONGEST or "\0" in text:
                raise bad_field(name, f"{text[:40]}...", "cannot be searched for", f"use at most {LONGEST} letters")
            terms[name] = text
    if before := query.get("before"):
        if not legal_id(before):
            raise bad_field("before", before[:40], "is no id of a request", "give the last row's id")
        terms["before"] = before
    return terms
