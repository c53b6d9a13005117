"""What the user wants: messages, the kind of answer, how tokens are drawn, and a budget in four currencies.

Knows names, ranges and how each is read from text. Does not know any server's wire quirks or which knobs it has, what
anything costs, or how the request is met.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict, Unpack

from outthink.core.errors import BadInput
from outthink.core.plugins import load

Fields = Mapping[str, Any]
"""Decoded JSON of a chat, in OpenAI's form."""
Content = str | Sequence[Fields] | None


@dataclass(frozen=True, slots=True)
class Message:
    """A chat message; `extra` carries tool calls and unknown fields through untouched."""

    role: str
    content: Content
    extra: Fields = field(default_factory=dict)

    @classmethod
    def of(cls, value: Message | Fields, where: str = "messages") -> Message:
        """Read an OpenAI-style mapping; BadInput, told of `where`, if it has no role or other content."""
        if isinstance(value, Message):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
            raise BadInput(where, value, "has no role", "use {'role': 'user', 'content': '...'}")
        content = value.get("content")
        text = content is None or isinstance(content, str)
        if not text and not (isinstance(content, Sequence) and all(isinstance(part, Mapping) for part in content)):
            raise BadInput(f"{where}.content", content, "is neither text nor parts", "send text")
        rest = {key: item for key, item in value.items() if key not in ("role", "content")}
        return cls(value["role"], content, rest)

    def wire(self) -> dict[str, Any]:
        """The mapping an OpenAI-compatible server expects."""
        return {"role": self.role, "content": self.content, **self.extra}

    @property
    def text(self) -> str:
        """The textual parts of the content, joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(str(part.get("text", "")) for part in self.content or ())


def need_amount(field: str, value: float, problem: str, remedy: str, *, zero: bool = True) -> None:
    """Raise BadInput for what is no finite number of 0 or more; `zero` False: above 0. A truth value is none."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (value == 0 and not zero):
        raise BadInput(field, value, problem, remedy)


def chat_bound(messages: Sequence[Message]) -> int:
    """UTF-8 bytes + 16 a message + 64 (docs/contracts.md, Budgets): no common tokeniser needs more tokens."""
    size = 64
    for message in messages:
        text = message.content if isinstance(message.content, str) else json.dumps(message.content, default=str)
        extra = json.dumps(dict(message.extra), default=str) if message.extra else ""
        size += len(text.encode()) + len(extra.encode()) + 16
    return size


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling parameters of one call; top_k 0 and min_p 0 switch those filters off.

    max_tokens caps one completion (reasoning included), the budget may lower it further.
    thinking_tokens caps the reasoning alone and reasoning_effort (low, medium, high, or what a server
    calls it) asks for more or less of it, on servers that have them; None leaves both to the server.
    """

    # These four are sent explicitly (docs/contracts.md, ask): left out, each server would use its own.
    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    thinking_tokens: int | None = None
    reasoning_effort: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise BadInput("temperature", self.temperature, "is no temperature", "use 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise BadInput("top_p", self.top_p, "is outside (0, 1]", "use 1 to switch it off")
        if self.top_k < 0 or not 0 <= self.min_p <= 1:
            raise BadInput("top_k/min_p", (self.top_k, self.min_p), "is out of range", "use 0 to switch them off")
        if self.max_tokens < 1:
            raise BadInput("max_tokens", self.max_tokens, "is below 1", "give at least 1")
        if self.thinking_tokens is not None and self.thinking_tokens < 0:
            raise BadInput("thinking_tokens", self.thinking_tokens, "is below 0", "give 0 for no thinking")
        if self.reasoning_effort is not None and not self.reasoning_effort.strip():
            raise BadInput("reasoning_effort", self.reasoning_effort, "is empty", "use low, medium or high")

    @property
    def greedy(self) -> Sampling:
        """The same limits at temperature 0."""
        return replace(self, temperature=0.0)


Currency = Literal["tokens", "seconds", "usd", "joules"]
CURRENCIES: tuple[Currency, ...] = ("tokens", "seconds", "usd", "joules")
_ALIASES = {"dollars": "usd"}
_REMEDY = f"use any of {', '.join(CURRENCIES)}, for example tokens=4000,seconds=20"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Ceilings for a whole request; None leaves a currency unlimited.

    tokens count prompt + completion + cancelled; seconds are wall-clock from the start of the
    request; usd and joules need an engine that can account for them.
    """

    tokens: int | None = None
    seconds: float | None = None
    usd: float | None = None
    joules: float | None = None

    def __post_init__(self) -> None:
        for name, value in self._ceilings().items():
            if value is None:
                continue
            remedy = "give more than 0 or leave it out"
            need_amount(f"budget {name}", value, "is not a positive number", remedy, zero=False)
            if name == "tokens":
                if value != int(value):
                    raise BadInput("budget tokens", value, "is not a whole number", "round it")
                object.__setattr__(self, name, int(value))  # read as a float: 4e3 is 4000; the class is frozen

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `tokens=4000,seconds=20`; BadInput names an unknown currency or a bad number."""
        values: dict[str, float] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            name, sign, number = part.partition("=")
            name = _ALIASES.get(name.strip(), name.strip())
            if not sign or name not in CURRENCIES:
                raise BadInput("budget", part, "names no known currency", _REMEDY)
            if name in values:
                raise BadInput("budget", part, "names a currency twice", "give each one once")
            try:
                values[name] = float(number)
            except ValueError:
                raise BadInput(f"budget {name}", number, "is not a number", _REMEDY) from None
        if not values:
            raise BadInput("budget", text, "is empty", _REMEDY)
        return cls(**values)  # type: ignore[arg-type]

    @classmethod
    def of(cls, value: Budget | str | Mapping[str, float] | None) -> Budget:
        """A budget, a text as `parse` reads it, or ceilings by currency; no ceiling for None."""
        if value is None or isinstance(value, Budget):
            return value or cls()
        if isinstance(value, str):
            return cls.parse(value)
        if not isinstance(value, Mapping):
            raise BadInput("budget", value, "is no budget", _REMEDY)
        ceilings = {_ALIASES.get(name, name): ceiling for name, ceiling in value.items()}
        for name in ceilings:
            if name not in CURRENCIES:
                raise BadInput("budget", name, "names no known currency", _REMEDY)
        return cls(**ceilings)  # type: ignore[arg-type]

    def get(self, currency: Currency) -> float | None:
        """The ceiling in one currency, None if there is none."""
        return self._ceilings()[currency]

    @property
    def limited(self) -> tuple[Currency, ...]:
        """The currencies that have a ceiling."""
        if self.tokens is None and self.seconds is None and self.usd is None and self.joules is None:
            return ()  # most have none, and every request asks
        return tuple(name for name, value in self._ceilings().items() if value is not None)

    def _ceilings(self) -> dict[Currency, float | None]:
        return {"tokens": self.tokens, "seconds": self.seconds, "usd": self.usd, "joules": self.joules}


AnswerKind = Literal["number", "math", "choice", "json", "text"]
ANSWER_KINDS: tuple[AnswerKind, ...] = ("number", "math", "choice", "json", "text")
AnswerReader = Callable[[str], str | None]
"""A user's own extraction: completion text -> canonical answer, or None if unreadable."""


