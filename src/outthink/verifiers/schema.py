"""A JSON schema as a verifier.

Knows: what `jsonschema` says of a value. Does not know how JSON is found in a text (`read` is passed in),
and fetches nothing: a reference to another document is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from outthink.core.errors import BadInput
from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.verifiers.protocol import Aggregation, Kind, Score

_INSTALL = "pip install 'outthink[schema]'"
_LONG = 300  # characters of an explanation


class SchemaVerifier:
    """Scores 1 where the JSON found in a completion satisfies a schema, else 0 with the first violation.

    Args:
        schema: a JSON schema; its `$schema` names the draft, 2020-12 if absent. `format` is not checked.
        read: completion text -> the JSON text in it, None if there is none.
        id: names the schema; scores of different ids are never mixed.

    Raises BadInput for an invalid schema, or where jsonschema is not installed.
    """

    kind: Kind = "exact"
    model = "schema"
    parameters = 0
    separator = "\n\n"
    aggregation: Aggregation = "last"

    def __init__(self, schema: object, *, read: Callable[[str], str | None], id: str = "schema") -> None:
        try:
            import jsonschema
            import referencing
        except ImportError as error:
            raise BadInput("verifier", "schema", "needs jsonschema, which is not installed", _INSTALL) from error
        if not isinstance(schema, dict | bool):
            raise BadInput("schema", schema, "is not a JSON schema", "give an object, or true or false")
        draft: Any = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        try:
            draft.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise BadInput("schema", schema, f"is not valid: {error.message[:_LONG]}", "mend the schema") from error
        # An empty registry: without one, jsonschema would fetch remote references from the network.
        self._validator: Any = draft(schema, registry=referencing.Registry())
        self._unresolved = referencing.exceptions.Unresolvable
        self._schema, self._read, self.id = schema, read, id

    def bound(self, request: Request, candidate: Candidate) -> int:
        """No tokens."""
        return 0

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a completion. Raises BadInput where the schema refers to a document that it does not hold."""
        return [self._one(candidate.text) for candidate in candidates]

    def _one(self, text: str) -> Score:
        found = self._read(text)
        if found is None:
            return Score((0.0,), message="no JSON found")
        try:
            error = next(self._validator.iter_errors(json.loads(found)), None)
        except self._unresolved as missing:
            raise BadInput(
                "schema", self._schema, f"refers to something it does not hold ({missing})", "put it under $defs"
            ) from missing
        except (ValueError, RecursionError) as unreadable:
            return Score((0.0,), message=f"not readable as JSON: {unreadable}"[:_LONG])
        if error is None:
            return Score((1.0,))
        return Score((0.0,), message=f"{error.json_path}: {error.message}"[:_LONG])
