"""Recorded samples of several models on the same problems, as arrays, dealt in the orders of replay.

Knows: answers as numbers within their problem, lengths, confidences. Does not know votes or rules. Rules are fitted on
these arrays because every candidate is tried on every problem: the loop over samples would take hours.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from outthink.core.errors import BadInput
from outthink.economics.tariff import active_parameters
from outthink.engines.traces import Recorded, Traces

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Dealt:
    """Samples of one model; arrays over (problem, order, sample) unless said otherwise.

    Args:
        codes: the answer's number within its problem, -1 where none could be read.
        tokens: generated tokens.
        prompt: tokens of the prompt, over problems.
        logprob, confidence: means over a sample's tokens, NaN where not recorded.
        flops: of one token.
    """

    model: str
    codes: NDArray[np.int64]
    tokens: Array
    prompt: Array
    logprob: Array
    confidence: Array
    flops: float

    def take(self, problems: NDArray[np.bool_]) -> Dealt:
        """Some of the problems."""
        return replace(
            self,
            codes=self.codes[problems],
            tokens=self.tokens[problems],
            prompt=self.prompt[problems],
            logprob=self.logprob[problems],
            confidence=self.confidence[problems],
        )

    def spent(self) -> Array:
        """FLOPs of the first 0, 1, ... samples, prompts included: (problem, order, samples + 1)."""
        total = np.cumsum(self.tokens + self.prompt[:, None, None], axis=2) * self.flops
        return np.concatenate([np.zeros((*total.shape[:2], 1)), total], axis=2)


@dataclass(frozen=True, slots=True)
class Table:
    """All models on the same problems. `right` says of each answer's number whether it is right."""

    names: tuple[str, ...]
    right: NDArray[np.bool_]
    models: tuple[Dealt, ...]

    def take(self, problems: NDArray[np.bool_]) -> Table:
        """Some of the problems."""
        names = tuple(name for name, taken in zip(self.names, problems, strict=True) if taken)
        return Table(names, self.right[problems], tuple(model.take(problems) for model in self.models))

    @property
    def grid(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Indices of (problem, order)."""
        problems, orders, _ = self.models[0].codes.shape
        first, second = np.meshgrid(np.arange(problems), np.arange(orders), indexing="ij")
        return first, second


def deal(traces: Sequence[Traces], *, orders: int, depth: int = 32) -> Table:
    """The first `depth` samples of each problem in `orders` random orders, those of ReplayEngine's seeds.

    Raises BadInput for files that do not hold the same problems, a model of unknown size, or fewer
    than two samples a problem.
    """
    names = tuple(traces[0].problems)
    for other in traces[1:]:
        if set(other.problems) != set(names):
            raise BadInput("traces", other.name, f"holds other problems than {traces[0].name}", "give the same ones")
    depth = min(depth, *(file.depth for file in traces))
    if depth < 2:
        raise BadInput("traces", traces[0].name, "has problems of fewer than 2 samples", "record more")
    return _table(traces, names, orders, depth, [_flops(file) for file in traces])


def deal_one(traces: Traces, *, orders: int, depth: int = 32) -> Table:
    """The same for one model, whatever its size: a token of it costs 1."""
    return _table([traces], tuple(traces.problems), orders, min(depth, traces.depth), [1.0])


def _flops(traces: Traces) -> float:
    parameters = active_parameters(traces.model)
    if parameters is None:
        raise BadInput("traces", traces.name, "is of a model of unknown size", "name it as its publisher does")
    return 2.0 * parameters


def _table(traces: Sequence[Traces], names: tuple[str, ...], orders: int, depth: int, flops: Sequence[float]) -> Table:
    codes: list[dict[str, int]] = [{} for _ in names]
    models = tuple(_dealt(file, names, codes, orders, depth, each) for file, each in zip(traces, flops, strict=True))
    right = np.zeros((len(names), max(1, *(len(known) for known in codes))), dtype=bool)
    for row, name in enumerate(names):
        for answer in set().union(*(file.problems[name].right for file in traces)):
            if answer in codes[row]:
                right[row, codes[row][answer]] = True
    return Table(names, right, models)


def _dealt(
    traces: Traces, names: Sequence[str], codes: list[dict[str, int]], orders: int, depth: int, flops: float
) -> Dealt:
    shape = len(names), orders, depth
    answer = np.full(shape, -1)
    tokens, logprob, confidence = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    prompt = np.zeros(len(names))
    for row, name in enumerate(names):
        recorded = traces.problems[name]
        columns = _columns(recorded, codes[row])
        prompt[row] = recorded.sampled[0].prompt_tokens or 0
        for seed in range(orders):
            order = list(range(len(recorded.sampled)))
            random.Random(f"{seed}:{name}").shuffle(order)
            chosen = columns[:, order[:depth]]
            answer[row, seed], tokens[row, seed] = chosen[0], chosen[1]
            logprob[row, seed], confidence[row, seed] = chosen[2], chosen[3]
    return Dealt(traces.model, answer, tokens, prompt, logprob, confidence, flops)


def _columns(recorded: Recorded, codes: dict[str, int]) -> Array:
    """Answer, tokens, log-probability and confidence of each sample; new answers get new numbers."""
    nan = float("nan")
    rows = [
        (
            -1 if sample.answer is None else codes.setdefault(sample.answer, len(codes)),
            sample.tokens or 0,
            nan if sample.mean_logprob is None else sample.mean_logprob,
            nan if sample.confidence is None else sample.confidence.mean(),
        )
        for sample in recorded.sampled
    ]
    return np.array(rows, dtype=float).T
