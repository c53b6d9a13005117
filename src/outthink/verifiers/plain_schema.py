"""Schemas that are valid at first sight: what most tools declare, checked in microseconds a property.

Knows the usual keywords and what they take. Does not know JSON texts, or any other keyword.
"""

from __future__ import annotations

from outthink.http.events import Json

_SIMPLE_TYPES = frozenset(("string", "number", "integer", "boolean", "object", "array", "null"))
_BOUNDS = frozenset(("minLength", "maxLength", "minItems", "maxItems"))


def is_plain(schema: Json) -> bool:
    """Whether this is a valid schema of the latest draft made of the usual keywords alone; False tells nothing."""
    left = [schema]
    while left:
        node = left.pop()
        if isinstance(node, bool):
            continue
        if not isinstance(node, dict):
            return False
        for name, value in node.items():
            right = True
            if name == "type" or name in ("description", "title"):
                right = isinstance(value, str) and (name != "type" or value in _SIMPLE_TYPES)
            elif name == "properties" and isinstance(value, dict):
                left += value.values()
            elif name in ("items", "additionalProperties"):
                left.append(value)
            elif name == "required":
                names = [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
                right = value == names and len(set(names)) == len(names)
            elif name == "enum":
                right = isinstance(value, list)
            elif name in _BOUNDS:
                right = type(value) is int and value >= 0
            else:
                right = name == "default"
            if not right:
                return False
    return True
