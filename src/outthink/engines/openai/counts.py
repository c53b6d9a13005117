"""How many tokens were used, by whatever the server tells.

Knows: llama.cpp timings, OpenAI usage (at the end or with every chunk), log-probability entries, and
when each of them is not to be believed. Does not know text lengths: stream deltas are not tokens.
"""

from __future__ import annotations

from typing import Any


def whole(value: object) -> int | None:
    """A count: a non-negative whole number, however it is written, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        return None
    return int(value)


class Counts:
    """Running counts of one completion."""

    __slots__ = ("_timed", "_used", "cached", "entries", "gaps", "prompt")

    def __init__(self) -> None:
        self.prompt: int | None = None
        self.cached: int | None = None
        self.entries = 0
        self.gaps = False
        """Text came without entries, so that their number is only a lower bound."""
        self._timed: int | None = None
        self._used: int | None = None

    def timings(self, told: dict[str, Any]) -> None:
        """llama.cpp: `prompt_n` leaves out what `cache_n` was read from the cache."""
        generated, prompt, cached = (whole(told.get(key)) for key in ("predicted_n", "prompt_n", "cache_n"))
        if generated:
            self._timed = max(generated, self._timed or 0)
        if cached is not None:
            self.cached = cached
            if prompt:
                self.prompt = prompt + cached

    def usage(self, told: dict[str, Any]) -> None:
        """OpenAI: cumulative where it comes with every chunk, as vLLM can do."""
        generated, prompt = whole(told.get("completion_tokens")), whole(told.get("prompt_tokens"))
        if generated is not None:
            self._used = max(generated, self._used or 0)
        if prompt:
            self.prompt = prompt
        details = told.get("prompt_tokens_details")
        cached = whole(details.get("cached_tokens")) if isinstance(details, dict) else None
        if cached is None:
            cached = whole(told.get("prompt_cache_hit_tokens"))  # DeepSeek
        if cached is not None:
            self.cached = cached

    def add(self, entries: int, *, text: bool) -> None:
        """Entries of one chunk, and whether it had text."""
        self.entries += entries
        if text and not entries:
            self.gaps = True

    @property
    def tokens(self) -> int | None:
        """Generated tokens so far, None if the server does not tell."""
        entries = self.entries if not self.gaps else 0
        if (known := max(self._timed or 0, self._used or 0, entries)) == 0:
            return None
        return max(known, self.entries)

    def completion(self, *, text: bool) -> int | None:
        """Generated tokens of the finished completion: usage if plausible, else what was counted."""
        used, counted = self._used, max(self._timed or 0, self.entries)
        if used is not None and used >= counted and (used > 0 or not text):
            return used
        return self.tokens
