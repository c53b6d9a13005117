"""One completion as it is read: turns decoded chunks into Deltas and the Finish.

Knows what servers put into chunks, streamed or whole: text, thinking, log-probabilities, why and where it stopped, and
that some repeat the prefix they were sent. Does not know bytes, connections or retries.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from outthink.engines.openai.tokens import Counts
from outthink.engines.protocol import Call, Delta, Finish
from outthink.http.events import Json, JsonObject
from outthink.http.usage import read_count

# The stop sequence: vLLM tells it as `stop_reason` (text, a token's number, or null for the end of text),
# SGLang as `matched_stop`, llama.cpp as `__verbose.stopping_word` where `verbose` was asked for.

_REASONS = {
    "stop": {
        "stop",
        "eos",
        "eos_token",
        "end_turn",
        "stop_sequence",
        "stop_token",
        "stop_word",
        "complete",
        "completed",
        "finished",
        "end",
        "done",
    },
    "length": {"length", "max_tokens", "max_output_tokens", "max_length", "model_length", "limit", "token_limit"}
    | {"model_context_window_exceeded", "context_length_exceeded", "error_limit"},
    "tool_calls": {"tool_calls", "tool_call", "tool_use", "function_call"},
    "content_filter": {"content_filter", "safety", "refusal", "sensitive", "recitation", "prohibited_content"}
    | {"error_toxic", "blocklist", "spii", "image_safety"},
}
_KNOWN = {name: reason for reason, names in _REASONS.items() for name in names}


def read_reason(choice: JsonObject) -> Json:
    """Why a choice has ended, None as long as it goes on."""
    reason = choice.get("finish_reason")
    if isinstance(reason, dict):  # as SGLang has it within
        reason = reason.get("type")
    return None if reason in ("", "null") else reason


def finish_reason(word: Json) -> str:
    """One of stop, length, tool_calls, content_filter, unknown."""
    if not isinstance(word, str):
        return "unknown"
    return _KNOWN.get(word.strip().lower().replace("-", "_").replace(" ", "_"), "unknown")


def stop_sequence(chunk: JsonObject, choice: JsonObject, stops: Sequence[str]) -> str | None:
    """The stop sequence that this last chunk names: empty for an end without one, None if it does not tell."""
    if not stops or finish_reason(choice.get("finish_reason")) in ("length", "tool_calls", "content_filter"):
        return ""
    verbose = chunk.get("__verbose")
    if isinstance(verbose, dict) and isinstance(word := verbose.get("stopping_word"), str):
        return word
    for name in ("stop_reason", "matched_stop"):
        if name in choice:
            value = choice[name]
            if isinstance(value, str) and value in stops:
                return value
            # Null and token numbers mean the end of the text; other words say no more than `stop` does.
            return "" if value is None or isinstance(value, int) else None
    return None


# DeepConf's token confidence is minus the mean of the k largest log-probabilities (arXiv 2508.15260).

FLOOR = -40.0
"""Servers write -inf or -9999 for a probability that is practically zero; one such value would drown
every mean it enters, so none counts for less than this."""


def _value(entry: Json) -> float | None:
    logprob = entry.get("logprob") if isinstance(entry, dict) else None
    if isinstance(logprob, bool) or not isinstance(logprob, int | float) or logprob != logprob:
        return None
    return min(0.0, max(FLOOR, float(logprob)))


def logprob_entries(choice: JsonObject) -> Sequence[Json]:
    """The token entries of a choice, empty without any."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return content if isinstance(content, list) else ()


def read_logprobs(tokens: Sequence[Json], asked: int) -> tuple[list[float], list[float], int]:
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


def alternatives(tokens: Sequence[Json]) -> list[tuple[str, dict[str, float]]]:
    """Each token's text, and the log-probabilities of its alternatives by their text, the chosen one included."""
    named = []
    for token in tokens:
        if not isinstance(token, dict):
            continue
        top = token.get("top_logprobs")
        logprobs: dict[str, float] = {}
        for entry in (token, *(top if isinstance(top, list) else ())):
            if isinstance(entry, dict) and (value := _value(entry)) is not None:
                logprobs.setdefault(str(entry.get("token", "")), value)
        named.append((str(token.get("token", "")), logprobs))
    return named


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


# A repeated prefix is taken off. llama.cpp repeats it in whole replies, and until 2026 in streams; vLLM does not. Chat
# templates trim or change its white space.

_DECISIVE = 12  # letters of a prefix that no model writes anew by chance


def decisive(prefix: str) -> bool:
    """Whether a reply that starts with this prefix must be repeating it."""
    return sum(not letter.isspace() for letter in prefix) >= _DECISIVE


