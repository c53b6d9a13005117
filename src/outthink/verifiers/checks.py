"""Verifiers that run no model: a check, a JSON schema, a function, recorded scores, the sample's own confidence.

Knows: how a truth value, a violation or a measure in nats becomes a score between 0 and 1. Does not know what a
check compares (it is passed in and may wait for a worker), how JSON is found in a text, or files.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from outthink.core.errors import BadInput, Unsupported
from outthink.core.request import Request
from outthink.core.sample import Candidate, alternatives, certainty
from outthink.http.events import Json
from outthink.verifiers.protocol import Aggregation, Kind, Score, Verifier, has_event_loop

R = TypeVar("R")
Check = Callable[[Request, str], bool | Awaitable[bool]]
"""The request and a completion's text -> whether it is right, at once or to be awaited."""


class WithoutTokens(Verifier):
    """What the verifiers that read and generate no token have in common."""

    parameters = 0

    def bound(self, request: Request, candidate: Candidate) -> int:
        """No tokens."""
        return 0


async def awaited(future: Future[R]) -> R:
    """What a future comes to; without an event loop the caller waits."""
    return await asyncio.wrap_future(future) if has_event_loop() else future.result()


class ExactVerifier(WithoutTokens):
    """Asks a check about each completion: 1 is right, 0 is wrong, and the first 1 may end a search.

    Args:
        check: called with the request and a completion's text; what it raises is not caught here.
        id: names the check; scores of different ids are never mixed.
    """

    kind: Kind = "exact"
    model = "exact"
    id: str

    def __init__(self, check: Check, *, id: str = "exact") -> None:
        self.check, self.id = check, id

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a completion, checked in order."""
        scores = []
        for candidate in candidates:
            verdict = self.check(request, candidate.text)
            right = await verdict if inspect.isawaitable(verdict) else verdict
            scores.append(Score((1.0 if right else 0.0,)))
        return scores


class SchemaVerifier(WithoutTokens):
    """Scores 1 where the JSON found in a completion satisfies a schema, else 0 with the first violation.

    It fetches nothing: a reference to another document is an error. What takes more than a second of processor time,
    such as a pattern that backtracks, has no score.

    Args:
        schema: a JSON schema; its `$schema` names the draft, 2020-12 if absent. `format` is not checked.
        read: completion text -> the JSON text in it, None if there is none.
        id: names the schema; scores of different ids are never mixed.

    Raises BadInput for an invalid schema, or where jsonschema is not installed.
    """

    kind: Kind = "exact"
    model = "schema"
    id: str

    def __init__(self, schema: Json, *, read: Callable[[str], str | None], id: str = "schema") -> None:
        from outthink.verifiers.schema import SchemaRules  # on first use, as what it needs takes its time

        self._rules = SchemaRules(schema)
        self._schema, self._read, self.id = json.dumps(schema), read, id

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a completion. Raises BadInput where the schema refers to a document that it does not hold."""
        from outthink.verifiers.schema import LIMIT, ask_worker

        texts = [self._read(candidate.text) for candidate in candidates]
        outcomes = [self._rules.in_place(text) for text in texts]
        left = [place for place, outcome in enumerate(outcomes) if outcome is None]
        asked = [ask_worker(self._schema, texts[place] or "", id(self)) for place in left]
        for place, future in zip(left, asked, strict=True):
            outcomes[place] = await awaited(future) or ("unscored", f"the check took more than {LIMIT:g} s")
        return [self._score(*outcome) for outcome in outcomes if outcome is not None]

    def _score(self, outcome: str, message: str) -> Score:
        if outcome == "refused":
            raise BadInput("schema", self.id, message, "mend the schema")
        return Score(() if outcome == "unscored" else (float(outcome == "right"),), message=message)


class FunctionVerifier(WithoutTokens):
    """Calls a function with the request and a completion's text; it returns a score or a truth value.

    Args:
        exact: the function decides right or wrong, so that the first pass may end a search.
    """

    model = "function"
    id: str
    kind: Kind

    def __init__(
        self, function: Callable[[Request, str], float], *, name: str = "function", exact: bool = False
    ) -> None:
        self.function, self.id = function, name
        self.kind = "exact" if exact else "outcome"

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a completion; the session refuses values outside 0...1."""
        return [Score((float(self.function(request, candidate.text)),)) for candidate in candidates]


class RecordedVerifier(Verifier):
    """Gives every sample the step scores it was recorded with, at the price that was paid for them.

    Args:
        id, kind, model, parameters, aggregation: of the verifier that gave the scores.
    """

    id: str
    kind: Kind
    model: str
    parameters: int | None
    aggregation: Aggregation

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


class ConfidenceVerifier(WithoutTokens):
    """The generating model's own certainty, read from a finished sample's log-probabilities.

    A score is a rank, not a probability that the answer is right.
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
    id: str
    top_logprobs: int

    def __init__(self, name: str = "confidence", *, window: int = 2048) -> None:  # DeepConf's window
        self.top_logprobs = alternatives(name)
        self.name, self.window = name, window
        windowed = name in ("tail", "bottom", "lowest")
        self.id = f"{name}@{window}" if windowed else name

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a candidate. Raises Unsupported for a sample without the log-probabilities it needs."""
        return [Score((self._score(candidate),)) for candidate in candidates]

    def _score(self, candidate: Candidate) -> float:
        if candidate.sample is None:
            raise Unsupported(f"verifier {self.id} judges finished samples, not text: it reads their log-probabilities")
        measure = certainty(candidate.sample, self.name, self.window)
        if measure is None:
            needs = {"logprob": "log-probabilities", "self-certainty": "statistics of the whole vocabulary"}
            raise Unsupported(
                f"verifier {self.id}: the samples carry no {needs.get(self.name, 'top log-probabilities')}; "
                "use an engine that returns them (see `outthink doctor`) or another verifier"
            )
        # Rounding may lift either just over its bound.
        return math.exp(min(0.0, measure)) if self.name == "logprob" else max(0.0, measure) / (1 + max(0.0, measure))
