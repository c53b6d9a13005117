"""The body of a request as a limited key may send it: fields that we know, what they ask for, and nothing else.

Knows: that lengths are taken out wherever they stand, that multiplicities are whole, and that a field which nobody
knows may hold no number. Does not know ceilings, or which length is written in their place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from outthink.http.errors import one_line
from outthink.http.events import Json, JsonObject
from outthink.http.fields import (
    CHAT_LENGTH_FIELDS,
    PROMPTS,
    Endpoint,
    JsonDict,
    Kind,
    endpoint_of,
    kind_of,
    length_field,
    normalised,
    prompts_in,
    read_whole,
)
from outthink.serving.bounds.parts import PartBounds, Place, written_place
from outthink.serving.failure import Failure, bad_field
from outthink.serving.pool.rules import FieldRules
from outthink.serving.protocols import Key

LONG = 1 << 15
"""Bytes of a request that is read beside the event loop: a body of small parts takes a millisecond for 4 KiB."""
_NUMBER = re.compile(r"\d|://|\A\s*[+-]?(?:inf|infinity|nan)\s*\Z|\Adata:", re.IGNORECASE)
"""In a text: a digit, what some language reads as a number, or an address of content that the request does not show."""
_FIGURE = re.compile(r"\s*[+-]?[\d.]+(?:e[+-]?\d+)?\s*\Z", re.IGNORECASE)
_THINKING = frozenset(map(normalised, ("reasoning", "thinking", "thinking_config")))
"""Objects in which a length is that of the thinking alone."""
_COUNTS = frozenset({"thinking", "floor", "choices", "beams", "length"})
"""Whole numbers; a length among them is one of the thinking."""
_TOOLS = ("function", "custom")
"""Tools that the client runs itself."""
_OF_TOOLS = frozenset((*_TOOLS, "parameters", "input_schema", "output_schema", "format", "cache_control", "returns"))
"""Objects in their descriptions."""
_NOTHING: tuple[Json, ...] = ("", [], ["text"], "none", "standard")
"""Values of hidden fields that bring in nothing."""
_TIERS = ("auto", "default", "standard")
_ALLOWABLE = (None, "holder", "hidden", "tier", "free")
_DEPTH = 3  # objects of fields within each other
_NESTING = (dict, list)
_OF_SCHEMAS = frozenset({"maxLength", "minLength"})
"""Words of JSON Schema that are also names of lengths."""
_VALUES = frozenset({"default", "examples", "example", "enum", "const", "dependentRequired"})
"""Words of JSON Schema behind which a client's own names and numbers stand."""
_NUMBERED = _VALUES | _OF_SCHEMAS.union(
    ("minimum", "maximum", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"),
    ("exclusiveMinimum", "exclusiveMaximum", "multipleOf", "title", "description", "pattern", "required", "name"),
    ("choice", "regex", "id", "scale"),
)
"""Names of numbers, or of texts that may be one, in schemas and what is sent with them."""


def holds_number(value: Json) -> bool:
    """Whether a number or an address stands in a value, at any depth, as itself or as a text."""
    waiting = [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            waiting += [*here, *here.values()]
        elif isinstance(here, list):
            waiting += here
        elif isinstance(here, str):
            if _NUMBER.search(here) is not None:
                return True
        elif here is not None and not isinstance(here, bool):
            return True
    return False


def names_number(value: Json) -> bool:
    """Whether an object names a number, or a text that is nothing else; ids of tokens name biases."""
    waiting = [("", value)]
    while waiting:
        name, here = waiting.pop()
        if isinstance(here, dict):
            waiting += here.items()
        elif isinstance(here, list):
            waiting += [(name, each) for each in here]
        elif not name or name.isdecimal() or isinstance(here, bool) or here is None:
            continue
        elif not isinstance(here, str) or _FIGURE.match(here) is not None:
            return True
    return False


def _is_figure(value: Json) -> bool:
    """Whether some server reads a value as a number: a list stands for what is in it."""
    if isinstance(value, list):
        return any(map(_is_figure, value))
    if isinstance(value, str):
        return _FIGURE.match(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_count(at: str, value: Json, least: int, most: int | None = None) -> int:
    """A whole number as lenient servers read it. Raises Failure."""
    count = read_whole(value)
    if count is None or count < least or (most is not None and count > most):
        limits = f"from {least}" if most is None else f"from {least} to {most}"
        raise bad_field(at, value, f"is no whole number {limits}", "change it or leave it out")
    return count


class PassedFields(NamedTuple):
    """Fields for a strategy's calls: those of the request without what the strategy itself decides.

    Args:
        fields: what is left.
        lengths: what was told, with its place.
        others: names of multiplicities and least lengths.
    """

    fields: JsonDict
    lengths: list[tuple[str, Json]]
    others: list[str]


def passed_fields(body: JsonDict, place: str = "", *, limited: bool = True) -> PassedFields:
    """A chat's fields as a strategy passes them on: no length and no multiplicity, nested ones neither.

    Args:
        limited: no least length either, which could be more than a call has left.
    """
    passed = PassedFields({}, [], [])
    for name, value in body.items():
        kind = kind_of("chat", name)
        if kind == "length" and normalised(place[:-1].rpartition(".")[2]) not in _THINKING:
            passed.lengths.append((place + name, value))
        elif kind in ("choices", "beams") or (kind == "floor" and limited):
            passed.others.append(place + name)
        elif kind == "fixed":
            continue  # the engine writes them, and a lenient server would take another spelling for the same
        elif kind == "holder" and isinstance(value, dict) and place.count(".") < _DEPTH:
            inside = passed_fields(value, f"{place}{name}.", limited=limited)
            passed.lengths.extend(inside.lengths)
            passed.others.extend(inside.others)
            if inside.fields or not value:
                passed.fields[name] = inside.fields
        else:
            passed.fields[name] = value
    return passed


@dataclass(slots=True)
class CheckedBody:
    """One request, read for a limited key. Raises Failure that names the field and who can allow it.

    Args:
        priced: the key is limited in dollars or joules, not in tokens alone.

    After `read`, `body` is what may be sent, without a length; `told` is the smallest length, `named` the chat's own
    names of it; `thinking` (told in `thinking_fields`) and `floor` are tokens; `unseen` tokens of pictures and sound
    stand for `shown` bytes.
    """

    endpoint: Endpoint
    rules: FieldRules
    priced: bool
    body: JsonDict = field(default_factory=dict)
    told: int | None = None
    named: list[str] = field(default_factory=list)
    thinking: int = 0
    floor: int = 0
    floor_name: str = "min_tokens"
    thinking_fields: set[str] = field(default_factory=set)
    choices: int = 1
    beams: int = 1
    prompts: int = 1
    unseen: int = 0
    shown: int = 0
    _parts: PartBounds = field(init=False)

    def __post_init__(self) -> None:
        self._parts = PartBounds(self.rules)

    @property
    def completions(self) -> int:
        """How many are asked for, over all prompts."""
        return self.choices * self.beams * self.prompts

    @property
    def length_name(self) -> str | None:
        """The field that the cap is written under: a chat's as the operator or the client has it."""
        if self.endpoint != "chat":
            return length_field(self.endpoint)
        return self.rules.length_name or (self.named[0] if len(self.named) == 1 else CHAT_LENGTH_FIELDS[0])

    def read(self, body: JsonDict) -> CheckedBody:
        """Read a decoded body."""
        self.body = self._object(body, "")
        self.unseen, self.shown = self._parts.tokens, self._parts.content
        return self

    def _object(self, fields: JsonObject, place: str) -> JsonDict:
        kept: JsonDict = {}
        inside = place[:-1].rpartition(".")[2]
        thinks = normalised(inside) in _THINKING
        for name, value in fields.items():
            at = place + name
            kind = (kind_of(self.endpoint, f"{inside}.{name}") if place else None) or kind_of(self.endpoint, name)
            if kind == "length" and not thinks:
                self._length(at, value)
            elif value is None:
                kept[name] = None
            elif kind in _COUNTS:
                kept[name] = self._count(at, kind, value)
            elif kind == "holder" and isinstance(value, dict) and place.count(".") < _DEPTH:
                if (below := self._object(value, f"{at}.")) or not value:
                    kept[name] = below
            else:
                kept[name] = self._value(at, name, kind, value)
        return kept

    def _length(self, at: str, value: Json) -> None:
        if value is None:
            return
        length = read_count(at, value, 1)
        self.told = length if self.told is None else min(self.told, length)
        if at in CHAT_LENGTH_FIELDS:
            self.named.append(at)

    def _count(self, at: str, kind: Kind | None, value: Json) -> int:
        count = read_count(at, value, 1 if kind in ("choices", "beams") else 0)
        if kind in ("thinking", "length"):
            self.thinking = max(self.thinking, count)
            self.thinking_fields.add(at.partition(".")[0])
        elif kind == "choices":
            self.choices = max(self.choices, count)
        elif kind == "beams":
            self.beams = max(self.beams, count)
        elif count > self.floor:
            self.floor, self.floor_name = count, at
        return count

    def _value(self, at: str, name: str, kind: Kind | None, value: Json) -> Json:
        allowed = self.rules.allowed
        if allowed and kind in _ALLOWABLE and allowed.intersection((normalised(name), normalised(at))):
            return self._without_lengths((None, at), value)
        if kind == "plain":
            if any(isinstance(each, list | dict) for each in (value if isinstance(value, list) else (value,))):
                raise bad_field(at, value, "is no number, text or list of them", "change it or leave it out")
            return value
        if kind == "input":
            self._input(at, name, value)
        elif kind == "tools":
            self._tools(at, value)
            self._named(at, value)
        elif kind == "hidden":
            if value is not False and value not in _NOTHING:
                what = "brings in what the request does not show, and this key has a budget"
                raise self._refused(at, value, what)
        elif kind == "tier" and self.priced:
            if value not in _TIERS:
                raise self._refused(at, value, "has a price that is not known here, which this key limits")
        elif kind == "fixed":
            if at not in ("model", "stream"):
                raise bad_field(at, value, "is another spelling", f"send {normalised(name)} alone")
            if not isinstance(value, str if at == "model" else bool):
                raise bad_field(at, value, "is neither true nor false", "send one of them, or leave it out")
        elif kind == "free":
            value = self._without_lengths((None, at), value)
            if names_number(value):
                raise self._refused(at, value, "holds a number under a name that is not known")
        elif kind in ("named", "schema"):
            self._named(at, value, schema=kind == "schema")
        elif kind != "labels":
            self._parts.add(at, value)
            if holds_number(value):
                raise self._refused(at, value, "is not known and holds a number or an address")
        return value

    def _input(self, at: str, name: str, value: Json) -> None:
        self._parts.add(at, value)
        if self.endpoint == "completions" and normalised(name) in PROMPTS:
            prompts = value if isinstance(value, list) else [value] if isinstance(value, dict) else []
            plain = set(map(type, prompts)) <= {int, str}
            for index, prompt in enumerate([] if plain else prompts):
                tokens = isinstance(prompt, list) and set(map(type, prompt)) <= {int}
                if not (tokens or isinstance(prompt, str) or type(prompt) is int):
                    what = "is neither a text nor a list of tokens"
                    raise bad_field(f"{at}[{index}]", prompt, what, "send one of them")
            self.prompts = max(self.prompts, prompts_in(value))
        elif self.endpoint in ("chat", "responses") and isinstance(value, list) and set(map(type, value)) - {dict}:
            index = next(index for index, each in enumerate(value) if type(each) is not dict)
            what = "is no object, and a server may answer each of several by itself"
            raise bad_field(f"{at}[{index}]", value[index], what, "send messages or items alone")

    def _tools(self, at: str, value: Json) -> None:
        for index, tool in enumerate(value if isinstance(value, list) else [value]):
            kind = tool.get("type") if isinstance(tool, dict) else tool
            if isinstance(tool, dict) and kind in (None, "namespace"):
                if kind is not None and isinstance(tools := tool.get("tools"), list):
                    self._tools(f"{at}[{index}].tools", tools)
                    continue
                kind = "function" if {"function", "name"}.intersection(tool) else next(iter(tool), None)
            if isinstance(tool, dict) and kind in _TOOLS:  # another object switches a tool of the server on
                objects = (name for name, each in tool.items() if isinstance(each, dict) and name not in _OF_TOOLS)
                kind = next(objects, kind)
            if kind not in _TOOLS and normalised(str(kind)) not in self.rules.allowed:
                what = "runs at the server, which adds what it finds, and this key has a budget"
                raise self._refused(f"{at}[{index}]", kind, what, str(kind)[:40])

    def _named(self, place: str, value: Json, *, schema: bool = False) -> None:
        """Refuse a count of what is generated among names that a client may choose, or any strange one in a schema."""
        waiting: list[tuple[Place, Json]] = [((None, place), value)]
        while waiting:
            at, here = waiting.pop()
            if isinstance(here, list):
                waiting += [((at, index), each) for index, each in enumerate(here) if type(each) in _NESTING]
            elif isinstance(here, dict):
                for name, each in here.items():
                    count = name not in _OF_SCHEMAS and kind_of(self.endpoint, name) in _COUNTS
                    if (count or (schema and name not in _NUMBERED)) and _is_figure(each):
                        what = "is a number that some server may heed here, and this key has a budget"
                        raise bad_field(written_place((at, name)), each, what, "leave it out", code="field_not_allowed")
                    if type(each) in _NESTING and name not in _VALUES:
                        waiting.append(((at, name), each))

    def _without_lengths(self, at: Place, value: Json) -> Json:
        """Also what an operator lets through sets no length, and what multiplies in it is counted."""
        if isinstance(value, list):
            return [self._without_lengths(at, each) for each in value]
        if not isinstance(value, dict):
            return value
        kept: JsonDict = {}
        for name, each in value.items():
            kind = kind_of(self.endpoint, name)
            if kind in _COUNTS and kind != "length" and read_whole(each):
                self._count(written_place((at, name)), kind, each)
            if kind != "length":
                kept[name] = self._without_lengths((at, name), each)
        return kept

    def _refused(self, at: str, value: Json, problem: str, name: str | None = None) -> Failure:
        remedy = self.rules.remedy("allow_fields", f'["{one_line(name or at, 200)}"]')
        return bad_field(at, value, problem, remedy, code="field_not_allowed")


_FURTHER = frozenset({"models", "fallbacks", "modellist", "preset"})
"""Fields that name models beside the one that is asked for."""


def check_models(body: JsonDict, place: str = "", *, passed: bool = False) -> None:
    """Refuse what could name another model, for a key that may use some alone. Raises Failure.

    Args:
        passed: the body is sent as it came, in which a second spelling of the model would be one.
    """
    for name, value in body.items():
        spelled = normalised(name)
        if passed and spelled == "model" and (place or name != "model"):
            raise bad_field(place + name, value, "is another spelling", "send model alone")
        if spelled in _FURTHER and value:
            what = "names models beside the one that is asked for, and this key may use some alone"
            raise bad_field(place + name, value, what, "leave it out", code="model_not_allowed")
        if isinstance(value, dict) and kind_of("chat", name) == "holder" and place.count(".") < _DEPTH:
            check_models(value, f"{place}{name}.", passed=passed)


def check_tiers(body: JsonDict, place: str = "") -> None:
    """Refuse what has a price that is not known here, in a request that limits dollars itself. Raises Failure."""
    for name, value in body.items():
        kind = kind_of("chat", name)
        if kind == "holder" and isinstance(value, dict) and place.count(".") < _DEPTH:
            check_tiers(value, f"{place}{name}.")
        elif kind == "tier" and value is not None and value not in _TIERS:
            what = "has a price that is not known here, which the budget limits"
            raise bad_field(place + name, value, what, "leave it out", code="field_not_allowed")


def checked_body(key: Key, path: str, body: JsonDict, rules: FieldRules) -> CheckedBody:
    """A body read for a limited key. Raises Failure for what it may not send."""
    priced = key.priced or key.budget.usd is not None or key.budget.joules is not None
    return CheckedBody(endpoint_of(path), rules, priced).read(body)
