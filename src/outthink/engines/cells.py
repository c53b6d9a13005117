"""What a cell of a data file means: text, a name, a count, a truth value, or nothing.

Knows: what JSON, CSV and Arrow put into a cell, what tables make of whole numbers with a gap, and which values are
refused. Does not know columns, files, or what a question, a gold answer or a sample is.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from outthink.core.text import writable

Scalar: TypeAlias = str | bytes | float | Decimal | datetime.date | datetime.time | datetime.timedelta | None
Cell: TypeAlias = "Scalar | Sequence[Cell] | Mapping[str, Cell]"
Arrow = Any
"""An array, table or file of pyarrow, which has no types."""
_MOST = 1 << 63
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


class BadCell(ValueError):
    """Why a cell cannot be used, as words that follow its column's name."""


def empty(value: Cell) -> bool:
    """Whether a cell holds nothing: null, or the NaN that tables write for it."""
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def decoded(value: Cell) -> Cell:
    """Bytes as UTF-8, everything else as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadCell("is no UTF-8") from None


def text_of(value: Cell) -> str | None:
    """A scalar as text: numbers as decimals, dates in ISO's form. None for nothing: null, NaN, blank text."""
    value = decoded(value)
    if isinstance(value, str):
        return writable(value) if value.strip() else None
    if empty(value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value):
        # Tables turn whole numbers into floats where one of them is missing; 0 has no sign.
        return format(Decimal(repr(value or 0.0)), "f").removesuffix(".0")
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        raise BadCell("is an object")
    if isinstance(value, Sequence):
        raise BadCell("is a list")
    return str(value)


def name_of(value: Cell) -> str | None:
    """A name: text or a whole number. None for nothing."""
    value = decoded(value)
    if isinstance(value, str) or empty(value):
        return text_of(value)
    number = _whole(value)
    if number is None:
        raise BadCell("is neither text nor a whole number")
    return str(number)


def count_of(value: Cell) -> int | None:
    """A whole number of at least 0, also as text; None for nothing, which is unknown and not 0."""
    value = decoded(value)
    if isinstance(value, str):
        value = value.strip() or None
    if empty(value):
        return None
    if isinstance(value, str):
        number = int(value) if value.isdecimal() and len(value) < len(str(_MOST)) else None
    else:
        number = _whole(value)
    if number is None or not 0 <= number < _MOST:
        raise BadCell("is no whole number")
    return number


def place_of(value: Cell) -> int:
    """A whole number of at least 0, also as text."""
    number = count_of(value)
    if number is None:
        raise BadCell("is no whole number")
    return number


def truth_of(value: Cell) -> bool | None:
    """A truth value, 0 or 1, or such text; None for nothing. Scores are refused: how many points are right?"""
    value = decoded(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        value = value.strip().lower() or None
    if empty(value):
        return None
    known = _TRUTHS.get(value if isinstance(value, str) else str(_whole(value)))
    if known is None:
        raise BadCell("is no truth value")
    return known


def _whole(value: Cell) -> int | None:
    """A number without fraction, None for everything else; a truth value is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    return int(value) if math.isfinite(value) and value == int(value) else None


def is_listed(kind: Arrow) -> bool:
    """Whether an Arrow type is one of lists, of whatever layout."""
    import pyarrow as pa

    types = pa.types
    whole = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(whole or types.is_list_view(kind) or types.is_large_list_view(kind))


def cells_of(array: Arrow) -> list[Any]:
    """The cells of an Arrow array as Python has them.

    A short float becomes the double of its own shortest decimal (0.1, not 0.10000000149), and a time that Python
    cannot hold its text.
    """
    import pyarrow as pa

    kind, types = array.type, pa.types
    if types.is_dictionary(kind):
        return cells_of(array.dictionary_decode())
    if types.is_float16(kind) or types.is_float32(kind):
        cells = zip(array.to_numpy(zero_copy_only=False), array.is_valid().to_pylist(), strict=True)
        return [float(str(cell)) if valid else None for cell, valid in cells]
    if types.is_struct(kind):
        parts = {field.name: cells_of(part) for field, part in zip(kind, array.flatten(), strict=True)}
        valid = array.is_valid().to_pylist()
        return [{name: part[row] for name, part in parts.items()} if valid[row] else None for row in range(len(array))]
    if is_listed(kind):
        return _lists(array)
    try:
        return list(array.to_pylist())
    except (ValueError, OverflowError, LookupError):  # nanoseconds, a year beyond 9999, a time zone of its own
        plain = array.cast(pa.timestamp(kind.unit)) if types.is_timestamp(kind) else array
        return list(plain.cast(pa.string()).to_pylist())


def _lists(array: Arrow) -> list[Any]:
    import pyarrow.compute as compute

    items = iter(cells_of(array.flatten()))  # without those of nulls
    sizes = compute.list_value_length(array).to_pylist()
    return [None if size is None else [next(items) for _ in range(size)] for size in sizes]


def column_of(table: Arrow, name: str) -> list[Any]:
    """The cells of a table's column."""
    return [cell for chunk in table[name].chunks for cell in cells_of(chunk)]
