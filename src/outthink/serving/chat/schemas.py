"""A client's JSON schema, which must do no harm: checked in place where that is quick, else in a worker.

Knows what is quick, and what is told of a schema that is none. Does not know what the JSON is for.
"""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache

from outthink.core.errors import BadInput
from outthink.core.plugins import install_hint, missing
from outthink.http.fields import JsonDict
from outthink.serving.failure import Failure, bad_field
from outthink.verifiers.schema import Outcome, SchemaRules, ask_worker

_SIZE = 200_000  # characters of a schema
_SMALL = 8_000  # of one that is read in place, which takes up to 5 ms for 1,000
_STEPS = 1_000  # keywords that are checked in place


class SchemaCheck:
    """Whether JSON fits a schema. What takes too long, or refers to another document, does not.

    Args:
        field: of the request, where the schema stands.

    Raises Failure for a schema that is none (a large one is read by `prepare`), or where jsonschema is not installed.
    """

    def __init__(self, schema: JsonDict, field: str) -> None:
        self._schema = json.dumps(schema)
        if len(self._schema) > _SIZE:
            raise bad_field(field, "...", f"is longer than {_SIZE} characters", "send a smaller schema")
        if missing("schema"):
            raise Failure(501, f"{field}: this proxy lacks jsonschema; {install_hint('serve')}", param=field)
        self._field = field
        self._rules: SchemaRules | None = None
        if len(self._schema) <= _SMALL:
            try:
                self._rules = _compiled(self._schema)
            except BadInput as error:
                raise self._invalid(error.problem) from None

    async def prepare(self) -> None:
        """Have a schema that is too large to be read in place read by a worker. Raises Failure for one that is none."""
        if self._rules is None and (outcome := await self._asked("null")) and outcome[0] == "refused":
            raise self._invalid(outcome[1])

    def now(self, text: str) -> bool | None:
        """Whether JSON fits; None where a worker has to find out."""
        if self._rules is None:
            return None
        try:
            outcome = self._rules.in_place(text, _STEPS)
        except BadInput:
            return False
        return None if outcome is None else outcome[0] == "right"

    async def later(self, text: str) -> bool:
        """The same, however long it takes, within the worker's limit."""
        fits = self.now(text)
        if fits is not None:
            return fits
        outcome = await self._asked(text)
        return outcome is not None and outcome[0] == "right"

    async def _asked(self, text: str) -> tuple[Outcome, str] | None:
        return await asyncio.wrap_future(ask_worker(self._schema, text, id(self)))

    def _invalid(self, problem: str) -> Failure:
        return bad_field(self._field, "...", f"is no valid JSON schema: {problem[:200]}", "mend it")


@lru_cache(maxsize=64)
def _compiled(schema: str) -> SchemaRules:
    return SchemaRules(json.loads(schema))
