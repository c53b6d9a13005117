"""Calls to tools as they come in pieces.

Knows by what servers tell parallel calls apart: an index, an id, or a name behind complete arguments, for many give all
calls of a message one index, or none. Does not know tools, choices or votes.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from outthink.http.events import Json
from outthink.http.fields import JsonDict
from outthink.http.pieces import Joined, index_of, is_empty, merge, whole

_MARKS = re.compile(r'[\\"{}\[\]]')


class _Told(NamedTuple):
    """What of a piece says whose it is; empty where it tells nothing."""

    id: str
    name: str
    arguments: str
    given: bool
    """Some arguments have come, as text or as an object."""

    @classmethod
    def by(cls, piece: JsonDict) -> _Told:
        """What a piece tells."""
        id, function = piece.get("id"), piece.get("function") or piece.get("custom")
        if not isinstance(function, dict):
            function = {}
        name, arguments = function.get("name"), function.get("arguments") or function.get("input")
        text = arguments if isinstance(arguments, str) else ""
        given = bool(text.strip()) or isinstance(arguments, dict)
        return cls("" if id is None else str(id), name if isinstance(name, str) else "", text, given)

    def fits(self, other: _Told) -> bool:
        """Whether both may be of one call."""
        return all(not one or not two or one == two for one, two in ((self.id, other.id), (self.name, other.name)))


class _Call:
    """One call. Its arguments are followed only where it must be known whether they are complete."""

    __slots__ = (
        "_depth",
        "_escaped",
        "_opened",
        "_quoted",
        "_read",
        "fields",
        "head",
        "index",
        "place",
        "shown",
        "told",
    )

    def __init__(self, index: int | None, place: int) -> None:
        self.index, self.place = index, place
        self.fields: JsonDict = {}
        self.told: list[str] = []
        """The texts of its arguments."""
        self.head: JsonDict | None = None
        """What may be the beginning of another call under this one's index."""
        self.shown = False
        self._read = self._depth = 0
        self._opened = self._quoted = self._escaped = False

    @property
    def name(self) -> str:
        """Of the tool, empty as long as none has come."""
        function = self.fields.get("function") or self.fields.get("custom")
        return str(whole(function.get("name")) or "") if isinstance(function, dict) else ""

    @property
    def complete(self) -> bool:
        """Whether the arguments are a JSON value that has ended; free text never has."""
        for text in self.told[self._read :]:
            self._follow(text)
        self._read = len(self.told)
        return self._is_object or (
            self._opened and not self._quoted and self._depth <= 0 and "custom" not in self.fields
        )

    @property
    def _is_object(self) -> bool:
        function = self.fields.get("function")
        return isinstance(function, dict) and isinstance(function.get("arguments"), dict)

    def _follow(self, text: str) -> None:
        skipped = 0 if self._escaped else -1
        for match in _MARKS.finditer(text):
            at, mark = match.start(), match[0]
            if at == skipped:
                continue
            self._opened = True
            if mark == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += (mark in "{[") - (mark in "]}")
            elif mark == "\\":
                skipped = at + 1
        self._escaped = skipped == len(text)

    def relation(self, told: _Told) -> Literal["continues", "begins", "waits", "repeats"]:
        """What a piece under this call's index is: of this call, of another one, maybe of another one, or nothing."""
        if not (told.id or told.name or self.head):
            return "continues"
        id, name = _Told.by(self.fields).id, self.name
        other = bool(told.id and id and told.id != id)
        if self.head is not None and (told.name or _Told.by(self.head).id == told.id != ""):
            return "waits" if told.name == name and not (told.given or other) else "begins"
        if other:
            if told.name or not name:
                return "begins"
            # Some servers make a new id for every piece: without a name it begins nothing that can be told yet.
            if told.arguments and not self.complete:
                return "continues"
            return "begins" if told.given else "waits"
        if told.name and name:
            if not self.complete:
                return "begins" if told.name != name and self.told else "continues"
            if told.id and told.name == name and told.arguments in ("", "".join(self.told)):
                return "repeats"
            if told.given or told.name != name:
                return "begins"
            return "continues" if told.id and told.arguments else "waits"
        return "begins" if self.head is not None and told.given and self.complete else "continues"

    def add(self, piece: JsonDict) -> JsonDict | None:
        """Add a piece; returns what is to be told of it, None for nothing."""
        if self.fields.get("id"):
            piece = {name: value for name, value in piece.items() if name != "id"}
        if text := _Told.by(piece).arguments:
            self.told.append(text)
        added = merge(self.fields, {name: value for name, value in piece.items() if name != "index"})
        new = {name: value for name, value in added.items() if not is_empty(value)}
        if not self.shown:
            # Official clients fail at a call of which they know no more than an id.
            return self.told_whole() if self.fields.keys() - {"id", "type"} else None
        if new and "function" in self.fields:
            new.setdefault("function", {"arguments": ""})
        return {**new, "index": self.place} if new else None

    def told_whole(self) -> JsonDict:
        """All that is known of it, as the first piece."""
        self.shown = True
        return {**self.message(), "index": self.place}

    def message(self) -> JsonDict:
        """The call as it stands in a message."""
        message: JsonDict = whole(self.fields)  # type: ignore[assignment]
        kind = message.get("type") or ("custom" if "custom" in message else "function")
        function = message.get("function") or {}
        if kind == "function" and isinstance(function, dict) and function.get("arguments") is None:
            message["function"] = {**function, "arguments": ""}  # or else official clients fail
        return {**message, "type": kind}


