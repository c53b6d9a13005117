"""One value of the configuration and who said it. Knows how texts and TOML become Python's types.

Every message names the place: the file and its key, the variable or the flag.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from outthink.core.errors import BadInput

T = TypeVar("T")
_BOOLS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Told:
    """A value.

    Args:
        value: as TOML has read it, or a text.
        where: for messages, for example `outthink.toml: pool.interval`.
        origin: `file`, `environment` or `flag`.
        folder: that relative paths belong to.
    """

    value: Any
    where: str
    origin: str
    folder: Path = Path()

    @property
    def text(self) -> bool:
        """Whether it is a text that stands for the value."""
        return self.origin != "file"


def keys_of(section: type) -> dict[str, Any]:
    """The keys that an operator may set, and their types."""
    hints = get_type_hints(section)
    return {one.name: hints[one.name] for one in fields(section) if not one.metadata.get("hidden")}


def unknown(where: str, name: str, known: list[str], what: str = "is not known") -> BadInput:
    """The error for a name that nobody knows, with the nearest that somebody does."""
    near = get_close_matches(name, known, 1, 0.6)
    remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
    return BadInput(where, name, what, remedy)


def build(section: type[T], told: dict[str, Told], place: str) -> T:
    """A section from what was said about it. Raises BadInput that names the place.

    Args:
        place: for keys that nobody has set, for example `backends[0]`.
    """
    types = keys_of(section)
    values = {name: converted(one, types[name]) for name, one in told.items()}
    for one in fields(section):  # type: ignore[arg-type]
        if one.name not in values and one.default is MISSING and one.default_factory is MISSING:
            raise BadInput(f"{place}.{one.name}", "", "is missing", "write it")
    try:
        return section(**values)
    except BadInput as error:
        one_told = told.get(error.field) or told.get("url")
        where = one_told.where if one_told is not None else f"{place}.{error.field}"
        raise BadInput(where, error.value, error.problem, error.remedy) from None


def converted(told: Told, kind: Any) -> Any:
    """A value as its key wants it. Raises BadInput."""
    value = told.value
    if get_origin(kind) in (Union, UnionType):
        kinds = [one for one in get_args(kind) if one is not NoneType]
        if told.text and value.strip().lower() == "none":
            return None
        return converted(told, kinds[0])
    if get_origin(kind) is tuple:
        rows = [part.strip() for part in value.split(",")] if told.text else value
        if not isinstance(rows, list) or not all(isinstance(row, str) and row for row in rows):
            raise BadInput(told.where, value, "is no list of texts", 'write ["one", "two"]')
        return tuple(rows)
    if kind is bool:
        return _bool(told)
    if kind in (int, float):
        return _number(told, kind)
    if not isinstance(value, str) or not value.strip():
        raise BadInput(told.where, value, "is no text", "write one in quotes")
    if kind is Path:
        return told.folder / Path(value).expanduser()
    return value


def _bool(told: Told) -> bool:
    value = told.value
    found = _BOOLS.get(value.strip().lower()) if told.text else value
    if not isinstance(found, bool):
        raise BadInput(told.where, value, "is neither true nor false", "write true or false")
    return found


def _number(told: Told, kind: type[int] | type[float]) -> float:
    value, what = told.value, "a whole number" if kind is int else "a number"
    try:
        found = kind(value) if told.text else value
    except ValueError:
        found = None
    whole = isinstance(found, int) and not isinstance(found, bool)
    if not whole and not (kind is float and isinstance(found, float) and math.isfinite(found)):
        raise BadInput(told.where, value, f"is not {what}", f"write {what}")
    return kind(found)  # type: ignore[arg-type]