def answer_named(answer: AnswerKind | AnswerReader | str) -> AnswerKind | AnswerReader:
    """A kind of answer or a reader as it is; a plugin's name as its reader. BadInput for a name that nobody knows."""
    if callable(answer) or answer in ANSWER_KINDS:
        return answer
    reader = load("answers", answer) if isinstance(answer, str) else None
    if reader is None:
        raise BadInput("answer", answer, "is not a known kind", f"use one of {', '.join(ANSWER_KINDS)}")
    return reader


_NO_PROMPT = "write a question or pipe one in"


class RequestFields(TypedDict, total=False):
    """The fields of a request beside its messages."""

    answer: AnswerKind | AnswerReader
    budget: Budget
    sampling: Sampling
    seed: int | None
    problem: str | None
    min_tokens: int
    opening: str | None
    unstyled: tuple[Message, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question.

    Args:
        messages: the chat, passed to the engine untouched.
        answer: kind of answer, or a function from completion text to canonical answer.
        budget: ceilings for the whole request.
        sampling: parameters of every call, unless the strategy changes them.
        seed: sample i is drawn with seed + i; None leaves the engine its own randomness.
        problem: identifier that recorded samples are looked up by; unused live.
        min_tokens: no call is admitted with a smaller cap than this (or the sampling cap, if lower).
        opening: text every completion is made to start with (the engine continues it).
        unstyled: the messages without a prompt style's instruction, None where they have none.
    """

    messages: tuple[Message, ...]
    answer: AnswerKind | AnswerReader = "text"
    budget: Budget = field(default_factory=Budget)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None
    problem: str | None = None
    min_tokens: int = 64
    opening: str | None = None
    unstyled: tuple[Message, ...] | None = None

    def __post_init__(self) -> None:
        # Parts other than text (images, tool calls) say something, too.
        if not any(m.text.strip() or (m.content and not isinstance(m.content, str)) for m in self.messages):
            raise BadInput("prompt", "", "is empty", _NO_PROMPT)
        object.__setattr__(self, "answer", answer_named(self.answer))
        if self.min_tokens < 1:
            raise BadInput("min_tokens", self.min_tokens, "is below 1", "give at least 1")

    @classmethod
    def of(
        cls, prompt: str | Sequence[Message | Fields], *, system: str | None = None, **fields: Unpack[RequestFields]
    ) -> Request:
        """Build a request from a prompt text or OpenAI-style messages."""
        messages: tuple[Message, ...]
        if isinstance(prompt, bytes) or not isinstance(prompt, Sequence):
            raise BadInput("prompt", prompt, "is neither text nor messages", _NO_PROMPT)
        if isinstance(prompt, str):
            if not prompt.strip():  # a system message does not make up for it
                raise BadInput("prompt", prompt, "is empty", _NO_PROMPT)
            messages = (Message("user", prompt),)
        else:
            messages = tuple(Message.of(message) for message in prompt)
        if system is not None:
            messages = (Message("system", system), *messages)
        return cls(messages=messages, **fields)

    @property
    def asked(self) -> tuple[Message, ...]:
        """What a verifier judges a candidate against: how to write it is the solver's business."""
        return self.unstyled or self.messages

    @property
    def greedy(self) -> Request:
        """The same request at temperature 0."""
        return replace(self, sampling=self.sampling.greedy)
