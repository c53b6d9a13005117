r"""Canonical keys of mathematical answers; runs in a worker process, for it imports sympy.

Two answers are equal exactly if their keys are: integers, fractions and finite decimals by value, other numbers by 50
digits rounded to 30, expressions by their values at fixed points, and sets, tuples, intervals, relations, bases and
words by their parts. No tolerance, so that equality is an equivalence. Does not know where an answer stands in a text.
"""

from __future__ import annotations

import hashlib
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import mpmath
from latex2sympy2_extended import latex2sympy

from outthink.answers.literal import canonical_number, shown, value_of
from outthink.answers.math.form import (
    LONGEST,
    RELATIONS,
    bracketed,
    cut_at,
    items,
    normal,
    parsable,
    without_units,
    words,
)
from outthink.answers.math.inequality import POINTS, Interval, bound, intervals
from outthink.answers.math.value import NoValue, Number, TooLarge, difference, free_symbols, quotient, unknown_at, value

if TYPE_CHECKING:
    from types import FrameType

    from sympy import Basic

SOFT = 2  # seconds of processor time for one parse or one comparison
_POINTS = 3  # at which expressions with unknowns are compared


class _TooLong(Exception):
    """Out of processor time."""


@contextmanager
def timeout(seconds: float) -> Iterator[None]:
    """`math_verify.utils.timeout`, a decorator, by processor time; that one sets an alarm on the wall clock.

    The virtual timer interrupts the interpreter, so that sympy can be left.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.signal(signal.SIGVTALRM, _overrun)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _overrun(number: int, frame: FrameType | None) -> None:
    raise _TooLong


# Keys.


@timeout(SOFT)
def _key(text: str) -> str | None:
    return _list_key(normal(text))


@lru_cache(maxsize=8192)
def key(answer: str) -> str | None:
    """The canonical key of an answer: equal answers have equal keys. None for what cannot be read in time."""
    if len(answer) > LONGEST:
        return None
    try:
        return _key(answer)
    except (_TooLong, MemoryError, RecursionError, NoValue):
        return None


def _list_key(text: str) -> str | None:
    if not text:
        return None
    if re.search(rf"{_PLUS}|{_MINUS}", text):
        both = [re.sub(_PLUS, one, re.sub(_MINUS, other, text)) for one, other in ("+-", "-+")]
        return _set_key([item.lstrip("+ ") for one in both for item in _members(one)])
    parts = _members(text)
    if len(parts) == 1:
        return _one_key(text)
    found = _set_key(parts)
    return found[1:-1] if found is not None and ";" not in found else found  # `1, 1` says 1 twice


_PLUS, _MINUS = r"\\pm(?![A-Za-z])", r"\\mp(?![A-Za-z])"


def _members(text: str) -> list[str]:
    parts = items(text)
    # `\{1, 2\}` is one item, and its own brackets are those of a set.
    inside = bracketed(text) if len(parts) == 1 else None
    return items(inside[1], bracketed=True) if inside and inside[0] == r"\{" and "=" not in inside[1] else parts


def _set_key(parts: list[str]) -> str | None:
    values = [named(part) for part in parts]
    names = [re.sub(r"_(?:\{\w+\}|\w)", "", name) for name, _ in values]
    if len(set(names)) == 1:  # `x = 1 or x = 2` is `1, 2`
        parts = [worth for _, worth in values]
    several = len(set(names)) > 1 and all(names)  # `x = 1, y = 2` is not `x = 2, y = 1`
    found: set[str] = set()
    for part, (name, worth) in zip(parts, values, strict=True):
        one = _one_key(worth if several else part)
        if one is None:
            return None
        if several:
            one = f"{name}={one}"
        found.update(one[1:-1].split(";") if one.startswith("{") else [one])
    return _set_of(found)


def _set_of(found: set[str]) -> str:
    return "{" + ";".join(sorted(found)) + "}"


_NAME = re.compile(
    r"(?:m?\\angle\s*[A-Z]+|\\(?:vec|overline)\s*\{\w+\}|\\?[A-Za-z]+|\\text\{[^{}]*\})"
    r"(?:_(?:\{\w+\}|\w))?'*(?:\^\{-1\})?(?:\s*\([A-Za-z, ]*\))?|\([A-Za-z, ]+\)"
)


def named(text: str) -> tuple[str, str]:
    """(name, value) of `x = 5`, `f(x) = x^2`, `x \\in [1, 2]`; no name for what names nothing."""
    parts, _ = cut_at(text, ("=", r"\in"))
    if len(parts) == 2 and _NAME.fullmatch(parts[0]) and parts[1]:
        return parts[0], parts[1]
    return "", text


def _one_key(text: str) -> str | None:
    number = canonical_number(text)
    if number is not None:
        return number
    if text in ("\\real", "\\text{all real numbers}", "all real numbers"):
        return "(-oo,oo)"
    if (spoken := words(text)) is not None:
        return f"w:{spoken}"
    if text.count("\\begin"):
        return _matrix_key(text)
    if (base := _BASE.fullmatch(text)) is not None:
        return f"b:{base[1].lstrip('0').upper() or '0'}:{_BASES.get(base[2], base[2])}"
    parts, _ = cut_at(text, (r"\cup",))
    if len(parts) > 1:
        return _set_key(parts)
    if (hole := re.fullmatch(r"\\real\s*(?:\\(?:setminus|backslash)|-)\s*\\\{(.+)\\\}", text)) is not None:
        return _hole_key(hole[1])
    if (held := bracketed(text)) is not None:
        return _bracket_key(*held)
    _, signs = cut_at(text, RELATIONS)
    if signs:
        return _relation_key(text)
    name, worth = named(text)
    if name:
        return _list_key(worth)
    return _expression_key(text)


_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
_BASES |= {"ten": "10", "twelve": "12", "sixteen": "16"}
_NAMED_BASE = "|".join(("[0-9]{1,2}", *_BASES))
_BASE = re.compile(
    rf"\(?([0-9][0-9A-Fa-f]*(?:\.[0-9A-Fa-f]+)?)\)?\s*_\s*(?:\{{\s*)?(?:\\text\{{\s*)?\(?({_NAMED_BASE})\)?(?:\s*\}})*"
)


def _bracket_key(opens: str, inside: str, closes: str) -> str | None:
    parts = items(inside, bracketed=True)
    if opens == r"\{":
        if cut_at(inside, (r"\mid", "|", ":"))[1]:
            return _text_key(rf"\{{{inside}\}}")
        return _set_of(set()) if not parts else _set_key(parts)
    if len(parts) == 1:
        return _list_key(parts[0])
    found = [_one_key(part) for part in parts]
    return None if None in found or not found else opens + ",".join(filter(None, found)) + closes


def _matrix_key(text: str) -> str | None:
    text = text.strip("([])")  # a plain `matrix` has its brackets outside
    text = re.sub(r"\\begin\{array\}\s*\{[lcr|]*\}(.*)\\end\{array\}", r"\\begin{matrix}\1\\end{matrix}", text)
    matrix = re.fullmatch(r"\\begin\{([pbvB]|small)?matrix\}(.*)\\end\{[pbvB]?(?:small)?matrix\}", text, re.DOTALL)
    if matrix is None:
        return _text_key(text)
    rows = [row for row in re.split(r"\\\\", matrix[2]) if row.strip()]
    cells = [[_one_key(cell.strip()) for cell in row.split("&")] for row in rows]
    if any(cell is None for row in cells for cell in row):
        return None
    kind = "|" if matrix[1] == "v" else "M"
    return kind + "/".join(",".join(cell or "" for cell in row) for row in cells) + kind


def _text_key(text: str) -> str:
    return "t:" + re.sub(r"\s", "", text)


# Relations.

_TURNED = {"<": ">", ">": "<", r"\leq": r"\geq", r"\geq": r"\leq"}
_ENDS = {"<": ("(", ")"), r"\leq": ("[", "]")}
_SIZE = re.compile(r"(?:\||\\[lr]?vert(?![A-Za-z]))([^|]+?)(?:\||\\[lr]?vert)")


def _relation_key(text: str) -> str | None:
    try:
        return _of_relation(text)
    except NoValue:
        return _text_key(text)


def _of_relation(text: str) -> str | None:
    parts, signs = cut_at(text, RELATIONS)
    if r"\approx" in signs[1:] or (signs[0] == r"\approx" and parts[0] and not _NAME.fullmatch(parts[0])):
        return _list_key(text[: text.index(r"\approx")].strip())  # `1/6 \approx 0.167` is exactly 1/6
    if signs == [r"\approx"] or (signs == ["="] and not parts[0]):
        return _list_key(parts[1])
    if any(not part for part in parts):
        return None
    if set(signs) == {"="}:
        name, last = parts[0], without_units(parts[-1])
        if (_NAME.fullmatch(name) or not _unknowns(name)) and not _unknowns(last):
            return _list_key(last)
        if re.fullmatch(r"\\?[A-Za-z]+(?:\^\{-1\})?\s*\(.*\)|\\text\{.*\}", name) or (len(name) > 2 and words(name)):
            return _list_key(last)
        return _equation_key(parts)
    if signs == [r"\neq"] and any(map(_is_unknown, parts)):
        return _hole_key(parts[1] if _is_unknown(parts[0]) else parts[0])
    return _interval_key(parts, signs) or _text_key(text)


def _hole_key(text: str) -> str | None:
    """All numbers but one."""
    hole = _list_key(text)
    return None if hole is None else _set_of({f"(-oo,{hole})", f"({hole},oo)"})


def _unknowns(text: str) -> frozenset[str]:
    try:
        return free_symbols(_parsed(text))
    except NoValue:  # what cannot be parsed as one expression has no unknowns of its own
        return frozenset()


def _is_unknown(text: str) -> bool:
    return re.fullmatch(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?", text) is not None and text not in (r"\pi", "e", r"\infty")


def _difference(left: str, right: str, points: int = _POINTS) -> list[Number]:
    """`left` less `right` at the fixed points."""
    one, other = _parsed(without_units(left)), _parsed(without_units(right))
    return [difference(value(one, point), value(other, point)) for point in range(points)]


def _equation_key(parts: list[str]) -> str | None:
    """Both sides' difference up to a factor: `y = 2x` and `2x - y = 0` are one equation."""
    differences = _difference(parts[0], parts[-1])
    first = differences[0]
    return "=" + ",".join(_digits(quotient(other, first)) if first else _digits(other) for other in differences[1:])


