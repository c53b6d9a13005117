r"""Canonical keys of mathematical answers, and grading; runs in a worker process, for it imports sympy.

Two answers are equal exactly if their keys are: integers, fractions and finite decimals by value, other numbers by 50
digits rounded to 30, expressions by their values at fixed points, and sets, tuples, intervals, relations, bases and
words by their parts. No tolerance, so that equality is an equivalence. Grading alone allows for rounding. Knows
math-verify for what has no key. Does not know where an answer stands in a text.
"""

from __future__ import annotations

import hashlib
import re
import signal
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, ParamSpec, TypeVar

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
from outthink.answers.math.value import NoValue, Number, TooLarge, free_symbols, unknown_at, value

if TYPE_CHECKING:
    from types import FrameType

    from sympy import Basic

P = ParamSpec("P")
R = TypeVar("R")

_SOFT = 2  # seconds of processor time for one parse or one comparison
_POINTS = 3  # at which expressions with unknowns are compared
_TOLERANCE = Fraction(1, 10**6)  # of a rounded answer, relative


class _TooLong(Exception):
    """Out of processor time."""


def timeout(seconds: float) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`math_verify.utils.timeout` by processor time; that one sets an alarm on the wall clock.

    The virtual timer interrupts the interpreter, so that sympy can be left.
    """

    def decorator(function: Callable[P, R]) -> Callable[P, R]:
        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            if not hasattr(signal, "setitimer"):
                return function(*args, **kwargs)
            signal.signal(signal.SIGVTALRM, _overrun)
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            try:
                return function(*args, **kwargs)
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)

        return limited

    return decorator


def _overrun(number: int, frame: FrameType | None) -> None:
    raise _TooLong


# Keys.


@timeout(_SOFT)
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
    named = [_named(part) for part in parts]
    names = {name for name, _ in named}
    if len(names) == 1:  # `x = 1 or x = 2` is `1, 2`
        parts = [worth for _, worth in named]
    found: set[str] = set()
    for part in parts:
        one = _one_key(part)
        if one is None:
            return None
        found.update(one[1:-1].split(";") if one.startswith("{") else [one])
    return _set_of(found)


def _set_of(found: set[str]) -> str:
    return "{" + ";".join(sorted(found)) + "}"


_NAME = re.compile(r"(?:\\?[A-Za-z]+|\\text\{[^{}]*\})(?:_(?:\{\w+\}|\w))?'*(?:\s*\([A-Za-z, ]*\))?|\([A-Za-z, ]+\)")


def _named(text: str) -> tuple[str, str]:
    """(name, value) of `x = 5`, `f(x) = x^2`, `x \\in [1, 2]`; no name for what names nothing."""
    parts, _ = cut_at(text, ("=", r"\in"))
    if len(parts) == 2 and _NAME.fullmatch(parts[0]) and parts[1]:
        return parts[0], parts[1]
    return "", text


def _one_key(text: str) -> str | None:
    number = canonical_number(text)
    if number is not None:
        return number
    if (spoken := words(text)) is not None:
        return f"w:{spoken}"
    if text.count("\\begin"):
        return _matrix_key(text)
    if (base := _BASE.fullmatch(text)) is not None:
        return f"b:{base[1].lstrip('0').upper() or '0'}:{_BASES.get(base[2], base[2])}"
    parts, _ = cut_at(text, (r"\cup",))
    if len(parts) > 1:
        return _set_key(parts)
    if (held := bracketed(text)) is not None:
        return _bracket_key(*held)
    _, signs = cut_at(text, RELATIONS)
    if signs:
        return _relation_key(text)
    name, worth = _named(text)
    if name:
        return _list_key(worth)
    return _expression_key(text)


_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
_BASES |= {"ten": "10", "twelve": "12", "sixteen": "16"}
_NAMED_BASE = "|".join(("[0-9]+", *_BASES))
_BASE = re.compile(rf"\(?([0-9][0-9A-Fa-f]*)\)?\s*_\s*(?:\{{\s*)?(?:\\text\{{\s*)?({_NAMED_BASE})(?:\s*\}})*")


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


def _relation_key(text: str) -> str | None:
    parts, signs = cut_at(text, RELATIONS)
    if any(not part for part in parts):
        return None
    if set(signs) == {"="}:
        name, last = parts[0], parts[-1]
        if (_NAME.fullmatch(name) or not _unknowns(name)) and not _unknowns(last):
            return _list_key(last)
        if re.fullmatch(r"\\?[A-Za-z]+\s*\(.*\)|\\text\{.*\}", name) or (len(name) > 2 and words(name)):
            return _list_key(last)
        return _equation_key(parts)
    if signs == [r"\neq"] and _is_unknown(parts[0]):
        hole = _list_key(parts[1])
        return None if hole is None else _set_of({f"(-oo,{hole})", f"({hole},oo)"})
    return _interval_key(parts, signs) or _text_key(text)


def _unknowns(text: str) -> bool:
    try:
        return bool(free_symbols(_parsed(text)))
    except Exception:  # noqa: BLE001 - what cannot be parsed as one expression has no unknowns of its own
        return False


def _is_unknown(text: str) -> bool:
    return re.fullmatch(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?", text) is not None and text not in (r"\pi", "e", r"\infty")


def _equation_key(parts: list[str]) -> str | None:
    """Both sides' difference up to a factor: `y = 2x` and `2x - y = 0` are one equation."""
    left, right = _parsed(without_units(parts[0])), _parsed(without_units(parts[-1]))
    differences = [value(left, point) - value(right, point) for point in range(_POINTS)]
    if not differences[0]:
        return "=" + ",".join(_digits(difference) for difference in differences)
    return "=" + ",".join(_digits(difference / differences[0]) for difference in differences[1:])


