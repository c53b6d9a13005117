"""The calls of replayed requests as rows: what a simulator of a server needs of a strategy.

Knows: calls in tokens, stages of calls with the rule that ends each, requests, and many of them as columns. Does not
know sessions, how long anything takes, or how a strategy works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outthink.evaluation.replay import Contender

Counts = NDArray[np.int64]
StageRule = Literal["launched", "finished"]


class ReplayedCall(NamedTuple):
    """One call in tokens.

    Args:
        prompt: all that it reads, what it continues included.
        shared: its first tokens that other calls of the request have in common with it, so that only the first of them
            reads these; 0 where it shares nothing.
        output: what it writes if nobody cancels it.
        verifier: what judging it takes, 0 without a verifier.
    """

    prompt: int
    shared: int
    output: int
    verifier: int = 0


@dataclass(frozen=True, slots=True)
class ReplayedStage:
    """Calls that are launched one after another, `ahead` of them in flight.

    Args:
        model: who answers them.
        after: place of the stage that must have ended before, -1 for none.
        calls: all that may be launched, in launch order, those behind the end included: with several in flight some of
            them run when it ends, and are cancelled.
        rule: it ends when the first `need` calls in launch order are there (`launched`), or any `need` (`finished`).
    """

    model: str
    after: int
    calls: tuple[ReplayedCall, ...]
    ahead: int
    rule: StageRule
    need: int

    @property
    def tokens(self) -> int:
        """Generated tokens of the calls that are needed, with one in flight."""
        return sum(call.output for call in self.calls[: self.need])


@dataclass(frozen=True, slots=True)
class ReplayedRequest:
    """One problem under one seed: whether the answer was right (1) or not (0), and its calls."""

    problem: str
    seed: int
    accuracy: int
    stages: tuple[ReplayedStage, ...]

    def of_model(self, model: str) -> ReplayedRequest:
        """The same with one model's stages alone; each waits for the last one before it that is left."""
        places: list[int] = []
        kept: list[ReplayedStage] = []
        for stage in self.stages:
            after = places[stage.after] if stage.after >= 0 else -1
            if stage.model == model:
                places.append(len(kept))
                kept.append(replace(stage, after=after))
            else:
                places.append(after)
        return replace(self, stages=tuple(kept))


@dataclass(frozen=True, slots=True)
class ReplayedStrategy:
    """A strategy on one file: its accuracy with a 95 % interval over problems, and its requests.

    Args:
        traces: name of the file.
        requests: by problem, then seed.
    """

    traces: str
    spec: Contender
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    requests: tuple[ReplayedRequest, ...]

    @property
    def models(self) -> dict[str, float]:
        """Each model's share of the tokens that needed calls generate."""
        tokens: dict[str, int] = {}
        for request in self.requests:
            for stage in request.stages:
                tokens[stage.model] = tokens.get(stage.model, 0) + stage.tokens
        total = sum(tokens.values()) or 1
        return {model: count / total for model, count in tokens.items()}


# Many requests as columns.


class CallColumns(NamedTuple):
    """Many requests as columns of whole numbers, one array each.

    Args:
        calls: `group` (place of the request), `stage` (place in its group), `order` (place in its stage), `prompt`,
            `shared`, `output`, `verifier`; (calls,).
        stages: `group`, `stage`, `after` (place in the group, -1 for none), `ahead`, `rule` (0 launched, 1 finished),
            `need`; (stages,).
    """

    calls: Mapping[str, Counts]
    stages: Mapping[str, Counts]


def call_columns(requests: Sequence[ReplayedRequest]) -> CallColumns:
    """The calls and stages of requests in their order."""
    stages = [
        (group, place, stage.after, stage.ahead, int(stage.rule == "finished"), stage.need)
        for group, request in enumerate(requests)
        for place, stage in enumerate(request.stages)
    ]
    calls = [
        (group, place, order, *call)
        for group, request in enumerate(requests)
        for place, stage in enumerate(request.stages)
        for order, call in enumerate(stage.calls)
    ]
    return CallColumns(
        _named(("group", "stage", "order", *ReplayedCall._fields), calls),
        _named(("group", "stage", "after", "ahead", "rule", "need"), stages),
    )


def _named(names: Sequence[str], rows: Sequence[tuple[int, ...]]) -> dict[str, Counts]:
    table = np.array(rows, dtype=np.int64).reshape(-1, len(names))
    return {name: np.ascontiguousarray(column) for name, column in zip(names, table.T, strict=True)}
