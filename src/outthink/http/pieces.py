"""Objects of JSON that come in pieces, as servers stream them, put together though nobody knows their fields.

Knows: that texts are joined, lists appended and objects merged, what servers say again in every piece, and which pieces
the official clients can put together. Does not know what any field means.
"""

from __future__ import annotations

from outthink.http.events import Json
from outthink.http.fields import JsonDict

_LABELS = frozenset({"id", "name", "format", "model", "provider"})
_STATES = frozenset({"index", "object", "role", "status", "severity", "finish_reason", "native_finish_reason"})
_STATES |= {"stop_reason", "done_reason", "matched_stop"}


class Joined(list[str]):
    """A text that is still coming; joining it at every piece would take quadratic time."""


def is_empty(value: Json) -> bool:
    """Whether a value says nothing: in a continuation it changes nothing."""
    return value is None or value == "" or value == [] or value == {}


def whole(value: Json) -> Json:
    """A value that `merge` has put together, its texts joined."""
    if type(value) is Joined:
        return "".join(value)
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    return [whole(inner) for inner in value] if isinstance(value, list) else value


def merge(known: JsonDict, piece: JsonDict) -> JsonDict:
    """Add a piece of an object to what is known of it; returns what is new in it."""
    new: JsonDict = {}
    for name, value in piece.items():
        before = known.get(name)
        if is_empty(before):
            if name in known and is_empty(value):
                continue
            known[name] = new[name] = value
            if isinstance(value, list):
                known[name] = []
                new[name] = _append(known[name], value)
        elif is_empty(value):
            continue
        elif isinstance(value, str) and isinstance(before, str | Joined):
            if (text := _continued(known, name, before, value)) is not None:
                new[name] = text
        elif isinstance(value, dict) and isinstance(before, dict):
            if inner := merge(before, value):
                new[name] = inner
        elif isinstance(value, list) and type(before) is list:
            new[name] = _append(before, value)
        elif value != before:
            known[name] = new[name] = value
    return new


def _continued(known: JsonDict, name: str, before: str | Joined, text: str) -> str | None:
    if type(before) is Joined:
        before.append(text)
        return text
    state = name in _STATES or name.endswith("type")
    if (state or name in _LABELS or name.endswith(("_id", "_name", "_format"))) and text == before:
        return None  # servers say it again in every piece
    if state:
        known[name] = text
        return text
    known[name] = Joined([str(before), text])
    return text


_LOOKED_AT, _ALIKE = 256, 16
"""Elements from the end of a list among which a piece finds the one that it continues, and those of its index."""


def _append(known: list[Json], pieces: list[Json]) -> list[Json]:
    """Elements with equal index are one, unless their types or ids differ; the new ones have their place as index."""
    new: list[Json] = []
    near: dict[int, list[tuple[int, JsonDict]]] = {}
    for place in range(max(0, len(known) - _LOOKED_AT), len(known)):
        element = known[place]
        if isinstance(element, dict) and (index := index_of(element)) is not None:
            near.setdefault(index, []).append((place, element))
    for piece in pieces:
        if not isinstance(piece, dict):
            known.append(piece)
            new.append(piece)
            continue
        index = index_of(piece)
        alike = [] if index is None else near.setdefault(index, [])
        found = next((pair for pair in alike[: -_ALIKE - 1 : -1] if _continues(pair[1], piece)), None)
        if found is None:
            element = {**piece}
            alike.append((len(known), element))
            known.append(element)
            # Official clients want an index in all elements of a list, or in none.
            numbered = index is not None or (isinstance(known[0], dict) and index_of(known[0]) is not None)
            new.append({**piece, "index": len(known) - 1} if numbered else piece)
        elif inner := merge(found[1], piece):
            new.append({**inner, "index": found[0]})
    return new


def _continues(element: JsonDict, piece: JsonDict) -> bool:
    """Whether a piece may be of an element that has its index."""
    told = [(element.get(name), piece.get(name)) for name in ("type", "id")]
    return all(is_empty(one) or is_empty(other) or one == other for one, other in told)


def index_of(piece: JsonDict) -> int | None:
    """The index that a piece tells, however the number is written, None without one."""
    index = piece.get("index")
    if type(index) is int:
        return index
    if isinstance(index, str):
        return int(index) if index.isdecimal() and len(index) < 10 else None
    return int(index) if isinstance(index, float) and index.is_integer() else None


def placed(value: Json) -> Json:
    """A list of which an element has an index, with their places as indices, as clients expect; other values as is."""
    if not isinstance(value, list) or not any(isinstance(item, dict) and "index" in item for item in value):
        return value
    return [{**item, "index": at} if isinstance(item, dict) else item for at, item in enumerate(value)]


def streamable(value: Json) -> bool:
    """Whether the official clients can put a value together from pieces: elements of lists need an index for it."""
    if isinstance(value, dict):
        return all(map(streamable, value.values()))
    if not isinstance(value, list):
        return True
    return all(
        type(item) in (str, int, float) or (isinstance(item, dict) and index_of(item) is not None and streamable(item))
        for item in value
    )


_DEEPEST = 200


def is_deep(value: Json, levels: int = _DEEPEST) -> bool:
    """Whether a value is nested more deeply than any server's reply: it could be neither merged nor encoded."""
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return not levels or any(is_deep(inner, levels - 1) for inner in inside if isinstance(inner, dict | list))
