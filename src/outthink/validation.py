"""Data that crosses a border: plain values or JSON become the dataclass that the code works on, or one clear line.

Knows: pydantic, which checks types and shapes by a dataclass's own annotations (strictly: nothing is converted but
whole numbers to floats, lists to tuples, texts to paths), and how the first thing that it finds becomes a `BadInput`
with field, value and remedy. Does not know any border: what a file is called, and what is to be done about it, its
reader says.

pydantic takes a tenth of a second to load: where not every use reads, import this module inside the function that does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from sys import float_info
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs, from_json

from outthink.core.errors import BadInput

T = TypeVar("T")
Location = Sequence[str | int]
"""Where in the data something stands: names of keys and places in lists."""
Words = tuple[str, str]
"""What is wrong with a value, and what is to be done about it."""

_JSON: Mapping[str, Words] = {
    "missing": ("is missing", "give it"),
    "string": ("is no text", "give a text"),
    "int": ("is no whole number", "give a whole number"),
    "float": ("is no number", "give a number"),
    "finite": ("is no number", "give a finite number"),
    "bool": ("is neither true nor false", "give true or false"),
    "path": ("is no path", "give a text"),
    "list": ("is no list", "give a list"),
    "tuple": ("is no list", "give a list"),
    "frozen": ("is no list", "give a list"),
    "dict": ("is no object", "give an object"),
    "dataclass": ("is no object", "give an object"),
    "none": ("is not null", "leave it out"),
}
"""By the first word of pydantic's type of error, in the words of JSON."""


