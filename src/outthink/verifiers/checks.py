"""A check that decides right or wrong: a number, mathematical equivalence, a user's own comparison.

Knows: that a truth value is a score of 1 or 0 and costs no tokens. Does not know what is compared; the
check is passed in, and may wait for a process of its own.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from outthink.core.errors import BadInput, Unsupported
from outthink.core.request import Request
from outthink.core.sample import Candidate, alternatives, certainty
from outthink.verifiers.protocol import Aggregation, Kind, Score

Check = Callable[[Request, str], bool | Awaitable[bool]]
"""The request and a completion's text -> whether it is right, at once or to be awaited."""


class ExactVerifier:
    """Asks a check about each completion: 1 is right, 0 is wrong, and the first 1 may end a search.

    Args:
        check: called with the request and a completion's text; what it raises is not caught here.
        id: names the check; scores of different ids are never mixed.
    """

    kind: Kind = "exact"
    model = "exact"
    parameters = 0
    separator = "\n\n"
    aggregation: Aggregation = "last"

    def __init__(self, check: Check, *, id: str = "exact") -> None:
        self.check, self.id = check, id

    def bound(self, request: Request, candidate: Candidate) -> int:
        """No tokens."""
        return 0

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a completion, checked in order."""
        scores = []
        for candidate in candidates:
            verdict = self.check(request, candidate.text)
            right = await verdict if inspect.isawaitable(verdict) else verdict
            scores.append(Score((1.0 if right else 0.0,)))
        return scores


# A JSON schema as a verifier.
#
# Knows: what `jsonschema` says of a value. Does not know how JSON is found in a text (`read` is passed in),
# and fetches nothing: a reference to another document is an error.

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


# A user's own check as a verifier: exact comparison, a schema, a parser. Costs no tokens.


class FunctionVerifier:
    """Calls a function with the request and a completion's text; it returns a score or a truth value.

    Args:
        exact: the function decides right or wrong, so that the first pass may end a search.
    """

    model = "function"
    parameters = 0
    separator = "\n\n"
    aggregation: Aggregation = "last"

    def __init__(
        self, function: Callable[[Request, str], float], *, name: str = "function", exact: bool = False
    ) -> None:
        self.function, self.id = function, name
        self.kind: Kind = "exact" if exact else "outcome"

    def bound(self, request: Request, candidate: Candidate) -> int:
        """No tokens."""
        return 0

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a completion; the session refuses values outside 0...1."""
        return [Score((float(self.function(request, candidate.text)),)) for candidate in candidates]


# Scores that were recorded with the samples, for replay.
#
# Knows: that a sample carries them, and what the verifier read for them. Does not know files.


class RecordedVerifier:
    """Gives every sample the step scores it was recorded with, at the price that was paid for them.

    Args:
        id, kind, model, parameters, aggregation: of the verifier that gave the scores.
    """

    separator = "\n\n"

    def __init__(
        self,
        id: str,
        *,
        kind: Kind = "process",
        model: str | None = None,
        parameters: int | None = None,
        aggregation: Aggregation = "last",
    ) -> None:
        self.id, self.kind, self.model = id, kind, model or id
        self.parameters, self.aggregation = parameters, aggregation

    def bound(self, request: Request, candidate: Candidate) -> int:
        """What was paid for this candidate, 0 where it is not known."""
        return (candidate.sample.verifier_tokens or 0) if candidate.sample is not None else 0

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """The recorded scores, none where a sample has none. Raises BadInput for a text that was not recorded."""
        scores = []
        for candidate in candidates:
            sample = candidate.sample
            if sample is None:
                raise BadInput("verifier", self.id, "has no recorded score for this text", "score it: outthink verify")
            scores.append(Score(tuple(sample.scores), sample.verifier_tokens))
        return scores


# The generating model's own certainty as a verifier that costs nothing.
#
# Knows: how a measure in nats becomes a score between 0 and 1. Does not know where log-probabilities
# come from. A score is a rank, not a probability that the answer is right.


class ConfidenceVerifier:
    """Reads a finished sample's log-probabilities; generates and reads no token.

    `logprob` becomes exp(mean log-probability), the geometric mean of the token probabilities. The
    other measures are positive without bound: c becomes c / (1 + c), which keeps their order and
    compresses their differences, so a weighted vote over them is close to majority.

    Args:
        name: `confidence`, `tail`, `bottom`, `lowest`, `logprob` or `self-certainty` (see
            `core.certainty`).
        window: tokens in one of DeepConf's windows, for `tail`, `bottom` and `lowest`.

    Raises BadInput for an unknown name.
    """

    kind: Kind = "confidence"
    model = "confidence"
    parameters = 0
    separator = "\n\n"
    aggregation: Aggregation = "last"

    def __init__(self, name: str = "confidence", *, window: int = 2048) -> None:
        self.top_logprobs = alternatives(name)
        """Alternatives a token that samples must be drawn with to be judged."""
        self.name, self.window = name, window
        windowed = name in ("tail", "bottom", "lowest")
        self.id = f"{name}@{window}" if windowed else name

    def bound(self, request: Request, candidate: Candidate) -> int:
        """No tokens."""
        return 0

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a candidate. Raises Unsupported for a sample without the log-probabilities it needs."""
        return [Score((self._score(candidate),)) for candidate in candidates]

    def _score(self, candidate: Candidate) -> float:
        if candidate.sample is None:
            raise Unsupported(f"verifier {self.id} judges finished samples, not text: it reads their log-probabilities")
        found = certainty(candidate.sample, self.name, self.window)
        if found is None:
            needs = {"logprob": "log-probabilities", "self-certainty": "statistics of the whole vocabulary"}
            raise Unsupported(
                f"verifier {self.id}: the samples carry no {needs.get(self.name, 'top log-probabilities')}; "
                "use an engine that returns them (see `outthink doctor`) or another verifier"
            )
        # Rounding may lift either just over its bound.
        return math.exp(min(0.0, found)) if self.name == "logprob" else max(0.0, found) / (1 + max(0.0, found))