def _interval_key(parts: list[str], signs: list[str]) -> str | None:
    """An inequality in one unknown as its interval."""
    if signs[0] in (">", r"\geq"):
        parts, signs = parts[::-1], [_TURNED.get(sign, sign) for sign in reversed(signs)]
    if any(sign not in ("<", r"\leq") for sign in signs):
        return None
    ends = {"<": ("(", ")"), r"\leq": ("[", "]")}
    if len(parts) == 3 and _is_unknown(parts[1]):
        low, high = _list_key(without_units(parts[0])), _list_key(without_units(parts[2]))
        return None if low is None or high is None else f"{ends[signs[0]][0]}{low},{high}{ends[signs[1]][1]}"
    if len(parts) != 2:
        return None
    if _is_unknown(parts[0]) and not _unknowns(parts[1]):
        high = _list_key(without_units(parts[1]))
        return None if high is None else f"(-oo,{high}{ends[signs[0]][1]}"
    if _is_unknown(parts[1]) and not _unknowns(parts[0]):
        low = _list_key(without_units(parts[0]))
        return None if low is None else f"{ends[signs[0]][0]}{low},oo)"
    left, right = _parsed(parts[0]), _parsed(parts[1])
    differences = [value(right, point) - value(left, point) for point in range(_POINTS)]
    unknown = free_symbols(left) | free_symbols(right)
    if len(unknown) == 1 and (solved := _linear(min(unknown), differences)) is not None:
        rises, border = solved
        low, high = ends[signs[0]]
        return f"{low}{border},oo)" if rises else f"(-oo,{border}{high}"
    size = abs(differences[0]) or 1  # a positive factor changes nothing
    return signs[0] + ",".join(_digits(difference / size) for difference in differences)


def _linear(name: str, values: list[Number]) -> tuple[bool, str] | None:
    """Where a linear function of one unknown crosses zero, and whether it rises there; None for any other function."""
    if not all(isinstance(number, Fraction) for number in values):
        return None
    at = [unknown_at(name, point) for point in range(_POINTS)]
    slope, other = ((values[i] - values[0]) / (at[i] - at[0]) for i in (1, 2))
    return None if slope != other or not slope else (slope > 0, _number_key(at[0] - values[0] / slope))