class Stripper:
    """Compares the start of a reply with the prefix, piece by piece, ignoring white space.

    Args:
        prefix: what the reply may start with.
        repeats: what is known of this server. Only short prefixes heed it: a long one that comes back
            word for word is a repetition, whatever the server did in other replies.
    """

    __slots__ = ("_at", "_held", "prefix", "repeated")

    def __init__(self, prefix: str, repeats: bool | None) -> None:
        self.prefix = prefix
        self._at = 0
        self._held = ""
        compare = bool(prefix.strip()) and (repeats is not False or decisive(prefix))
        self.repeated: bool | None = None if compare else False
        """Whether this reply repeats the prefix, None as long as that is open."""

    def feed(self, text: str) -> str:
        """The new text in this piece; text that could still be the prefix is held back."""
        if self.repeated is False or self._at >= len(self.prefix):
            return text
        self._held += text
        return self._compare(text)

    def close(self) -> str:
        """What was held back when the reply ended before it could be told apart from the prefix."""
        held, self._held = ("" if self.repeated else self._held), ""
        if self.repeated is None:
            self.repeated = False
        return held

    def _compare(self, text: str) -> str:
        prefix, at = self.prefix, self._at
        for position, letter in enumerate(text):
            while at < len(prefix) and prefix[at] != letter and prefix[at].isspace():
                at += 1
            if not self.repeated and not prefix[at:].strip():
                self.repeated = True
            if at < len(prefix) and prefix[at] == letter:
                at += 1
                continue
            if at >= len(prefix):
                self._at, self._held = at, ""
                return text[position:]
            if letter.isspace():
                continue
            held, self._held, self.repeated = self._held, "", False
            return held
        self._at = at
        if not prefix[at:].strip():
            self.repeated, self._held = True, ""
        return ""


class CompletionParser:
    """The state of one completion."""

    def __init__(self, call: Call, *, repeats: bool | None = None) -> None:
        self.counts = Counts()
        self.stripper = Stripper(call.prefix, repeats) if call.prefix else None
        self.begun = False
        """A choice has come, be it empty."""
        self.ended = False
        """The server gave a finish reason."""
        self.over = False
        """More tokens came than were allowed: the rest is not worth waiting for."""
        self.reason: Json = None
        self.text = self.thought = self.called = False
        self.unstreamed = False
        """The reply came as one object and not as a stream."""
        self.width = 0
        """The most alternatives that came with a token."""
        self.reasoning_key: str | None = None
        self.thought_tokens: int | None = None
        """Tokens of separately returned thinking, None if the server did not tell."""
        self.stop: str | None = None
        """The stop sequence that ended it, see `Finish`."""
        self._asked = call.top_logprobs
        self._named = call.alternatives
        self._limit = call.sampling.max_tokens
        self._stops = call.sampling.stop
        self._reported: tuple[int | None, int | None] = (None, None)

    def take(self, chunk: JsonObject) -> Delta | None:
        """What a chunk adds, None if nothing."""
        counts, told, timed = self.counts, None, False
        if isinstance(usage := chunk.get("usage"), dict):
            told = counts.usage(usage)
            self._thinking(usage)
        if isinstance(timings := chunk.get("timings"), dict):
            timed = counts.timings(timings)
        choice = first_choice(chunk.get("choices"))
        if choice is None:
            if told or timed:
                counts.covered.add(told, text=False, timed=timed)
            return self._delta("", "", (), ())
        self.begun = True
        piece = choice.get("delta")
        if not isinstance(piece, dict):
            piece = choice.get("message")
            self._switch_to_object(piece)
        text, thought = self.content(piece) if isinstance(piece, dict) else (_string(choice.get("text")), "")
        if choice.get("error"):
            self.ended, self.reason = True, "error"
        elif (reason := read_reason(choice)) is not None:
            self.ended, self.reason = True, reason
            self.stop = stop_sequence(chunk, choice, self._stops)
        called = isinstance(piece, dict) and bool(piece.get("tool_calls") or piece.get("function_call"))
        said = bool(text or thought) or called
        if told or timed:
            counts.covered.add(told, text=said, timed=timed)
        elif said:  # of most pieces there is no more to be noted
            counts.covered.stale = True
        chosen: list[float] = []
        confidences: list[float] = []
        if self._asked is not None:
            entries = logprob_entries(choice)
            counts.add(len(entries), text=said)
            if entries:
                chosen, confidences, width = read_logprobs(entries, self._asked)
                self.width = max(self.width, width)
        self.text, self.thought = self.text or bool(text), self.thought or bool(thought)
        self.called = self.called or called
        # As long as nothing but thinking has come, all tokens so far are of the thinking.
        if thought and not text and counts.tokens is not None:
            self.thought_tokens = counts.tokens
        if text and self.stripper is not None:
            text = self.stripper.feed(text)
        delta = self._delta(text, thought, chosen, confidences)
        if self._named and delta is not None and chosen:
            delta.alternatives = alternatives(logprob_entries(choice))
        # A chunk that ends the completion may count its end-of-text token too, which is no excess.
        self.over = not self.ended and (self._reported[0] or 0) > self._limit
        return delta

    def rest(self) -> Delta | None:
        """Text that was held back until the end, if any."""
        held = self.stripper.close() if self.stripper is not None else ""
        return self._delta(held, "", (), ())

    def finish(self) -> Finish:
        """The last event."""
        counts = self.counts
        reason = "length" if self.over else finish_reason(self.reason)
        return Finish(
            finish_reason=reason,
            prompt_tokens=counts.prompt,
            cached_tokens=counts.cached,
            completion_tokens=counts.completion(text=self.text or self.thought or self.called),
            stop="" if self.over else self.stop,
        )

    def _delta(
        self, text: str, reasoning: str, chosen: list[float] | tuple[()], confidences: list[float] | tuple[()]
    ) -> Delta | None:
        counts = self.counts.tokens, self.counts.prompt
        if not text and not reasoning and not chosen and counts == self._reported:
            return None
        self._reported = counts
        return Delta(text, reasoning, counts[0], chosen, confidences, counts[1])

    def _thinking(self, usage: JsonObject) -> None:
        details = usage.get("completion_tokens_details")
        if isinstance(details, dict) and (tokens := read_count(details.get("reasoning_tokens"))):
            self.thought_tokens = tokens

    def _switch_to_object(self, message: Json) -> None:
        if isinstance(message, dict) and not self.unstreamed:
            self.unstreamed = True
            if self.stripper is not None:
                # What is known of a server's streams says nothing about its whole replies.
                self.stripper = Stripper(self.stripper.prefix, None)

    def content(self, piece: JsonObject) -> tuple[str, str]:
        """Text and thinking of a piece."""
        said = read_said(piece)
        if said.thought:
            self.reasoning_key = next((key for key in THOUGHT if piece.get(key)), self.reasoning_key)
        return said.content or said.refusal, said.thought


