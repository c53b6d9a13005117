"""One sample as its backend sent it: tool calls, log-probabilities, reasons and unknown fields.

Knows: how streamed pieces of a choice make one message. A session sees texts; what a text leaves out
is kept here, and found again by that text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MARK = "<tool_calls>"
"""Stands in a sample's text between its content and its calls."""
_KNOWN = frozenset({"role", "content", "tool_calls", "function_call", "refusal", "reasoning", "reasoning_content"})
_CHOICE = frozenset({"index", "delta", "message", "finish_reason", "logprobs", "text"})


class Gathered:
    """The choice of one call, piece by piece."""

    __slots__ = ("calls", "extra", "finish", "function", "logprobs", "more", "reasoning", "refusal", "text", "times")

    def __init__(self) -> None:
        self.text = ""
        self.calls: dict[int, dict[str, Any]] = {}
        self.function: dict[str, Any] | None = None
        self.refusal = self.reasoning = ""
        self.logprobs: list[Any] = []
        self.finish: str | None = None
        self.extra: dict[str, Any] = {}
        """Unknown fields of the message."""
        self.more: dict[str, Any] = {}
        """Unknown fields of the choice."""
        self.times = 0

    def take(self, chunk: Mapping[str, Any]) -> None:
        """Add a chunk of the reply."""
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        piece = choice.get("delta")
        if not isinstance(piece, dict):
            piece = choice.get("message")
        if isinstance(piece, dict):
            self._message(piece)
        told = choice.get("logprobs")
        if isinstance(told, dict) and isinstance(entries := told.get("content"), list):
            self.logprobs += entries
        if isinstance(reason := choice.get("finish_reason"), str):
            self.finish = reason
        for name, value in choice.items():
            if name not in _CHOICE and value is not None:
                self.more[name] = value

    def _message(self, piece: dict[str, Any]) -> None:
        for at, call in enumerate(piece.get("tool_calls") or ()):
            if isinstance(call, dict):
                place = call.get("index")
                self._call(place if isinstance(place, int) else at, call)
        if isinstance(function := piece.get("function_call"), dict):
            self.function = _merged(self.function or {}, function)
        self.refusal += piece.get("refusal") or ""
        self.reasoning += piece.get("reasoning_content") or piece.get("reasoning") or ""
        for name, value in piece.items():
            if name not in _KNOWN and value is not None:
                self.extra[name] = value

    def _call(self, place: int, piece: dict[str, Any]) -> None:
        known = self.calls.setdefault(place, {})
        for name, value in piece.items():
            if name == "index" or value is None:
                continue
            known[name] = _merged(known.get(name) or {}, value) if isinstance(value, dict) else value

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The calls in the order of their indices, a legacy `function_call` included."""
        calls = [{"type": "function", **self.calls[place]} for place in sorted(self.calls)]
        return calls + ([{"type": "function", "function": self.function}] if self.function else [])

    @property
    def tail(self) -> str:
        """What the sample's text gets behind its content, so that calls are part of what is compared."""
        calls = [call.get("function") or call.get("custom") for call in self.tool_calls]
        return MARK + json.dumps(calls, sort_keys=True) if calls else ""

    def message(self, content: str, *, thoughts: bool = True) -> dict[str, Any]:
        """The message as one object, in OpenAI's layout."""
        made: dict[str, Any] = {"role": "assistant", "content": content or (None if self.tool_calls else "")}
        made["refusal"] = self.refusal or None
        if self.refusal and content == self.refusal:
            made["content"] = None  # the engine reads a refusal as text
        if self.reasoning and thoughts:
            made["reasoning_content"] = self.reasoning
        if self.calls:
            made["tool_calls"] = [{"type": "function", **self.calls[place]} for place in sorted(self.calls)]
        if self.function:
            made["function_call"] = self.function
        return {**made, **self.extra}


def _merged(known: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
    """Texts are continued, except names, which servers may repeat; other values replace."""
    merged = dict(known)
    for name, value in piece.items():
        if isinstance(value, str) and isinstance(before := merged.get(name), str):
            merged[name] = before if name == "name" and value == before else before + value
        elif value is not None:
            merged[name] = value
    return merged
