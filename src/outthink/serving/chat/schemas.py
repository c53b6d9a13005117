"""A client's JSON schema, which must do no harm: checked in place where that is quick, else in a worker.

Knows what is quick, which schemas were found valid before, and what is told of one that is none. Does not know what
the JSON is for.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import Future
from functools import lru_cache
from hashlib import sha256

from outthink.core.errors import BadInput
from outthink.core.plugins import install_hint, missing
from outthink.http.fields import JsonDict, encode
from outthink.serving.failure import Failure, bad_field
from outthink.verifiers.evaluated import self_contained
from outthink.verifiers.plain_schema import is_plain
from outthink.verifiers.schema import SchemaRules, ask_worker
from outthink.workers.pool import shared

_SIZE = 200_000  # characters of a schema
_SMALL = 8_000  # of one whose JSON is checked in place
_STEPS = 1_000  # keywords that are checked in place
_SECONDS = 5.0  # of processor time that a worker has for reading a schema
_PROBLEM = "outthink.verifiers.schema:problem_in"
_REMEMBERED = 1024
_found: OrderedDict[str, str] = OrderedDict()
"""What is wrong with schemas that were read, by their hash; empty where nothing is."""
_reading: dict[str, Future[str | None]] = {}
"""Those that a worker reads now, so that the same schema of many requests is read once."""


class SchemaCheck:
    """Whether JSON fits a schema. What takes too long, or refers to another document, does not.

    Args:
        field: of the request, where the schema stands.

    Raises Failure where jsonschema is not installed.
    """

    def __init__(self, schema: JsonDict, field: str) -> None:
        if missing("schema"):
            raise Failure(501, f"{field}: this proxy lacks jsonschema; {install_hint('serve')}", param=field)
        self._given, self._field, self._schema, self._valid = schema, field, "", False

    async def prepare(self, turn: Hashable = None) -> None:
        """Find out whether it is a schema. Raises Failure for one that is none.

        Args:
            turn: who asks the worker.
        """
        schema = self._schema or await asyncio.to_thread(self._text)
        if self._valid:
            return
        number = sha256(schema.encode()).hexdigest()
        problem = _found.get(number)
        if problem is None:
            problem = await _read(schema, number, turn or id(self))
        else:
            _found.move_to_end(number)
        if problem:
            raise self._invalid(problem)
        self._valid = True

    def now(self, text: str) -> bool | None:
        """Whether JSON fits; None where a worker has to find out."""
        schema = self._text()
        if not self._valid or len(schema) > _SMALL:
            return None
        try:
            outcome = _compiled(schema).in_place(text, _STEPS)
        except BadInput:
            return False
        return None if outcome is None else outcome[0] == "right"

    async def later(self, text: str, turn: Hashable = None) -> bool:
        """The same, however long it takes, within the worker's limit."""
        fits = self.now(text)
        if fits is not None:
            return fits
        outcome = await asyncio.wrap_future(ask_worker(self._schema, text, turn or id(self)))
        return outcome is not None and outcome[0] == "right"

    def _text(self) -> str:
        """The schema as JSON, read once."""
        if not self._schema:
            if len(encode(self._given)) > _SIZE:
                raise bad_field(self._field, "...", f"is longer than {_SIZE} characters", "send a smaller schema")
            _compiled("true")  # what imports jsonschema does so here, beside the event loop
            schema = self_contained(self._given)
            self._schema, self._valid, self._given = json.dumps(schema), is_plain(schema), {}
        return self._schema

    def _invalid(self, problem: str) -> Failure:
        return bad_field(self._field, "...", f"is no valid JSON schema: {problem[:200]}", "mend it")


async def _read(schema: str, number: str, turn: Hashable) -> str:
    """What is wrong with a schema, as a worker finds it; empty where nothing is."""
    future = _reading.get(number)
    if future is None:
        future = _reading[number] = shared().submit(_PROBLEM, schema, turn=turn, limit=_SECONDS)
        future.add_done_callback(lambda _: _reading.pop(number, None))
    problem = await asyncio.shield(asyncio.wrap_future(future))  # others may wait for the same
    if problem is None:
        problem = f"it takes more than {_SECONDS:g} s to read"
    _found[number] = problem
    if len(_found) > _REMEMBERED:
        _found.popitem(last=False)
    return problem


@lru_cache(maxsize=64)
def _compiled(schema: str) -> SchemaRules:
    return SchemaRules(json.loads(schema), checked=True)