def joined(location: Location) -> str:
    """A place as programmers write it: `models[2].name`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """How errors of one kind of data are told.

    Args:
        source: what the data is called, before the place in it; a message begins with it.
        remedy: for everything that is malformed; empty to say what the value should be.
        place: how a place in the data is written.
        words: instead of JSON's, by the first word of pydantic's type of error.
        unknown: of a key that nobody knows.
    """

    source: str = ""
    remedy: str = ""
    place: Callable[[Location], str] = joined
    words: Mapping[str, Words] = field(default_factory=dict)
    unknown: str = "is not known"

    def where(self, location: Location) -> str:
        """The field of an error at a place."""
        place = self.place(location)
        return f"{self.source}: {place}" if self.source and place else self.source or place

    def refusal(self, location: Location, value: Any, problem: str, remedy: str) -> BadInput:
        """What is wrong at a place."""
        return BadInput(self.where(location), value, problem, self.remedy or remedy)

    @contextmanager
    def part(self, *location: str | int) -> Iterator[None]:
        """Within it, what another reader refuses of the part at a place is told as an error at that place."""
        try:
            yield
        except BadInput as inner:
            raise self.refusal([*location, inner.field], inner.value, inner.problem, inner.remedy) from None


_adapters: dict[type, TypeAdapter[Any]] = {}
"""One takes milliseconds to build."""


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def is_json(text: str | bytes) -> bool:
    """Whether a text is JSON of any kind."""
    try:
        from_json(text, allow_inf_nan=False)
    except ValueError:
        return False
    return True


def read_json(kind: type[T], text: str | bytes, border: Border) -> T:
    """A dataclass from the text of a JSON file or of a line. Raises BadInput, also for NaN and infinity."""
    try:
        values = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise BadInput(border.source, text[:80], f"is no JSON ({error})", border.remedy or "write it again") from None
    return _read(kind, text if isinstance(text, str) else text.decode(), values, border)


def read_values(kind: type[T], values: Any, border: Border) -> T:
    """A dataclass from plain values: what a JSON or TOML reader gave. Raises BadInput."""
    return _read(kind, json.dumps(values, default=_no_json), values, border)


def read_fields(kind: type[T], values: dict[str, Any], border: Border) -> T:
    """A dataclass of plain fields from an object as a JSON reader gave it, in microseconds; null is as if left out.

    Keys that the dataclass does not know are not looked at. Raises BadInput.
    """
    given = {name: value for name in kind.__annotations__ if (value := values.get(name)) is not None}
    made = object.__new__(kind)
    try:  # strictly, plain values are no dataclass: they have to be the arguments of a new one
        _adapter(kind).validator.validate_python(ArgsKwargs((), given), strict=True, self_instance=made)
    except ValidationError as error:
        raise _translated(kind, values, border, error) from None
    return made


def _no_json(value: Any) -> list[str]:
    """What JSON does not have (a date of TOML, a number without end), as something that no field takes."""
    return [str(value)]


_ENDLESS = re.compile(r"\bNaN\b|\bInfinity\b|\d{309}")
"""What pydantic would read as a float without end."""


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_finite(value) for value in values]
    endless = isinstance(values, int | float) and not abs(values) <= float_info.max
    return _no_json("endless") if endless else values


def _read(kind: type[T], text: str, values: Any, border: Border) -> T:
    if _ENDLESS.search(text):
        text = json.dumps(_finite(values), default=_no_json)
    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise _translated(kind, values, border, error) from None


def _translated(kind: Any, values: Any, border: Border, error: ValidationError) -> BadInput:
    """The first finding of pydantic as our error."""
    found = error.errors(include_url=False)[0]
    what, context = found["type"], found.get("ctx", {})
    location, value = _located(found["loc"], values, last=what == "missing")
    inner = context.get("error")
    if isinstance(inner, BadInput):  # the dataclass itself has refused
        return border.refusal([*location, inner.field], inner.value, inner.problem, inner.remedy)
    if what == "unexpected_keyword_argument":
        *parents, name = location
        return border.refusal(parents, name, border.unknown, nearest(str(name), _keys(kind, parents)))
    if what == "literal_error":
        known = context["expected"].replace(" or ", ", ").replace("'", "")
        return border.refusal(location, value, "is not known", f"use one of {known}")
    limits = None if what == "missing" else _range(_at(kind, location))
    words = limits or {**_JSON, **border.words}.get(what.partition("_")[0])
    problem, remedy = words or (f"is not as it should be ({found['msg']})", "write it again")
    return border.refusal(location, value, problem, remedy)


def _located(path: Location, values: Any, *, last: bool) -> tuple[list[str | int], Any]:
    """The part of a path that stands in the data (pydantic puts names of types between), and the value there."""
    location: list[str | int] = []
    for at, part in enumerate(path):
        named = isinstance(part, str) and isinstance(values, dict) and part in values
        if named or (isinstance(part, int) and isinstance(values, list) and part < len(values)):
            values = values[part]
            location.append(part)
        elif last and at == len(path) - 1:
            return [*location, part], None
    return location, values


def _keys(kind: Any, location: Location) -> list[str]:
    """Keys that a dataclass knows at a place."""
    kind = _at(kind, location)
    return [each.name for each in fields(kind) if each.init] if is_dataclass(kind) else []


def _at(kind: Any, location: Location) -> Any:
    """The type of what stands at a place, without `| None`."""
    for part in location:
        if is_dataclass(kind):
            kind = get_type_hints(kind, include_extras=True).get(str(part))
        elif len(inside := get_args(kind)) > 1 and get_origin(kind) is not tuple:
            kind = inside[1]  # of a dictionary
        else:
            kind = next(iter(inside), None)
        if get_origin(kind) in (Union, UnionType):
            kind = next(part for part in get_args(kind) if part is not NoneType)
    return kind


def _range(kind: Any) -> Words | None:
    """What a number with two limits should be, None for any other type."""
    match get_args(kind):
        case (number, Ge(least), Le(most)):
            what = "whole number" if number is int else "number"
            return f"is no {what} from {least} to {most}", "change it or leave it out"
    return None


def nearest(name: str, known: Sequence[str]) -> str:
    """The remedy for a name that nobody knows: the nearest that somebody does."""
    near = get_close_matches(name, known, 1, 0.6)
    return f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
