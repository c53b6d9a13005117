"""Prompt styles, composable with every strategy, and requests under other words.

Knows: the wording of each style, which is part of the prompt and charged like any other prompt tokens, and where
the user's question stands in a chat. Does not know which strategy runs, or why it asks differently.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from outthink.core.request import Content, Message, Request


@dataclass(frozen=True, slots=True)
class Style:
    """An instruction added to the last user message, and text the reply is made to start with."""

    instruction: str
    opening: str | None
    source: str


STYLES: dict[str, Style] = {
    "chain-of-thought": Style(
        "Think step by step. Finish with a line of the form: The answer is X.", None, "Wei et al. 2201.11903"
    ),
    # The authors' prompts have no licence, hence our own words; the limit of words is a request there, too.
    "chain-of-draft": Style(
        "Think step by step, but write only a short draft of each step, five words at most. "
        "Give the final answer after ####.",
        None,
        "Chain of Draft 2502.18600 (own wording)",
    ),
    "no-thinking": Style(
        "Finish with a line of the form: The answer is X.",
        "I have finished thinking.\n\n",
        "NoThinking 2504.09858 (own wording)",
    ),
    "answer-only": Style("Give only the final answer, nothing else.", None, "direct answering baseline"),
}


def apply_style(name: str, request: Request) -> Request:
    """The request with the style's instruction; the prompt grows, and so does its charge.

    A style with an opening adds a partial assistant message, which engines continue.
    """
    style = STYLES[name]
    messages, at = list(request.messages), _last_user(request)
    if at is None:
        messages.append(Message("user", style.instruction))
    else:
        asked = messages[at]
        if isinstance(asked.content, str):
            content: Content = f"{asked.content}\n\n{style.instruction}"
        else:
            content = [*(asked.content or ()), {"type": "text", "text": style.instruction}]
        messages[at] = Message("user", content, asked.extra)
    return replace(request, messages=tuple(messages), opening=style.opening or request.opening, unstyled=request.asked)


# Requests made from a request: the same task under other words.


def _last_user(request: Request) -> int | None:
    """Where the last message of a user stands, None where no user speaks."""
    return max((at for at, message in enumerate(request.messages) if message.role == "user"), default=None)


def question(request: Request) -> str:
    """The text of the last user message, of the last message where no user speaks."""
    at = _last_user(request)
    return request.messages[-1 if at is None else at].text


def asking(request: Request, text: str) -> Request:
    """The request with the last user message's text replaced; what stands before it stays."""
    before = request.messages[: _last_user(request)]
    # This is another question: a verifier judges by it, not by the one that the user asked.
    return replace(request, messages=(*before, Message("user", text)), unstyled=None)
