"""Log-probabilities of one chunk. Knows the OpenAI layout and its odd values; knows no windows.

DeepConf's token confidence is minus the mean of the k largest log-probabilities (arXiv 2508.15260).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FLOOR = -40.0
"""Servers write -inf or -9999 for a probability that is practically zero; one such value would drown
every mean it enters, so none counts for less than this."""


def _value(entry: object) -> float | None:
    told = entry.get("logprob") if isinstance(entry, dict) else None
    if isinstance(told, bool) or not isinstance(told, int | float) or told != told:
        return None
    return min(0.0, max(FLOOR, float(told)))


def entries(choice: dict[str, Any]) -> Sequence[Any]:
    """The token entries of a choice, empty without any."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return content if isinstance(content, list) else ()


def read(tokens: Sequence[Any], asked: int) -> tuple[list[float], list[float], int]:
    """The chosen tokens' log-probabilities, their confidences, and the most alternatives of any token.

    A confidence needs two alternatives; of more than `asked` only the most likely count. Values that
    are missing are left out.
    """
    chosen: list[float] = []
    confidences: list[float] = []
    width = 0
    for token in tokens:
        if (value := _value(token)) is not None:
            chosen.append(value)
        top = token.get("top_logprobs") if isinstance(token, dict) else None
        if not isinstance(top, list) or not top:
            continue
        width = max(width, len(top))
        if asked >= 2 and (confidence := _confidence(top, asked)) is not None:
            confidences.append(confidence)
    return chosen, confidences, width


def alternatives(tokens: Sequence[Any]) -> list[tuple[str, dict[str, float]]]:
    """Each token's text, and the log-probabilities of its alternatives by their text, the chosen one included."""
    found = []
    for token in tokens:
        if not isinstance(token, dict):
            continue
        top = token.get("top_logprobs")
        told: dict[str, float] = {}
        for entry in (token, *(top if isinstance(top, list) else ())):
            if isinstance(entry, dict) and (value := _value(entry)) is not None:
                told.setdefault(str(entry.get("token", "")), value)
        found.append((str(token.get("token", "")), told))
    return found


def _confidence(top: list[Any], asked: int) -> float | None:
    try:
        # The common case first, for this runs once a token: as many as asked, all of them numbers.
        values = [entry["logprob"] for entry in top]
        if 2 <= len(values) <= asked and min(values) >= FLOOR and (total := sum(values)) <= 0.0:
            return -float(total) / len(values)
    except (TypeError, KeyError):
        pass  # values are missing: each is looked at
    values = [value for entry in top if (value := _value(entry)) is not None]
    if len(values) > asked:
        values = sorted(values, reverse=True)[:asked]
    return -sum(values) / len(values) if len(values) >= 2 else None
