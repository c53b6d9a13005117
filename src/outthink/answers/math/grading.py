"""Grading: when an answer is right for a gold answer, which is milder than equality in a vote.

Knows rounding, a base that is left out, and math-verify for what has no key. Does not know votes. It runs in a worker
process, for it imports sympy.
"""

from __future__ import annotations

import re
from fractions import Fraction

from outthink.answers.literal import value_of
from outthink.answers.math.form import normal
from outthink.answers.math.keys import SOFT, key, named, timeout

_TOLERANCE = Fraction(1, 10**6)  # of a rounded answer, relative


def _decimal_of(found: str) -> Fraction | None:
    if (exact := value_of(found)) is not None:
        return exact
    return Fraction(found[2:]) if found.startswith("r:") else None


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


def _nameless(found: str) -> str:
    """A set of named values without the names."""
    if not found.startswith("{"):
        return found
    items = (item if item.find("=") < 1 else item.partition("=")[2] for item in found[1:-1].split(";"))
    return "{" + ";".join(sorted(items)) + "}"


def _right(gold: str, answer: str) -> bool:
    """Whether two keys are equal in grading: rounded, and a number of another base without it."""
    if gold == answer or _rounded(gold, answer):
        return True
    for left, right in ((gold, answer), (answer, gold)):
        if left.startswith("b:") and right == left.split(":")[1]:
            return True
    bare = [_nameless(found) for found in (gold, answer)]
    if (bare[0] == gold) != (bare[1] == answer):  # `1, 2` is right for `x = 1, y = 2`
        return _right(bare[0], bare[1])
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
            name, worth = named(normal(one))
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
        left, right = (parse(rf"\boxed{{{text}}}", parsing_timeout=SOFT) for text in (gold, answer))
        return bool(left and right) and all(
            verify(one, other, timeout_seconds=SOFT) for one, other in ((left, right), (right, left))
        )
    except (Exception, TimeoutException):  # noqa: BLE001 - no opinion
        return False
