"""A JSON schema as a check of JSON texts: exact numbers, patterns, and a count of steps.

Knows jsonschema, decimal arithmetic, and which patterns take time linear in the text. Does not know completions,
scores or processes: what might take too much in place raises `TooMuch`, and `ask_worker` judges it elsewhere.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from outthink.core.errors import BadInput
from outthink.core.plugins import need_extra
from outthink.http.events import Json
from outthink.verifiers.evaluated import DATA, REFERENCES
from outthink.verifiers.plain_schema import is_plain
from outthink.workers.pool import shared

_LONG = 300  # characters of an explanation
_DRAFTS = {"draft-03": "3", "draft-04": "4", "draft-06": "6", "draft-07": "7", "2019-09": "201909"}
_STEPS = 5000  # keywords that are checked in place, which takes some milliseconds
_ROOM = 60  # calls that following a reference takes at most
_DIGITS = 4000  # of a whole number: Python reads some more, and refuses the rest
_SHORT = 16 * 1024  # characters of a text that is checked in place
_DECIMAL = re.compile(r"Decimal\('([^']*)'\)")
# What Python, RE2 and ECMAScript, whose patterns a schema has, do not read alike.
_PIECE = re.compile(
    r"\\u\{([0-9a-fA-F]{1,6})\}|\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)|\\u([0-9a-fA-F]{4})|\\k<(\w+)>"
    r"|\[\^?\]|\(\?<(?![=!])|\\.|.",
    re.DOTALL,
)
_END = r"$(?!\n)"  # in Python alone: there `$` stands before a last newline, too
_BLANKS = "\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_MEANT = {
    r"\s": f"[{_BLANKS}]",
    r"\S": f"[^{_BLANKS}]",
    ".": "[^\n\r\u2028\u2029]",
    "[^]": r"[\s\S]",
    "[]": r"[^\s\S]",
    "(?<": "(?P<",
    "$": _END,
}
_Draft: TypeAlias = Any
"""A class or a module of jsonschema, which has no types."""
_Rule = Callable[..., Iterable[Exception] | None]
"""How jsonschema checks one keyword: (validator, value, instance, schema) to errors."""
Outcome = Literal["right", "wrong", "unscored", "refused"]


LIMIT = 1.0  # seconds of processor time for one text in a worker


class TooMuch(Exception):
    """The check might take more than it may in this process."""


@lru_cache(maxsize=64)
def judged(schema: str, text: str) -> tuple[Outcome, str]:
    """What becomes of one JSON text, however long it takes; both arguments are JSON.

    `refused` comes with the problem of the schema.
    """
    try:
        message = _rules(schema).violation(text)
    except BadInput as error:
        return "refused", error.problem
    except TooMuch as error:
        return "unscored", str(error)
    return ("right", "") if message is None else ("wrong", message)


def ask_worker(schema: str, text: str, turn: Hashable) -> Future[tuple[Outcome, str] | None]:
    """`judged` in a worker; None where that takes more than `LIMIT`, or more memory than a worker may have.

    Args:
        turn: who asks. Of several that wait each has one call in turn.
    """
    return shared().submit("outthink.verifiers.schema:judged", schema, text, turn=turn, limit=LIMIT)


def problem_in(schema: str) -> str:
    """What is wrong with a schema, in JSON; empty where nothing is."""
    try:
        _rules(schema)
    except BadInput as error:
        return error.problem
    return ""


@lru_cache(maxsize=8)
def _rules(schema: str) -> SchemaRules:
    return SchemaRules(json.loads(schema))


class SchemaRules:
    """One schema. Its `$schema` names the draft, 2020-12 if absent or unknown; `format` is not checked.

    It fetches nothing: a reference to another document is an error. Not for several threads at once.

    Args:
        checked: it is known to be valid: finding that out takes most of the time.

    Raises BadInput for an invalid schema, or where jsonschema is not installed.
    """

    def __init__(self, schema: Json, *, checked: bool = False) -> None:
        need_extra("schema", "verifier", "schema")
        import jsonschema
        import referencing

        if not isinstance(schema, dict | bool):
            raise BadInput("schema", schema, "is not a JSON schema", "give an object, or true or false")
        self._steps: int | None = None
        self._missing = referencing.exceptions.Unresolvable
        named = str(schema.get("$schema")) if isinstance(schema, dict) else ""
        number = next((number for name, number in _DRAFTS.items() if name in named), "202012")
        draft: _Draft = vars(jsonschema)[f"Draft{number}Validator"]
        try:
            _room(10 * _depth(schema) + _ROOM)
            if isinstance(schema, dict) and not (checked or is_plain(schema)):
                draft.check_schema(schema, format_checker=_only_patterns(jsonschema))
            # An empty registry: without one, jsonschema would fetch remote references from the network.
            self._validator = self._class(jsonschema, draft, number)(_exact(schema), registry=referencing.Registry())
        except jsonschema.SchemaError as error:
            raise BadInput("schema", schema, f"is not valid: {error.message[:_LONG]}", "mend the schema") from error
        except RecursionError:
            raise BadInput("schema", "...", "is nested too deeply", "make it flatter") from None

    def in_place(self, text: str | None, steps: int = _STEPS) -> tuple[Outcome, str] | None:
        """What becomes of a JSON text, or of none; None where finding out may take long.

        Raises BadInput where the schema refers to a document that it does not hold.
        """
        if text is None:
            return "wrong", "no JSON found"
        if len(text) > _SHORT:
            return None
        try:
            message = self.violation(text, steps=steps)
        except TooMuch:
            return None
        return ("right", "") if message is None else ("wrong", message)

    def violation(self, text: str, *, steps: int | None = None) -> str | None:
        """The first violation in a JSON text, None where there is none.

        Args:
            steps: keywords that may be checked, and no pattern that can backtrack; None for no limit.

        Raises BadInput where the schema refers to a document that it does not hold, TooMuch where the limit or the
        depth that Python can follow is not enough.
        """
        self._steps = steps
        try:
            value = json.loads(text, parse_int=_whole, parse_float=Decimal, parse_constant=_no_constant)
        except (ValueError, RecursionError) as unreadable:
            return f"not readable as JSON: {unreadable}"[:_LONG]
        except ArithmeticError:
            raise TooMuch("a number has more digits than can be computed with") from None
        try:
            error = next(self._validator.iter_errors(value), None)
        except self._missing as missing:
            why = f"refers to something it does not hold ({missing})"
            raise BadInput("schema", "...", why, "put it under $defs") from missing
        except RecursionError:
            raise TooMuch("schema and text are nested too deeply, or the schema refers to itself for ever") from None
        if error is None:
            return None
        return _DECIMAL.sub(r"\1", f"{error.json_path}: {error.message}")[:_LONG]

    def _class(self, jsonschema: _Draft, draft: _Draft, number: str) -> _Draft:
        """The draft with exact numbers, our patterns, and keywords that are counted."""

        def properties(validator: _Draft, patterns: Json, value: Json, schema: Json) -> Iterator[Exception]:
            if not isinstance(value, dict) or not isinstance(patterns, dict):
                return
            for pattern, inner in patterns.items():
                for key in [key for key in value if self._search(pattern, key)]:
                    yield from validator.descend(value[key], inner, path=key, schema_path=pattern)

        def pattern(validator: _Draft, wanted: str, value: Json, schema: Json) -> Iterator[Exception]:
            if isinstance(value, str) and not self._search(wanted, value):
                yield jsonschema.ValidationError(f"{value!r} does not match {wanted!r}")

        def multiple(validator: _Draft, of: Decimal | int, value: Json, schema: Json) -> Iterator[Exception]:
            if validator.is_type(value, "number") and not is_multiple(value, of):  # type: ignore[arg-type]
                yield jsonschema.ValidationError(f"{value!r} is not a multiple of {of}")

        def unique(validator: _Draft, wanted: Json, value: Json, schema: Json) -> Iterator[Exception]:
            if wanted and isinstance(value, list) and len({_identity(item) for item in value}) < len(value):
                yield jsonschema.ValidationError(f"{value!r} has non-unique elements")

        own = {
            "multipleOf": multiple,
            "divisibleBy": multiple,
            "pattern": pattern,
            "patternProperties": properties,
            "uniqueItems": unique,
        }
        rules = {name: own.get(name, rule) for name, rule in draft.VALIDATORS.items()}
        additional = rules["additionalProperties"]

        def others(validator: _Draft, inner: Json, value: Json, schema: dict[str, Json]) -> Iterable[Exception]:
            # jsonschema would search for the patterns itself; it is asked about the names that none of them fits.
            patterns = schema.get("patternProperties")
            if isinstance(value, dict) and isinstance(patterns, dict):
                value = {
                    key: item for key, item in value.items() if not any(self._search(one, key) for one in patterns)
                }
                schema = {key: item for key, item in schema.items() if key != "patternProperties"}
            return additional(validator, inner, value, schema) or ()

        rules["additionalProperties"] = others
        types = draft.TYPE_CHECKER
        if number not in ("3", "4"):
            types = types.redefine("integer", lambda _, value: _is_whole(value))
        counted = {name: self._counted(name, rule) for name, rule in rules.items()}
        return jsonschema.validators.extend(draft, counted, type_checker=types)

    def _counted(self, name: str, rule: _Rule) -> _Rule:
        def counted(validator: _Draft, wanted: Json, value: Json, schema: Json) -> Iterator[Exception]:
            if name in REFERENCES:
                _room(_ROOM)
            if self._steps is not None:
                self._steps -= 1
                # jsonschema searches for the patterns of neighbouring keywords itself.
                if self._steps < 0 or name == "unevaluatedProperties":
                    raise TooMuch("the check takes too many steps")
            yield from rule(validator, wanted, value, schema) or ()

        return counted

    def _search(self, pattern: str, text: str) -> bool:
        linear = _linear(pattern)
        if linear is not None:
            return linear(text)
        if self._steps is not None:
            raise TooMuch(f"the pattern {pattern[:_LONG]!r} can backtrack")
        try:
            return _backtracking(pattern).search(text) is not None
        except re.error as error:
            why = f"has a pattern that cannot be read: {pattern[:_LONG]!r} ({error})"
            raise BadInput("schema", "...", why, "mend the pattern") from None


def is_multiple(value: Decimal | int, of: Decimal | int) -> bool:
    """Whether a number is a whole multiple of another one, exactly, however large or small they are."""
    (_, digits, power), (_, other, other_power) = (Decimal(number).as_tuple() for number in (value, of))
    whole, part = int(Decimal((0, digits, 0))), int(Decimal((0, other, 0)))
    if not whole or not part or not isinstance(power, int) or not isinstance(other_power, int):
        return not whole
    shift = power - other_power
    if shift >= 0:
        return whole * pow(10, shift, part) % part == 0
    return -shift <= len(digits) and whole % (part * 10**-shift) == 0


def _room(calls: int) -> None:
    """Raise RecursionError where fewer nested calls are left.

    It is raised here, and not within the tables of jsonschema: these are no Python and end the program then.
    """
    if calls > 0:
        _room(calls - 1)


def _depth(schema: Json) -> int:
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _identity(value: Json | Decimal) -> tuple[str, Hashable]:
    """Equal for equal values of JSON: 1 is 1.0, and not true."""
    if isinstance(value, dict):
        return "object", frozenset((name, _identity(item)) for name, item in value.items())
    if isinstance(value, list):
        return "array", tuple(_identity(item) for item in value)
    return "truth" if isinstance(value, bool) else "other", value


def _is_whole(value: Json | Decimal) -> bool:
    if isinstance(value, Decimal):
        return value == value.to_integral_value()
    return isinstance(value, int) and not isinstance(value, bool)


def _exact(schema: Json) -> Json:
    """A schema with its numbers as the decimals that were written.

    Without the `$schema` of its parts: jsonschema would go on with a class of its own there, whose patterns backtrack.
    """
    if isinstance(schema, float):
        if not math.isfinite(schema):
            raise BadInput("schema", schema, "is no number of JSON", "mend the schema")
        return Decimal(repr(schema))  # type: ignore[return-value]
    if isinstance(schema, list):
        return [_exact(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: item for name, item in schema.items() if name != "$schema" or not isinstance(item, str)}
    return {name: _numbers(item) if name in DATA else _exact(item) for name, item in kept.items()}


def _numbers(data: Json) -> Json:
    if isinstance(data, dict):
        return {name: _numbers(item) for name, item in data.items()}
    return [_numbers(item) for item in data] if isinstance(data, list) else _exact(data)


def _whole(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < _DIGITS else Decimal(digits)


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is no value of JSON")


def _only_patterns(jsonschema: _Draft) -> _Draft:
    """What checks the patterns of a schema, and no other format."""
    checker = jsonschema.FormatChecker(formats=())

    def readable(pattern: Json) -> bool:
        if isinstance(pattern, str) and _linear(pattern) is None:
            _backtracking(pattern)
        return True

    checker.checks("regex", raises=re.error)(readable)
    return checker


def _translated(pattern: str) -> str:
    """An ECMAScript pattern as Python has it, for `re.ASCII`, and RE2."""
    parts: list[str] = []
    inside = False  # of brackets
    for match in _PIECE.finditer(pattern):
        piece = match[0]
        digits = match[1] or match[4]
        if digits or match[2]:
            high, low = (int(half, 16) & 0x3FF for half in (match[2] or "0", match[3] or "0"))
            code = int(digits, 16) if digits else 0x10000 + (high << 10 | low)
            parts.append(re.escape(chr(code)) if code <= 0x10FFFF else piece)
        elif match[5]:
            parts.append(f"(?P={match[5]})")
        elif inside:
            inside = piece not in ("]", "[]", "[^]")
            parts.append(_BLANKS if piece == r"\s" else "\\" + piece if piece[0] in "[&~|" else piece)
        else:
            inside = piece == "["
            parts.append(_MEANT.get(piece, piece))
    return "".join(parts)


@lru_cache(maxsize=256)
def _linear(pattern: str) -> Callable[[str], bool] | None:
    """A search in time linear in the text; None for a pattern with more than regular means, or without RE2."""
    try:
        import re2
    except ImportError:
        return None
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(_translated(pattern).replace(_END, "$"), options)
    except (re2.error, re.error, UnicodeError):
        return None
    return lambda text: compiled.search(text.encode("utf-8", "replace").decode()) is not None


@lru_cache(maxsize=256)
def _backtracking(pattern: str) -> re.Pattern[str]:
    """The pattern as Python has it. Raises re.error where it cannot be read."""
    try:
        return re.compile(_translated(pattern), re.ASCII)
    except (OverflowError, RecursionError) as error:
        raise re.error(str(error)) from None
