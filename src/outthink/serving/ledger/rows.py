"""Records as rows. Knows how a record becomes JSON and text that both databases take; nothing of SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

from outthink.serving.encoding import decode, encode
from outthink.serving.protocols import RequestRecord

_BYTES = ("body", "content")
_NAMES = tuple(field.name for field in fields(RequestRecord) if field.name not in _BYTES)
_KNOWN = frozenset(_NAMES)
_values = attrgetter(*_NAMES)
_LONGEST = 2000
"""Characters of a name or an error in the columns that are searched; the JSON has them whole."""


def clean(text: str) -> str:
    """Text that any database takes: no NUL, no half of a surrogate pair."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")


def packed(record: RequestRecord) -> bytes:
    """A record as JSON, without the bytes of body and content."""
    return encode(dict(zip(_NAMES, _values(record), strict=True)))


def unpacked(value: Mapping[str, Any]) -> RequestRecord:
    """A record from its decoded JSON. Fields of other versions are left out."""
    return RequestRecord(**{name: item for name, item in value.items() if name in _KNOWN})


def loaded(text: str | bytes) -> Any:
    """A value from JSON of ours, which may hold what clients sent: halves of pairs, numbers beyond 64 bits."""
    try:
        return decode(text if isinstance(text, bytes) else text.encode())
    except ValueError:
        return json.loads(text)


def read(record: str | bytes) -> RequestRecord:
    """A record from its JSON."""
    return unpacked(loaded(record))


def row(record: RequestRecord, swept: int = 0) -> Sequence[Any]:
    """The columns of `requests`, in their order."""
    return (
        record.id,
        record.key_id,
        clean(record.model[:_LONGEST]),
        clean(record.strategy[:_LONGEST]),
        clean(record.stopped[:_LONGEST]),
        record.started,
        None if record.error is None else clean(record.error[:_LONGEST]),
        swept,
        packed(record).decode(),
    )


def text_of(content: bytes | None) -> str | None:
    """Stored content; bytes that are no UTF-8 are replaced."""
    return None if content is None else content.decode("utf-8", "replace").replace("\x00", "\ufffd")
