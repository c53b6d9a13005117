"""Whether a server heeds the wishes about thinking. Knows what was asked and what came; sends nothing."""

from __future__ import annotations

from collections.abc import Set

from outthink.engines.openai.body import THINKING
from outthink.engines.protocol import Call

_SLACK = 16  # tokens that servers need to end the thinking: its closing tag, a sentence before it


class Thinking:
    """The wishes of one engine's calls, and the worst excess."""

    __slots__ = ("_cap", "_effort", "_excess")

    def __init__(self) -> None:
        self._effort = False
        self._cap = False
        self._excess: tuple[int, int] | None = None

    def asked(self, call: Call) -> None:
        """A call is about to be sent."""
        self._effort = self._effort or call.sampling.reasoning_effort is not None
        self._cap = self._cap or call.sampling.thinking_tokens is not None

    def heard(self, call: Call, thought: int | None) -> None:
        """A call has ended after so many tokens of thinking, None if the server did not tell."""
        cap = call.sampling.thinking_tokens
        if cap is None or thought is None or thought <= cap + _SLACK:
            return
        if self._excess is None or thought - cap > self._excess[1] - self._excess[0]:
            self._excess = cap, thought

    def notes(self, url: str, refused: Set[str]) -> tuple[str, ...]:
        """What the server at this address refused or ignored, in words."""
        notes = []
        if self._effort and "reasoning_effort" in refused:
            notes.append(f"reasoning_effort is not accepted by {url}: the server's own default holds")
        if self._cap and (names := [name for name in THINKING if name in refused]):
            listed = ", ".join(names)
            notes.append(f"thinking_tokens: {url} does not accept {listed}; its own limit of thinking may hold")
        if self._excess is not None:
            cap, thought = self._excess
            notes.append(f"thinking_tokens: {url} ignores the cap: it thought for {thought} tokens instead of {cap}")
        return tuple(notes)
