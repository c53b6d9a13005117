"""One completion as it is read. Turns decoded chunks into Deltas and the Finish.

Knows: what servers put into chunks, streamed or whole. Does not know bytes, connections or retries.
"""

from __future__ import annotations

from typing import Any

from outthink.engines.openai import logprobs
from outthink.engines.openai.counts import Counts, whole
from outthink.engines.openai.finish import finish_reason, stop_sequence
from outthink.engines.openai.prefix import Stripper
from outthink.engines.protocol import Call, Delta, Finish


class Reading:
    """The state of one completion."""

    def __init__(self, call: Call, *, repeats: bool | None = None) -> None:
        self.counts = Counts()
        self.stripper = Stripper(call.prefix, repeats) if call.prefix else None
        self.ended = False
        """The server gave a finish reason."""
        self.over = False
        """More tokens came than were allowed: the rest is not worth waiting for."""
        self.reason: object = None
        self.text = self.thought = False
        self.whole = False
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
        self._told: tuple[int | None, int | None] = (None, None)

    def take(self, chunk: dict[str, Any]) -> Delta | None:
        """What a chunk adds, None if nothing."""
        counts = self.counts
        if isinstance(usage := chunk.get("usage"), dict):
            counts.usage(usage)
            self._thinking(usage)
        if isinstance(timings := chunk.get("timings"), dict):
            counts.timings(timings)
        choice = _first(chunk.get("choices"))
        if choice is None:
            return self._delta("", "", (), ())
        piece = choice.get("delta")
        if not isinstance(piece, dict):
            piece = choice.get("message")
            self._whole(piece)
        text, thought = self._content(piece) if isinstance(piece, dict) else (_string(choice.get("text")), "")
        if (reason := choice.get("finish_reason")) is not None and reason != "":
            self.ended, self.reason = True, reason
            self.stop = stop_sequence(chunk, choice, self._stops)
        chosen: list[float] = []
        confidences: list[float] = []
        if self._asked is not None:
            entries = logprobs.entries(choice)
            counts.add(len(entries), text=bool(text or thought))
            if entries:
                chosen, confidences, width = logprobs.read(entries, self._asked)
                self.width = max(self.width, width)
        self.text, self.thought = self.text or bool(text), self.thought or bool(thought)
        if thought and not text and counts.tokens is not None:
            self.thought_tokens = counts.tokens
        if text and self.stripper is not None:
            text = self.stripper.feed(text)
        delta = self._delta(text, thought, chosen, confidences)
        if self._named and delta is not None and chosen:
            delta.alternatives = logprobs.alternatives(logprobs.entries(choice))
        # A chunk that ends the completion may count its end-of-text token too, which is no excess.
        self.over = not self.ended and (self._told[0] or 0) > self._limit
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
            completion_tokens=counts.completion(text=self.text or self.thought),
            stop="" if self.over else self.stop,
        )

    def _delta(
        self, text: str, reasoning: str, chosen: list[float] | tuple[()], confidences: list[float] | tuple[()]
    ) -> Delta | None:
        told = self.counts.tokens, self.counts.prompt
        if not text and not reasoning and not chosen and told == self._told:
            return None
        self._told = told
        return Delta(text, reasoning, told[0], chosen, confidences, told[1])

    def _thinking(self, usage: dict[str, Any]) -> None:
        details = usage.get("completion_tokens_details")
        if isinstance(details, dict) and (told := whole(details.get("reasoning_tokens"))):
            self.thought_tokens = told

    def _whole(self, message: object) -> None:
        if isinstance(message, dict) and not self.whole:
            self.whole = True
            if self.stripper is not None:
                # What is known of a server's streams says nothing about its whole replies.
                self.stripper = Stripper(self.stripper.prefix, None)

    def _content(self, piece: dict[str, Any]) -> tuple[str, str]:
        text, thought = piece.get("content"), ""
        for key in ("reasoning_content", "reasoning"):
            if value := piece.get(key):
                self.reasoning_key, thought = key, _string(value)
                break
        if isinstance(text, list):  # Mistral: typed parts, of which some are thinking
            thought += _parts(text, thinking=True)
            text = _parts(text, thinking=False)
        return _string(text) or _string(piece.get("refusal")), thought


def _first(choices: object) -> dict[str, Any] | None:
    """The choice that was asked for, also of a server that sends several."""
    if not isinstance(choices, list):
        return None
    for choice in choices:
        if isinstance(choice, dict) and choice.get("index", 0) in (0, None):
            return choice
    return None


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _parts(parts: list[Any], *, thinking: bool) -> str:
    found = []
    for part in parts:
        if isinstance(part, dict) and (part.get("type") == "thinking") is thinking:
            inner = part.get("thinking") if thinking else part.get("text")
            found.append(_parts(inner, thinking=False) if isinstance(inner, list) else _string(inner))
    return "".join(found)