def first_choice(choices: Json) -> JsonObject | None:
    """The choice that was asked for, also of a server that sends several."""
    if not isinstance(choices, list):
        return None
    for choice in choices:
        if isinstance(choice, dict) and choice.get("index", 0) in (0, None):
            return choice
    # Some servers count from another number, which only a whole reply shows.
    return next(
        (choice for choice in choices if isinstance(choice, dict) and isinstance(choice.get("message"), dict)), None
    )


# A message, or a piece of one. Content may be typed parts (Mistral), and thinking has a field of its own with several
# names: `reasoning_content` (DeepSeek, SGLang, llama.cpp), `reasoning` (vLLM, Ollama, OpenRouter, where
# `reasoning_details` hold the same in parts), `thinking`.

THOUGHT = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
_THINKING = ("think", "reasoning", "thought")
_TEXTS = ("text", "thinking", "think", "reasoning", "thought", "summary", "content", "output_text", "value")
_NESTED = 16  # levels of parts


class Said(NamedTuple):
    """What a message, or a piece of one, says."""

    content: str
    thought: str
    refusal: str
    others: list[Json]
    """Parts of the content that are no text, and what parts hold beside it."""


def read_said(piece: JsonObject) -> Said:
    """Read a message, or a piece of one."""
    content, thought, refusal = piece.get("content"), "", piece.get("refusal")
    refused = refusal if isinstance(refusal, str) else ""
    for key in THOUGHT:
        if (value := piece.get(key)) and (thought := _told(value)):
            break
    if not isinstance(content, list | dict):
        text = "" if content is None else content if isinstance(content, str) else json.dumps(content)
        return Said(text, thought, refused, [])
    texts: list[str] = []
    thoughts, refusals = [thought], [refused]
    others: list[Json] = []
    for part in content if isinstance(content, list) else [content]:
        kind = str(part.get("type", "")) if isinstance(part, dict) else ""
        text = _told(part)
        if isinstance(part, dict) and isinstance(said := part.get("refusal"), str):
            refusals.append(said)
        elif not text:
            others.append(part)
        elif any(word in kind for word in _THINKING) or (isinstance(part, dict) and part.get("thought") is True):
            thoughts.append(text)
        else:
            texts.append(text)
        if text and isinstance(part, dict) and (beside := _beside_text(part)):
            others.append(beside)
    return Said("".join(texts), "".join(thoughts), "".join(refusals), [part for part in others if not _is_bare(part)])


def _told(value: Json, levels: int = _NESTED) -> str:
    """The text in a part, or in a list of parts."""
    if isinstance(value, str) or not levels:
        return value if isinstance(value, str) else ""
    if isinstance(value, list):
        return "".join([_told(inner, levels - 1) for inner in value])
    if isinstance(value, dict):
        return next((text for name in _TEXTS if (text := _told(value.get(name), levels - 1))), "")
    return ""


_LABELS = ("type", "id", "index", "status", "format")


def _beside_text(part: JsonObject) -> JsonObject:
    """What a part holds beside its text, a signature or citations; empty where that is nothing but labels."""
    beside = {name: value for name, value in part.items() if name not in _TEXTS}
    told = [name for name, value in beside.items() if value and isinstance(value, str | list | dict)]
    return beside if any(name not in _LABELS for name in told) else {}


def _is_bare(part: Json) -> bool:
    """Whether a part holds nothing but its type and empty text."""
    return not part or (isinstance(part, dict) and not any(part[name] for name in part if name != "type"))


def _string(value: Json) -> str:
    return value if isinstance(value, str) else ""