def _interval_key(parts: list[str], signs: list[str]) -> str | None:
    """An inequality in one unknown as its interval."""
    if signs[0] in (">", r"\geq"):
        parts, signs = parts[::-1], [_TURNED.get(sign, sign) for sign in reversed(signs)]
    if any(sign not in _ENDS for sign in signs):
        return None
    if len(parts) == 3 and _is_unknown(parts[1]):
        low, high = _list_key(without_units(parts[0])), _list_key(without_units(parts[2]))
        return None if low is None or high is None else f"{_ENDS[signs[0]][0]}{low},{high}{_ENDS[signs[1]][1]}"
    if len(parts) == 2 and _is_unknown(parts[0]) and not _unknowns(parts[1]):
        high = _list_key(without_units(parts[1]))
        return None if high is None else f"(-oo,{high}{_ENDS[signs[0]][1]}"
    if len(parts) == 2 and _is_unknown(parts[1]) and not _unknowns(parts[0]):
        low = _list_key(without_units(parts[0]))
        return None if low is None else f"{_ENDS[signs[0]][0]}{low},oo)"
    if (solved := _solved(parts, signs)) is not None or len(parts) > 2:
        return solved
    differences = _difference(parts[1], parts[0])
    size = abs(differences[0]) or Fraction(1)  # a positive factor changes nothing
    return signs[0] + ",".join(_digits(quotient(other, size)) for other in differences)


