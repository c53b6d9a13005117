"""One call of a chat, and its choice kept as its backend has sent it.

Knows: how streamed pieces make one message, and which chunks may be read as one. A session sees texts; what a text
leaves out (tool calls, log-probabilities, reasons, unknown fields) is kept here. Does not know what is sent, which
backend answers, or the other calls of a request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import NoneType

from outthink.core.errors import EngineError
from outthink.core.text import writable
from outthink.engines.openai.reading import THOUGHT, CompletionParser, first_choice, read_reason, read_said
from outthink.engines.protocol import Call, Delta
from outthink.http.events import Json
from outthink.http.fields import JsonDict
from outthink.http.pieces import is_deep, is_empty, merge, placed, streamable, whole
from outthink.serving.chat.tools import ToolCalls

CALLS_MARK = "<tool_calls>"
"""Stands in a sample's text between its content and its tool calls."""
_READ: dict[str, type | tuple[type, ...]] = {
    "role": (str, int, float, list, dict, NoneType),
    "content": (str, int, float, list, dict, NoneType),
    "tool_calls": (list, dict, NoneType),
    "function_call": (dict, NoneType),
    "refusal": (str, NoneType),
    "reasoning_content": (str, NoneType),
}
"""Fields of a message that are read, if they are of these types."""
_TEXT = frozenset({str, NoneType})
_SPOKEN = frozenset({"role", "content", "refusal", "reasoning_content"})
_CHOICE_FIELDS = frozenset({"index", "delta", "message", "finish_reason", "logprobs", "text"})
_CHUNK_FIELDS = frozenset({"id", "object", "created", "model", "choices", "usage", "timings", "error", "outthink"})
_CHUNK_FIELDS |= {"obfuscation"}  # of varying length in each chunk
_NOTHING = ("", "")
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")
_MARK = re.compile(
    r"[<\[](?=/?\|?(?:\w{1,16}[:_])?(?:think|thought|reasoning|tool_calls|channel|unused))", re.IGNORECASE
)