class ToolCalls:
    """The calls of one message."""

    __slots__ = ("_by_id", "_by_index", "_calls", "_last")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}
        self._last: _Call | None = None

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, pieces: list[Json]) -> list[JsonDict]:
        """Add the pieces of one delta; returns what is new, with each call's place among all as its index."""
        several = len(pieces) > 1
        # Without indices, pieces that come together are of different calls, in their order.
        beside = [call for call in self._calls if not call.complete] if several else [self._last] if self._last else []
        new: list[JsonDict] = []
        for place, piece in enumerate(pieces):
            if isinstance(piece, dict):
                added = self._add(piece, beside[place] if place < len(beside) else None)
                new += [added] if added is not None else []
        return new

    def continued(self, pieces: Json) -> JsonDict | None:
        """What is new in the commonest delta: one that holds more arguments of the last call alone. None for others."""
        call = self._last
        if call is None or call.head is not None or not isinstance(pieces, list) or len(pieces) != 1:
            return None
        piece = pieces[0]
        if not isinstance(piece, dict) or len(piece) != 2 or piece.get("index", ...) != call.index:
            return None
        function, known = piece.get("function"), call.fields.get("function")
        if not isinstance(function, dict) or len(function) != 1 or not isinstance(known, dict):
            return None
        text, before = function.get("arguments"), known.get("arguments")
        if not isinstance(text, str) or type(before) is not Joined or not text:
            return None
        call.told.append(text)
        before.append(text)
        return {"index": call.place, "function": function}

    def _add(self, piece: JsonDict, beside: _Call | None) -> JsonDict | None:
        index, told = index_of(piece), _Told.by(piece)
        call = self._target(index, told, beside)
        relation = "begins" if call is None else call.relation(told)
        if call is None or relation == "begins":
            head = call.head if call is not None else None
            if call is not None:
                call.head = None
            call = _Call(index, len(self._calls))
            self._calls.append(call)
            if head is not None and told.fits(_Told.by(head)):
                call.add(head)
                call.shown = False
        elif relation == "repeats":
            return None
        elif relation == "waits":
            call.head = {**(call.head or {}), **piece}
            return None
        else:
            call.head = None
            call.index = index if call.index is None else call.index
        added, self._last = call.add(piece), call
        if id := call.fields.get("id"):
            self._by_id[str(id)] = call
        if call.index is not None:
            self._by_index[call.index] = call
        return added

    def _target(self, index: int | None, told: _Told, beside: _Call | None) -> _Call | None:
        """The call that a piece may be of."""
        call = self._by_id.get(told.id)
        if call is not None and (index is None or call.index in (None, index)):
            return call
        if index is None:
            return beside if beside is not None or told.id or told.name else self._last
        if index in self._by_index:
            return self._by_index[index]
        if told.id or told.name:
            return None
        unnumbered = [call for call in self._calls if call.index is None]
        return unnumbered[min(index, len(unnumbered) - 1)] if unnumbered else None

    def rest(self) -> list[JsonDict]:
        """Calls of which nothing has been told yet."""
        return [call.told_whole() for call in self._calls if not call.shown]

    def messages(self) -> list[JsonDict]:
        """The calls in their order."""
        calls = self._calls
        if all(call.index is not None for call in calls):
            calls = sorted(calls, key=lambda call: call.index or 0)
        return [call.message() for call in calls]