def _solved(parts: list[str], signs: list[str]) -> str | None:
    """The intervals of inequalities in one unknown, of degree two at most; None for any other."""
    unknown = frozenset[str]().union(*map(_unknowns, parts))
    if len(unknown) != 1:
        return None
    at = [unknown_at(min(unknown), point) for point in range(POINTS)]
    bounds = []
    for left, right, sign in zip(parts, parts[1:], signs, strict=False):
        one = bound(at, _above(left, right), sign != "<")
        if one is None:
            return None
        bounds.append(one)
    return _set_of_intervals(intervals(bounds))


def _above(left: str, right: str) -> list[Number]:
    """How much `right` is more than `left`, of `|x| < 3` the squares, which say the same."""
    squares = [_square(part) for part in (left, right)]
    if any(square is None for square in squares) or not any(map(_SIZE.fullmatch, (left, right))):
        return _difference(right, left, POINTS)
    low, high = (square or [] for square in squares)
    return [difference(more, less) for less, more in zip(low, high, strict=True)]


def _square(part: str) -> list[Number] | None:
    """The square of a size, or of a constant that is not negative, at the fixed points."""
    size = _SIZE.fullmatch(part)
    if size is not None:
        return [number * number for number in _difference(size[1], "0", POINTS)]
    number = None if _unknowns(part) else value(_parsed(part))
    if number is None or isinstance(number, mpmath.mpc) or number < 0:
        return None
    exact = value_of(_number_key(number * number))
    return [number * number if exact is None else exact] * POINTS


