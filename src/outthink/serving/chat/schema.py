"""Whether a value satisfies a client's JSON schema, within bounds.

Knows jsonschema, and what a hostile schema could do with it: references fetch nothing, regular
expressions are left out (they can take for ever; the backend's own decoding heeds them), and a check
that takes too many steps counts as failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from outthink.serving.failure import Failure, bad_field

Check = Callable[[Any], bool]
_STEPS = 10_000
_SIZE = 200_000  # characters of a schema
_SLOW = ("pattern", "patternProperties", "format")


class _TooMuch(Exception):
    """The check has taken all its steps."""


def check_of(schema: Mapping[str, Any], field: str) -> Check:
    """A check by a schema. Raises Failure where the schema is none."""
    if len(json.dumps(schema)) > _SIZE:
        raise bad_field(field, "...", f"is longer than {_SIZE} characters", "send a smaller schema")
    try:
        import jsonschema
        import referencing
    except ImportError:
        raise Failure(501, f"{field}: this proxy lacks jsonschema; install outthink[serve]", param=field) from None
    draft: Any = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    counted = _Counted(draft)
    try:
        counted.begin()
        draft.check_schema(schema)
    except (jsonschema.SchemaError, RecursionError) as error:
        told = getattr(error, "message", "it is nested too deeply")
        raise bad_field(field, "...", f"is no valid JSON schema: {told[:200]}", "mend it") from None
    validator = counted.made(schema, referencing.Registry())
    missing = referencing.exceptions.Unresolvable

    def check(value: Any) -> bool:
        counted.begin()
        try:
            return next(validator.iter_errors(value), None) is None
        except (missing, RecursionError, _TooMuch):
            return False

    return check


class _Counted:
    """A draft whose keywords count their steps."""

    def __init__(self, draft: Any) -> None:
        import jsonschema

        keywords = {name: self._counting(rule) for name, rule in draft.VALIDATORS.items() if name not in _SLOW}
        extend: Any = jsonschema.validators.extend
        self._class: Any = extend(draft, {**keywords, **dict.fromkeys(_SLOW)})
        self._left = _STEPS

    def begin(self) -> None:
        """Another check: all steps anew."""
        self._left = _STEPS

    def made(self, schema: Mapping[str, Any], registry: Any) -> Any:
        """A validator that fetches nothing."""
        return self._class(schema, registry=registry)

    def _counting(self, rule: Any) -> Callable[..., Iterator[Any]]:
        def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            self._left -= 1
            if self._left < 0:
                raise _TooMuch
            yield from rule(validator, value, instance, schema) or ()

        return counted