class RawChoice:
    """The choice of one call, piece by piece, with every field that its backend has sent."""

    __slots__ = (
        "_held",
        "_thoughts",
        "beside",
        "calls",
        "details",
        "extra",
        "finish",
        "function",
        "logprobs",
        "more",
        "refusal",
        "refused",
        "said",
        "size",
        "text",
    )

    def __init__(self) -> None:
        self.text = ""
        self.size = 0
        """Bytes of the reply that it came with, once that has ended."""
        self.said = _NOTHING
        """Text and thinking of the chunk that came last."""
        self.calls = ToolCalls()
        self.function: JsonDict = {}
        self.refusal = ""
        self._thoughts: list[str] = []
        self.logprobs: list[Json] = []
        self.refused: list[Json] = []
        """Log-probabilities of the refusal."""
        self.finish: str | None = None
        self.extra: JsonDict = {}
        """Unknown fields of the message."""
        self._held: set[str] = set()
        """Those of them that a client could not put together from pieces."""
        self.more: JsonDict = {}
        """Unknown fields of the choice."""
        self.beside: JsonDict = {}
        """Unknown fields of the reply."""
        self.details: JsonDict = {}
        """What the usage says of its counts beyond their sums."""

    def add(self, chunk: JsonDict) -> JsonDict:
        """Add a chunk of the reply; returns what is new in the message, as a delta that clients can put together."""
        self.said = _NOTHING
        if isinstance(usage := chunk.get("usage"), dict):
            self.add_usage(usage)
        if not _CHUNK_FIELDS.issuperset(chunk):
            self.add_beside(chunk)
        choice = first_choice(chunk.get("choices"))
        if choice is None:
            return {}
        if isinstance(logprobs := choice.get("logprobs"), dict):
            for name, known in (("content", self.logprobs), ("refusal", self.refused)):
                if isinstance(entries := logprobs.get(name), list):
                    known += entries
        if isinstance(reason := read_reason(choice), str):
            self.finish = reason
        if not _CHOICE_FIELDS.issuperset(choice):
            more: JsonDict = {
                name: value for name, value in choice.items() if name not in _CHOICE_FIELDS and value is not None
            }
            if is_deep(more):
                raise EngineError("the backend sent a choice that is nested too deeply", fatal=True)
            merge(self.more, more)
        piece = choice.get("delta")
        if not isinstance(piece, dict):
            piece = choice.get("message")
        if not isinstance(piece, dict) or not piece:
            return {}
        if len(piece) == 1 and type(content := piece.get("content")) is str:  # most pieces of a stream
            self.said = (content, "")
            return piece if content else {}
        return self._add_message(piece)

    def add_usage(self, usage: JsonDict) -> None:
        """Heed what a usage tells beyond the counts that everybody reads; it holds all so far."""
        self.details |= {name: usage[name] for name in _DETAILS if isinstance(usage.get(name), dict)}

    def add_beside(self, chunk: JsonDict) -> None:
        """Heed what a chunk tells of the reply itself; each chunk tells all that is known by then, as of the usage."""
        for name, value in chunk.items():
            if name in _CHUNK_FIELDS or is_empty(value):
                continue
            if is_deep(value):
                raise EngineError("the backend sent a reply that is nested too deeply", fatal=True)
            before = self.beside.get(name)
            self.beside[name] = {**before, **value} if isinstance(value, dict) and isinstance(before, dict) else value

    def _add_message(self, piece: JsonDict) -> JsonDict:
        if len(piece) == 1 and (more := self.calls.continued(piece.get("tool_calls"))) is not None:
            return {"tool_calls": [more]}
        # What is nothing but text is most of the rest.
        plain = _SPOKEN.issuperset(piece) and _TEXT.issuperset(map(type, piece.values()))
        if not plain and is_deep(piece):
            raise EngineError("the backend sent a message that is nested too deeply", fatal=True)
        content, thought, refusal, others = _texts(piece) if plain else read_said(piece)
        self.said = (content or refusal, thought)
        delta: JsonDict = {}
        if content:
            delta["content"] = content
        if thought:
            self._thoughts.append(thought)
            delta["reasoning_content"] = thought
        if refusal:
            self.refusal += refusal
            delta["refusal"] = refusal
        if plain:
            return delta
        calls = piece.get("tool_calls")
        if isinstance(calls, list | dict) and (new := self.calls.add(calls if isinstance(calls, list) else [calls])):
            delta["tool_calls"] = new
        function = piece.get("function_call")
        if isinstance(function, dict) and function:
            if not self.function:  # official clients fail where a function has no arguments
                function = {**function, "arguments": function.get("arguments") or ""}
            delta |= {"function_call": added} if (added := merge(self.function, function)) else {}
        unknown = {name: value for name, value in piece.items() if not isinstance(value, _READ.get(name, NoneType))}
        if others:
            unknown["content_parts"] = others
        return delta | self._add_unknown(unknown) if unknown else delta

    def _add_unknown(self, fields: JsonDict) -> JsonDict:
        for name, value in fields.items():
            if is_empty(self.extra.get(name)):
                # Official clients add numbers up, which servers tell anew.
                held = is_empty(value) or isinstance(value, int | float) or not streamable(value)
                (self._held.add if held else self._held.discard)(name)
        return {name: value for name, value in merge(self.extra, fields).items() if name not in self._held}

    def forget(self) -> None:
        """Let go of everything but the text."""
        self.calls, self.logprobs, self.refused = ToolCalls(), [], []
        self.function, self.extra, self.more, self.beside = {}, {}, {}, {}

    def rest(self) -> JsonDict:
        """What `add` has not told, because clients could not have put it together."""
        calls = self.calls.rest()
        return {
            **({"tool_calls": calls} if calls else {}),
            **{name: placed(whole(self.extra[name])) for name in self._held},
        }

    @property
    def tail(self) -> str:
        """What the sample's text gets behind its content, so that calls are part of what is compared."""
        if not self.calls and not self.function:
            return ""
        calls = [call.get("function") or call.get("custom") or _hosted(call) for call in self.calls.messages()]
        if self.function:
            calls.append(whole(self.function))
        # No mark that arguments hold, of thinking or of calls, is one here.
        text = json.dumps(calls, sort_keys=True)
        return CALLS_MARK + _MARK.sub(lambda mark: f"\\u{ord(mark[0]):04x}", text)

    def message(self, content: str) -> JsonDict:
        """The message as one object, in OpenAI's layout."""
        refusal = writable(self.refusal)
        if refusal and content.endswith(refusal):
            content = content[: -len(refusal)]  # the engine reads a refusal as text
        silent = self.calls or self.function or refusal
        message: JsonDict = {"role": "assistant", "content": content or (None if silent else "")}
        message["refusal"] = refusal or None
        if self._thoughts:
            message["reasoning_content"] = writable("".join(self._thoughts))
        if self.calls:
            message["tool_calls"] = self.calls.messages()
        if self.function:
            message["function_call"] = whole(self.function)
        return message | {
            name: whole(value) for name, value in self.extra.items() if not message.get(name) or name in THOUGHT
        }