def _set_of_intervals(found: list[Interval]) -> str:
    keys = {
        _number_key(low)
        if low is not None and low == high
        else f"{'[' if from_low else '('}{'-oo' if low is None else _number_key(low)},"
        f"{'oo' if high is None else _number_key(high)}{']' if to_high else ')'}"
        for low, from_low, high, to_high in found
    }
    return min(keys) if len(keys) == 1 else _set_of(keys)


# Expressions.


_APART = re.compile(r"(?<![_^])[0-9.]\s+[0-9.]")


@lru_cache(maxsize=8192)
def _parsed(text: str) -> Basic:
    try:
        return latex2sympy(parsable(text), is_real=None)
    except (_TooLong, MemoryError, RecursionError):
        raise
    except Exception as error:  # the parser raises plain Exceptions for what it does not read
        raise NoValue(str(error)) from error


def _expression_key(text: str) -> str | None:
    if text == r"\emptyset":
        return _set_of(set())
    sign, size = ("-", text[1:].strip()) if text.startswith("-") else ("", text.lstrip("+ "))
    if size in (r"\infty", "inf", "infinity"):
        return f"{sign}oo"
    bare = without_units(text)
    if bare != text:
        return _one_key(bare)
    if _APART.search(parsable(text)):  # `2 3` is no product
        return "t:" + "~".join(text.split())
    try:
        expression = _parsed(text)
        values = [value(expression, point) for point in range(_POINTS)]
    except TooLarge:
        return "h:" + re.sub(r"\s", "", text)
    except NoValue:
        return _text_key(text) if re.search(r"[0-9\\A-Za-z]", text) else None
    if not free_symbols(expression):
        return _number_key(values[0])
    found = [_digits(number) for number in values]
    if len(set(found)) == 1:  # `x - x + 1` is 1
        return _number_key(values[0])
    return "x:" + hashlib.sha256(",".join(found).encode()).hexdigest()[:24]


def _number_key(number: Number) -> str:
    if isinstance(number, Fraction):
        return _exact_key(number)
    if isinstance(number, mpmath.mpf):
        digits = (
            Fraction(mpmath.nstr(number, 30, min_fixed=-mpmath.inf, max_fixed=mpmath.inf)) if number else Fraction(0)
        )
        simple = digits.limit_denominator(10**6)
        if abs(digits - simple) <= abs(digits) / 10**28:  # `\cos 60^\circ` is 1/2
            return _exact_key(simple)
    return _digits(number)


def _exact_key(number: Fraction) -> str:
    # Beyond what is shown, only equality matters.
    long = f"{number.numerator:x}/{number.denominator:x}".encode()
    return shown(number) or f"n:{hashlib.sha256(long).hexdigest()}"


def _digits(number: Number) -> str:
    """A number to 30 digits."""
    if isinstance(number, Fraction):
        number = mpmath.mpf(number.numerator) / number.denominator
    if isinstance(number, mpmath.mpc):
        return f"c:{_real_digits(number.real)}:{_real_digits(number.imag)}"
    return f"r:{_real_digits(number)}"


def _real_digits(number: mpmath.mpf) -> str:
    return str(mpmath.nstr(number, 30)) if number else "0"
