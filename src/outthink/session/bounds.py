"""How many tokens a prompt can have at most. Knows bytes and messages; does not know any tokeniser."""

from __future__ import annotations

import json

from outthink.engines.protocol import Call


def byte_bound(call: Call) -> int:
    """UTF-8 bytes + 16 a message + 64 (docs/contracts.md, Budgets): no common tokeniser needs more."""
    size = len((call.prefix or "").encode())
    for message in call.messages:
        text = message.content if isinstance(message.content, str) else json.dumps(message.content, default=str)
        extra = json.dumps(dict(message.extra), default=str) if message.extra else ""
        size += len(text.encode()) + len(extra.encode()) + 16
    return size + 64
