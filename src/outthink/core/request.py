"""What the user wants: messages, the kind of answer, and a budget. Knows nothing of how it is met."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from outthink.core.budget import Budget
from outthink.core.errors import BadInput
from outthink.core.message import Message
from outthink.core.sampling import Sampling

AnswerKind = Literal["number", "math", "choice", "json", "text"]
ANSWER_KINDS: tuple[AnswerKind, ...] = ("number", "math", "choice", "json", "text")
AnswerReader = Callable[[str], str | None]
"""A user's own extraction: completion text -> canonical answer, or None if unreadable."""
_NO_PROMPT = "write a question or pipe one in"


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
        if not any(_says_something(message) for message in self.messages):
            raise BadInput("prompt", "", "is empty", _NO_PROMPT)
        if not callable(self.answer) and self.answer not in ANSWER_KINDS:
            raise BadInput("answer", self.answer, "is not a known kind", f"use one of {', '.join(ANSWER_KINDS)}")
        if self.min_tokens < 1:
            raise BadInput("min_tokens", self.min_tokens, "is below 1", "give at least 1")

    @classmethod
    def of(
        cls, prompt: str | Sequence[Message | Mapping[str, Any]], *, system: str | None = None, **fields: Any
    ) -> Request:
        """Build a request from a prompt text or OpenAI-style messages."""
        messages: tuple[Message, ...]
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


def _says_something(message: Message) -> bool:
    """Text that is not blank, or parts other than text (images, tool calls)."""
    content = message.content
    return bool(message.text.strip()) or (not isinstance(content, str) and bool(content))
