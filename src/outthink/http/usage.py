"""What a reply says that it has used: the layouts of `usage` (chat, completions, responses) and `timings` (llama.cpp).

Knows where the counts of a decoded reply or chunk stand, what they are worth beside each other and beside what came
with them, and how those of a stream add up. Does not know bytes, prices or who pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from outthink.http.events import Json, JsonObject


def read_count(value: Json) -> int | None:
    """A count: a non-negative whole number, however it is written, else None."""
    if type(value) is int:
        return value if 0 <= value < 1_000_000_000_000_000 else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        return None
    return int(value) if value == int(value) else None


def told_parameters(row: Json) -> int | None:
    """Weights that a server tells of a model in its list (llama.cpp's `meta.n_params`); None where it does not."""
    meta = row.get("meta") if isinstance(row, dict) else None
    return (read_count(meta.get("n_params")) if isinstance(meta, dict) else None) or None


class Usage(NamedTuple):
    """Tokens of one reply; None where the server does not tell. `cached` are part of `prompt`."""

    prompt: int | None = None
    cached: int | None = None
    completion: int | None = None


UNKNOWN = Usage()


def read_usage(usage: Mapping[str, Any]) -> Usage:
    """The counts of a `usage`, under the names of chats or of `/v1/responses`.

    Reasoning, or the prompts of tools, may stand beside the completion: where the total exceeds prompt and completion,
    the total counts; where it is below, the sum. A part that is larger than its whole stands beside it. A prompt of 0
    tokens means that it was not counted.
    """
    chat = "prompt_tokens" in usage or "completion_tokens" in usage
    prompt = read_count(usage.get("prompt_tokens" if chat else "input_tokens")) or None
    completion = read_count(usage.get("completion_tokens" if chat else "output_tokens"))
    if chat and ("output_tokens" in usage or "input_tokens" in usage):  # under both names: the larger one
        prompt = _most(prompt, read_count(usage.get("input_tokens")) or None)
        completion = _most(completion, read_count(usage.get("output_tokens")))
    cached = None
    if (details := usage.get("prompt_tokens_details" if chat else "input_tokens_details")) is not None:
        cached = _detail(details, "cached_tokens")
        prompt = _with_beside(prompt, cached, _detail(details, "audio_tokens"))
    elif "prompt_cache_hit_tokens" in usage:  # DeepSeek
        cached = read_count(usage["prompt_cache_hit_tokens"])
        prompt = _with_beside(prompt, cached)
    elif "cache_read_input_tokens" in usage or "cache_creation_input_tokens" in usage:  # Anthropic
        cached, made = (read_count(usage.get(f"cache_{what}_input_tokens")) for what in ("read", "creation"))
        if chat or prompt is None:
            prompt = _with_beside(prompt, cached, made)
        else:  # under its own names the cache is no part of the rest
            prompt += (cached or 0) + (made or 0)
    if (details := usage.get("completion_tokens_details" if chat else "output_tokens_details")) is not None:
        thought, spoken = _detail(details, "reasoning_tokens"), _detail(details, "audio_tokens")
        completion = _with_beside(completion, thought, spoken)
    elif "reasoning_tokens" in usage:
        completion = _with_beside(completion, read_count(usage["reasoning_tokens"]))
    if total := read_count(usage.get("total_tokens")):
        if completion is None:
            prompt, completion = (total, None) if prompt is None else (prompt, max(0, total - prompt))
        elif prompt is None:
            prompt = max(0, total - completion) or None
        else:
            completion = max(completion, total - prompt)
    return Usage(prompt, cached, completion)


def read_timings(timings: Mapping[str, Any]) -> Usage:
    """llama.cpp's counts: `prompt_n` leaves out what `cache_n` was read from the cache."""
    generated, prompt, cached = (read_count(timings.get(key)) for key in ("predicted_n", "prompt_n", "cache_n"))
    total = prompt + cached if prompt and cached is not None else None
    return Usage(total, cached, generated or None)


def _with_beside(whole: int | None, *parts: int | None) -> int | None:
    """A count, and what of its parts cannot be within it."""
    return None if whole is None else whole + sum(part for part in parts if part is not None and part > whole)


def _detail(details: Json, name: str) -> int | None:
    return read_count(details.get(name)) if isinstance(details, dict) else None


class Coverage:
    """Whether the counts that came with pieces of a reply cover all of it: no text behind them, and ever growing."""

    __slots__ = ("_last", "_most", "_odd", "_same", "stale")

    def __init__(self) -> None:
        self._last = self._most = 0
        self._odd = self._same = False
        self.stale = False
        """Text has come behind them."""

    def add(self, told: int | None, *, text: bool, timed: bool = False) -> None:
        """Note what a piece counts by its usage, whether it has text, and whether it has counts of another kind."""
        if not (told or timed):
            self.stale = self.stale or text
            return
        self.stale = False
        if told:
            if told > self._most and not text:  # of all that came, whatever the others were of
                self._odd = False
            elif told < self._last or (text and told == self._last and self._same):  # a token's text may be cut once
                self._odd = True
            self._same = text and told == self._last
            self._last, self._most = told, max(told, self._most)

    @property
    def broken(self) -> bool:
        """They do not."""
        return self.stale or self._odd


class ReplyUsage:
    """The counts of one reply: of its chunks, in their order, or of the whole of it."""

    __slots__ = ("_covered", "_ended", "_final", "_usage", "text", "written")

    def __init__(self) -> None:
        self._usage = UNKNOWN
        self._covered = Coverage()
        self.text = False
        """Something has been generated: text, thinking or calls."""
        self._ended: set[int] | None = None  # choices that have come to their end, in chunks that were looked at
        self._final = False  # the counts stood in a chunk of their own
        self.written = 0
        """The completion as it is told, without what stands beside it."""

    @property
    def settled(self) -> bool:
        """Whether another chunk matters only if it holds counts or an end."""
        return self.text and (self._covered.broken or self._usage.completion is None)

    @property
    def ended(self) -> bool:
        """Whether a choice has come to its end, or the reply has been counted."""
        return self._final or self._ended is not None

    def add(self, chunk: JsonObject) -> None:
        """Note what a chunk counts, and whether it goes on."""
        response = chunk.get("response")
        body = response if isinstance(response, dict) and "choices" not in chunk else chunk
        text = self._content(chunk, body)
        self.text = self.text or text
        told = timed = None
        if isinstance(usage := body.get("usage"), dict):
            told = self.count(usage)
        if isinstance(timings := chunk.get("timings"), dict):
            timed = self.time(timings)
        if told is not None or timed:
            self._final = chunk.get("choices") == []
        if self._usage.completion is not None:
            self._covered.add(told, text=text, timed=bool(timed))

    def time(self, timings: JsonObject) -> int | None:
        """Note llama.cpp's counts; what they say of the completion."""
        used = read_timings(timings)
        self._usage = _larger(self._usage, used)
        return used.completion

    def count(self, usage: JsonObject) -> int | None:
        """Note counts that cover all that came; what they say of the completion."""
        used = read_usage(usage)
        # Counts of a stream are cumulative, and some servers tell the prompt's first and the others last.
        self._usage = used if self._usage is UNKNOWN else _larger(self._usage, used)
        self.written = max(self.written, read_count(usage.get("completion_tokens")) or 0)
        return used.completion

    def add_unread(self) -> None:
        """Note that something came which cannot be read."""
        self.text = True
        self._covered.add(None, text=self._usage.completion is not None)

    def total(self) -> Usage:
        """The counts of all that came; unknown where more came after them, and where they are zero beside text."""
        if self._covered.broken or (self.text and not self._usage.completion):
            return UNKNOWN
        return self._usage

    def at_end(self, choices: int) -> Usage:
        """The counts of a reply that was cut off: they are its total if all choices had come to their end."""
        return self.total() if self._final or len(self._ended or ()) >= choices else UNKNOWN

    def _content(self, chunk: JsonObject, body: JsonObject) -> bool:
        """Whether a chunk holds something that was generated; notes the choices that it ends."""
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            if body.get("status") in ("completed", "incomplete", "failed"):
                self._end(0)
            return bool(chunk.get("delta") or body.get("output"))
        text = False
        for at, choice in enumerate(choices):
            if not isinstance(choice, dict):
                continue
            piece = choice.get("delta") or choice.get("message")
            if choice.get("text"):
                text = True
            elif isinstance(piece, dict):
                text = text or any(value for name, value in piece.items() if name != "role")
            if choice.get("finish_reason"):
                index = choice.get("index")
                self._end(index if type(index) is int else at)
        return text

    def _end(self, choice: int) -> None:
        self._ended = {choice, *(self._ended or ())}


def _larger(one: Usage, other: Usage) -> Usage:
    prompt, cached, completion = map(_most, one, other)
    return Usage(prompt, cached, completion)


def _most(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else max(one, other)
