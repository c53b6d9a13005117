"""What may stand in a cell of a file of samples, and what it means: a name, a place, a count, an answer, a truth value.

Knows: the types that Arrow and JSON give, and what tables make of whole numbers with a gap. Does not know columns.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

Scalar: TypeAlias = str | bytes | float | Decimal | datetime.date | datetime.time | datetime.timedelta | None
Cell: TypeAlias = "Scalar | Sequence[Cell] | Mapping[str, Cell]"

_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


class BadCell(ValueError):
    """Why a cell cannot be used, as words that follow its column's name."""


def text_of(value: Cell) -> str | None:
    """Text; numbers as text would write them, bytes as UTF-8. None for nothing: null, NaN, empty text."""
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bytes):
        try:
            return value.decode() or None
        except UnicodeDecodeError:
            raise BadCell("is no UTF-8") from None
    if isinstance(value, float):
        if math.isnan(value):
            return None
        # Tables turn whole numbers into floats where one of them is missing.
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, Decimal):
        return None if value.is_nan() else f"{value:f}"
    if isinstance(value, Mapping):
        raise BadCell("is an object")
    if isinstance(value, Sequence):
        raise BadCell("is a list")
    return str(value)


def name_of(value: Cell) -> str:
    """A name: text or a whole number."""
    known = value if isinstance(value, str | bytes) else _whole(value)
    name = text_of(known)
    if name is None:
        raise BadCell("is neither text nor a whole number" if known is None and value is not None else "is empty")
    return name


def place_of(value: Cell) -> int:
    """A whole number of at least 0, also as text."""
    number = count_of(value)
    if number is None:
        raise BadCell("is no whole number")
    return number


def count_of(value: Cell) -> int | None:
    """A whole number of at least 0, also as text; None for nothing, which is unknown and not 0."""
    if isinstance(value, str):
        if not value.strip():
            return None
        number = int(value) if value.strip().isdecimal() else None
    elif value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    else:
        number = _whole(value)
    if number is None or number < 0:
        raise BadCell("is no whole number")
    return number


def truth_of(value: Cell) -> bool | None:
    """A truth value, 0 or 1, or such text; None for nothing. Scores are refused: how many points are right?"""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if not value.strip():
            return None
        known = _TRUTHS.get(value.strip().lower())
    elif value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    else:
        known = {0: False, 1: True}.get(number) if (number := _whole(value)) is not None else None
    if known is None:
        raise BadCell("is no truth value")
    return known


def _whole(value: Cell) -> int | None:
    """A number without fraction, None for everything else; a truth value is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    finite = value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
    return int(value) if finite and value == int(value) else None