def _texts(piece: JsonDict) -> tuple[str, str, str, list[Json]]:
    return piece.get("content") or "", piece.get("reasoning_content") or "", piece.get("refusal") or "", []


def _hosted(call: JsonDict) -> JsonDict:
    """A call of a tool that is no function of the client's."""
    return {"name": call["type"], "arguments": call.get(str(call["type"])) or {}}


# Chunks that came together are read as fewer chunks where nobody looks at them one by one: reading each of them
# is most of what a fast backend's stream costs us. Only runs of plain text are joined.

_PLAIN = frozenset({"index", "delta", "finish_reason", "logprobs"})
_PLAIN_CHUNK = _CHUNK_FIELDS | {"system_fingerprint", "service_tier", "provider"}
_BESIDE = ("usage", "timings", "error")
_TEXT_ALONE = _PLAIN_CHUNK.difference(_BESIDE)


def join_text(chunks: list[JsonDict]) -> tuple[list[JsonDict], int]:
    """The chunks, runs of plain text made one, and how many held text before."""
    if len(chunks) < 2:
        return chunks, len(chunks)
    joined: list[JsonDict] = []
    texts: list[str] = []
    entries: list[Json] = []
    last: JsonDict | None = None
    count = 0
    for chunk in chunks:
        choice = _plain_choice(chunk)
        logprobs = None if choice is None else choice.get("logprobs")
        # Tokens with and without log-probabilities are counted differently, so they are not to be mixed.
        told = [] if logprobs is None else logprobs["content"]
        if last is not None and (choice is None or bool(told) != bool(entries)):
            joined.append(_joined(last, texts, entries))
            texts, entries, last = [], [], None
        if choice is None:
            joined.append(chunk)
            continue
        texts.append(choice["delta"]["content"])
        entries += told
        last, count = chunk, count + 1
    if last is not None:
        joined.append(_joined(last, texts, entries))
    return joined, count


def _plain_choice(chunk: JsonDict) -> JsonDict | None:
    """The choice of a chunk of text, None for one that holds anything else that could matter."""
    choices = chunk.get("choices")
    if type(choices) is not list or len(choices) != 1:
        return None
    choice = choices[0]
    if type(choice) is not dict or not _PLAIN.issuperset(choice) or choice.get("finish_reason") is not None:
        return None
    delta = choice.get("delta")
    if type(delta) is not dict or len(delta) != 1 or type(delta.get("content")) is not str or not delta["content"]:
        return None
    if choice.get("index") not in (0, None):
        return None
    if not _TEXT_ALONE.issuperset(chunk) and (
        not _PLAIN_CHUNK.issuperset(chunk) or any(chunk.get(name) is not None for name in _BESIDE)
    ):
        return None
    logprobs = choice.get("logprobs")
    if logprobs is not None and (
        type(logprobs) is not dict or type(logprobs.get("content")) is not list or logprobs.get("refusal")
    ):
        return None
    return choice


def _joined(chunk: JsonDict, texts: list[str], entries: list[Json]) -> JsonDict:
    """The last chunk of a run with the text of all."""
    choice = chunk["choices"][0]
    logprobs = {**choice["logprobs"], "content": entries} if entries else choice.get("logprobs")
    return {**chunk, "choices": [{**choice, "delta": {"content": "".join(texts)}, "logprobs": logprobs}]}


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


OnChunk = Callable[[RawChoice, Call, JsonDict], None]
"""Gets the choice, its call, and what a chunk has just added to its message."""


class ChatReader(CompletionParser):
    """Reads a completion, and keeps what was read."""

    def __init__(self, call: ChatCall, repeats: bool | None, on_chunk: OnChunk | None) -> None:
        super().__init__(call, repeats=repeats)
        self._call, self._on_chunk = call, on_chunk

    def take(self, chunk: JsonDict) -> Delta | None:
        """What a chunk adds."""
        choice = self._call.choice
        added = choice.add(chunk)
        if self._on_chunk is not None:
            self._on_chunk(choice, self._call, added)
        return super().take(chunk)

    def content(self, piece: JsonDict) -> tuple[str, str]:
        """Text and thinking of a piece, which has been read already."""
        return self._call.choice.said
