"""JSON in one form only, so that equal contents are equal bytes and two versions can be compared in review.

Knows: sorted keys, one key a line, long lists of numbers wrapped. Does not know what the values mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

_A_LINE = 24
"""Numbers or short texts of a list on one line."""


def canonical(value: Any) -> str:
    """The text of a JSON value, with a newline at its end. Raises ValueError for NaN and infinity."""
    return _text(value, 0) + "\n"


def digest(value: Any) -> str:
    """`sha256:` and the hash of the canonical text."""
    return "sha256:" + hashlib.sha256(canonical(value).encode()).hexdigest()


def _text(value: Any, depth: int) -> str:
    inner, outer = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, Mapping):
        if not value:
            return "{}"
        pairs = (f"{_scalar(str(key))}: {_text(value[key], depth + 1)}" for key in sorted(value))
        return "{" + inner + ("," + inner).join(pairs) + outer + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(item, (Mapping, list, tuple)) for item in value):
            return "[" + inner + ("," + inner).join(_text(item, depth + 1) for item in value) + outer + "]"
        lines = [", ".join(map(_scalar, value[at : at + _A_LINE])) for at in range(0, len(value), _A_LINE)]
        return "[" + ("," + inner).join(lines) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