# Expressions.


@lru_cache(maxsize=8192)
def _parsed(text: str) -> Basic:
    return latex2sympy(parsable(text), is_real=None)


def _expression_key(text: str) -> str | None:
    if text == r"\emptyset":
        return _set_of(set())
    sign, size = ("-", text[1:].strip()) if text.startswith("-") else ("", text.lstrip("+ "))
    if size in (r"\infty", "inf", "infinity"):
        return f"{sign}oo"
    bare = without_units(text)
    if bare != text:
        return _one_key(bare)
    try:
        expression = _parsed(text)
        values = [value(expression, point) for point in range(_POINTS)]
    except TooLarge:
        return "h:" + re.sub(r"\s", "", text)
    except NoValue:
        return _text_key(text)
    except (_TooLong, MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001 - the parser raises plain Exceptions for what it does not read
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


# Grading.


def _decimal_of(found: str) -> Fraction | None:
    if (exact := value_of(found)) is not None:
        return exact
    if not found.startswith("r:"):
        return None
    number = mpmath.mpf(found[2:])
    return (
        Fraction(int(number.man) * (-1 if number < 0 else 1)) * Fraction(2) ** int(number.exp)
        if number
        else Fraction(0)
    )


def _rounded(left: str, right: str) -> bool:
    """Whether one of two keys is the other rounded to six digits or more: `0.333333` and 1/3."""
    decimals = [re.fullmatch(r"-?[0-9]+\.[0-9]+", found) is not None for found in (left, right)]
    if decimals[0] == decimals[1]:
        return False
    a, b = _decimal_of(left), _decimal_of(right)
    other = right if decimals[0] else left
    if a is None or b is None or (value_of(other) is not None and "/" not in other):
        return False
    return abs(a - b) <= _TOLERANCE * max(abs(a), abs(b))


def _right(gold: str, answer: str) -> bool:
    """Whether two keys are equal in grading: rounded, and a number of another base without it."""
    if gold == answer or _rounded(gold, answer):
        return True
    for left, right in ((gold, answer), (answer, gold)):
        if left.startswith("b:") and right == left.split(":")[1]:
            return True
    if gold[:1] == answer[:1] and gold[:1] in "([{" and gold[-1:] == answer[-1:]:
        separator = ";" if gold[0] == "{" else ","
        golds, answers = gold[1:-1].split(separator), answer[1:-1].split(separator)
        return len(golds) == len(answers) and all(map(_right, golds, answers))
    return False


def grade(gold: str, answer: str) -> bool:
    """Whether `answer` is right for `gold`; what cannot be decided in time is wrong."""
    left, right = key(gold), key(answer)
    if left is not None and right is not None and not (left[:2] == "t:" or right[:2] == "t:"):
        if _right(left, right):
            return True
        # `2x` is right for `y = 2x`, though in a vote an equation is another answer.
        for one, other in ((gold, right), (answer, left)):
            name, worth = _named(normal(one))
            if name and key(worth) == other:
                return True
        return False
    return (left is not None and left == right) or _verified(gold, answer)


def grade_all(pairs: list[tuple[str, str]]) -> list[bool]:
    """`grade` of several (gold, answer) pairs."""
    return [grade(gold, answer) for gold, answer in pairs]


def _verified(gold: str, answer: str) -> bool:
    """math-verify's opinion of what has no key, asked in both directions, since it is not symmetric."""
    from math_verify import grader, parse, parser, verify
    from math_verify.errors import TimeoutException

    parser.timeout = grader.timeout = lambda timeout_seconds: timeout(timeout_seconds)
    try:
        left, right = (parse(rf"\boxed{{{text}}}", parsing_timeout=_SOFT) for text in (gold, answer))
        return bool(left and right) and all(
            verify(one, other, timeout_seconds=_SOFT) for one, other in ((left, right), (right, left))
        )
    except (Exception, TimeoutException):  # noqa: BLE001 - no opinion
        return False
