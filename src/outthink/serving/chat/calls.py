"""One call of a chat, and its choice kept as its backend has sent it.

Knows: how streamed pieces make one message, and which chunks may be read as one. A session sees texts; what a text
leaves out (tool calls, log-probabilities, reasons, unknown fields) is kept here. Does not know what is sent, which
backend answers, or the other calls of a request.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import groupby

from outthink.engines.protocol import Call
from outthink.http.fields import JsonDict

CALLS_MARK = "<tool_calls>"
"""Stands in a sample's text between its content and its tool calls."""
_MESSAGE_FIELDS = frozenset(
    {"role", "content", "tool_calls", "function_call", "refusal", "reasoning", "reasoning_content"}
)
_CHOICE_FIELDS = frozenset({"index", "delta", "message", "finish_reason", "logprobs", "text"})


class RawChoice:
    """The choice of one call, piece by piece, with every field that its backend has sent."""

    __slots__ = ("calls", "extra", "finish", "function", "logprobs", "more", "reasoning", "refusal", "text")

    def __init__(self) -> None:
        self.text = ""
        self.calls: dict[int, JsonDict] = {}
        self.function: JsonDict | None = None
        self.refusal = self.reasoning = ""
        self.logprobs: list[JsonDict] = []
        self.finish: str | None = None
        self.extra: JsonDict = {}
        """Unknown fields of the message."""
        self.more: JsonDict = {}
        """Unknown fields of the choice."""

    def add(self, chunk: JsonDict) -> None:
        """Add a chunk of the reply."""
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        piece = choice.get("delta")
        if not isinstance(piece, dict):
            piece = choice.get("message")
        if isinstance(piece, dict):
            self._add_message(piece)
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict) and isinstance(entries := logprobs.get("content"), list):
            self.logprobs += entries
        if isinstance(reason := choice.get("finish_reason"), str):
            self.finish = reason
        for name, value in choice.items():
            if name not in _CHOICE_FIELDS and value is not None:
                self.more[name] = value

    def _add_message(self, piece: JsonDict) -> None:
        for position, call in enumerate(piece.get("tool_calls") or ()):
            if isinstance(call, dict):
                index = call.get("index")
                self._add_call(index if isinstance(index, int) else position, call)
        if isinstance(function := piece.get("function_call"), dict):
            self.function = _continued(self.function or {}, function)
        self.refusal += piece.get("refusal") or ""
        self.reasoning += piece.get("reasoning_content") or piece.get("reasoning") or ""
        for name, value in piece.items():
            if name not in _MESSAGE_FIELDS and value is not None:
                self.extra[name] = value

    def _add_call(self, index: int, piece: JsonDict) -> None:
        call = self.calls.setdefault(index, {})
        for name, value in piece.items():
            if name != "index" and value is not None:
                call[name] = _continued(call.get(name) or {}, value) if isinstance(value, dict) else value

    @property
    def tool_calls(self) -> list[JsonDict]:
        """The calls in the order of their indices."""
        return [{"type": "function", **self.calls[index]} for index in sorted(self.calls)]

    @property
    def tail(self) -> str:
        """What the sample's text gets behind its content, so that calls are part of what is compared."""
        calls = [call.get("function") or call.get("custom") for call in self.tool_calls]
        if self.function:
            calls.append(self.function)
        return CALLS_MARK + json.dumps(calls, sort_keys=True) if calls else ""

    def message(self, content: str) -> JsonDict:
        """The message as one object, in OpenAI's layout."""
        called = bool(self.calls or self.function)
        message: JsonDict = {"role": "assistant", "content": content or (None if called else "")}
        message["refusal"] = self.refusal or None
        if self.refusal and content == self.refusal:
            message["content"] = None  # the engine reads a refusal as text
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = self.tool_calls
        if self.function:
            message["function_call"] = self.function
        return {**message, **self.extra}


def _continued(known: JsonDict, piece: JsonDict) -> JsonDict:
    """Texts are continued, except names, which servers may repeat; other values replace."""
    joined = dict(known)
    for name, value in piece.items():
        if isinstance(value, str) and isinstance(before := joined.get(name), str):
            joined[name] = before if name == "name" and value == before else before + value
        elif value is not None:
            joined[name] = value
    return joined


# Chunks that came together are read as fewer chunks where nobody looks at them one by one: reading each of them
# is most of what a fast backend's stream costs us. Only runs of plain text are joined.

_PLAIN = frozenset({"index", "delta", "finish_reason", "logprobs"})
_BESIDE = ("usage", "timings", "error")


def join_text(chunks: list[JsonDict]) -> tuple[list[JsonDict], int]:
    """The chunks, runs of plain text made one, and how many held text before."""
    if len(chunks) < 2:
        return chunks, len(chunks)
    joined: list[JsonDict] = []
    count = 0
    for logprobs, run in groupby(chunks, _plain_logprobs):
        if logprobs is None:
            joined += run
        else:
            plain = list(run)
            joined.append(_joined(plain))
            count += len(plain)
    return joined, count


def _plain_logprobs(chunk: JsonDict) -> bool | None:
    """Whether a chunk of plain text has log-probabilities, None for any other chunk.

    Tokens with and without them are counted differently, so they are not to be mixed.
    """
    choice = _plain_choice(chunk)
    if choice is None:
        return None
    logprobs = choice.get("logprobs")
    return logprobs is not None and bool(logprobs["content"])


def _plain_choice(chunk: JsonDict) -> JsonDict | None:
    """The choice of a chunk that holds text and nothing that could matter besides."""
    choices = chunk.get("choices")
    if type(choices) is not list or len(choices) != 1:
        return None
    choice = choices[0]
    if type(choice) is not dict or choice.get("finish_reason") is not None or not choice.keys() <= _PLAIN:
        return None
    delta = choice.get("delta")
    if type(delta) is not dict or len(delta) != 1 or type(delta.get("content")) is not str or not delta["content"]:
        return None
    logprobs = choice.get("logprobs")
    if logprobs is not None and (type(logprobs) is not dict or type(logprobs.get("content")) is not list):
        return None
    for name in _BESIDE:
        if chunk.get(name) is not None:
            return None
    return choice if choice.get("index") in (0, None) else None


def _joined(plain: list[JsonDict]) -> JsonDict:
    """The last chunk with the text of all."""
    choices = [chunk["choices"][0] for chunk in plain]
    last = choices[-1]
    logprobs = last.get("logprobs")
    if logprobs is not None and logprobs["content"]:
        logprobs = {**logprobs, "content": [entry for choice in choices for entry in choice["logprobs"]["content"]]}
    text = "".join([choice["delta"]["content"] for choice in choices])
    return {**plain[-1], "choices": [{**last, "delta": {"content": text}, "logprobs": logprobs}]}


@dataclass(slots=True)
class ChatCall(Call):
    """A call, the choice that it brings, and how many completions it asks for."""

    choice: RawChoice = field(default_factory=RawChoice)
    choices: int = 1

    @classmethod
    def of(cls, call: Call) -> ChatCall:
        """A call of a session, with an empty choice."""
        return cls(
            call.messages,
            call.sampling,
            call.seed,
            call.index,
            call.prefix,
            call.top_logprobs,
            call.problem,
            call.alternatives,
        )
