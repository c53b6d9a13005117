"""Which text of a request a reward model is shown as the question. Knows messages; does not know models."""

from __future__ import annotations

from outthink.core.request import Request


def question_of(request: Request) -> str:
    """What the user asked: the text of all user messages. System messages steer the solver, not the judge."""
    return "\n\n".join(message.text for message in request.asked if message.role == "user")
