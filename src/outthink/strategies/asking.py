"""Requests made from a request: the same task under other words.

Knows: where the user's question stands in a chat. Does not know why anyone asks differently.
"""

from __future__ import annotations

from dataclasses import replace

from outthink.core.request import Message, Request


def question(request: Request) -> str:
    """The text of the last user message, of the last message where no user speaks."""
    users = [message for message in request.messages if message.role == "user"]
    return (users or list(request.messages))[-1].text


def asking(request: Request, text: str) -> Request:
    """The request with the last user message's text replaced; what stands before it stays."""
    places = [i for i, message in enumerate(request.messages) if message.role == "user"]
    before = request.messages[: places[-1]] if places else request.messages
    return replace(request, messages=(*before, Message("user", text)), unstyled=None)
