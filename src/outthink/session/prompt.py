"""What a session remembers of one prompt. Knows its token count once told, and the next sample number."""

from __future__ import annotations

from outthink.core.request import Request


class Prompt:
    """State of one prompt (messages, prefix, greedy or not) within a session.

    `next` numbers its samples: seeds and recorded samples never repeat. `tokens` is the real
    prompt count after the first answer, None before.
    """

    __slots__ = ("next", "request", "tokens")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.next = 0
        self.tokens: int | None = None
