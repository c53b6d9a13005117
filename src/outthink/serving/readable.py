"""Whether a client could read what a backend has answered, and the error object where it could not.

Looks at both ends of a reply and at the beginning of a stream; what lies between is not decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from outthink.serving.backend_protocols import Whole
from outthink.serving.encoding import decode
from outthink.serving.failure import Failure

_EVENTS = (b"data", b"event", b"id", b"retry", b":", b"{")
_SPACE = b" \t\r\n"


def is_whole(headers: Mapping[str, str]) -> bool:
    """Whether a reply is none that comes in events, whatever was asked for."""
    return headers.get("content-type", "").startswith(("application/json", "text/html"))


def garbled(reply: Whole) -> bool:
    """Whether a reply that says that all is well is none."""
    content = reply.content
    if reply.status >= 400:
        return False
    if content[:64].lstrip(_SPACE)[:1] == b"{" and content[-64:].rstrip(_SPACE)[-1:] == b"}":
        return False
    return is_whole(reply.headers) or not content or not begins_events(content)  # some stream unasked


def unreadable(reply: Whole) -> Failure | None:
    """The error object instead of a whole reply that is none; None where the reply is one."""
    if garbled(reply):
        return Failure(502, "the backend answered something that is not JSON; try again", code="backend_error")
    status = reply.status
    if status < 400:
        return None
    try:
        told = decode(reply.content)
    except ValueError:
        told = None
    if isinstance(told, dict) and ("error" in told or "message" in told):
        return None
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "an error"
    return Failure(status, f"the backend answered {status} ({phrase}) and did not say why", code="backend_error")


def begins_events(piece: bytes) -> bool:
    """Whether a stream may begin so: its first piece, which may be cut anywhere."""
    start = piece[:64].lstrip(_SPACE)
    return any(start.startswith(word) or word.startswith(start) for word in _EVENTS)
