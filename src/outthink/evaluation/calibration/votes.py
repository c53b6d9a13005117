"""Recorded samples as arrays dealt in the orders of replay, votes over them, and what going on with a vote still gains.

The gain is a ridge regression on the vote's shape; a ridge, because a few hundred problems do not bear much more.
Rules are fitted on arrays because every candidate is tried on every problem: the loop over samples would take hours.
Knows: answers as numbers within their problem, lengths, confidences, and the regression. Does not know which rules
compete, how one is chosen, or cascades.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from outthink.controller.policy.rules import PAIRS, TERMS, Scale, standardised, vote_lead, vote_terms
from outthink.core.errors import BadInput
from outthink.engines.recorded import Recorded
from outthink.engines.traces import Traces
from outthink.evaluation.calibration.counts import Codes, VoteCounts
from outthink.evaluation.calibration.losses import Array, Mask
from outthink.evaluation.dataset import weights_of


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
    codes: Codes
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

    def counted(self, votes: VoteCounts, k: int, weights: float | Array) -> None:
        """Add every order's sample at place k to votes."""
        certainty = np.where(np.isnan(self.confidence[..., k]), self.logprob[..., k], self.confidence[..., k])
        codes = self.codes[..., k]
        votes.add(codes, np.broadcast_to(weights, codes.shape), certainty, self.tokens[..., k])


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
    parameters = weights_of(traces)
    if parameters is None:
        raise BadInput("traces", traces.name, "is of a model of unknown size", f"give --parameters {traces.model}=N")
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
        prompt[row] = recorded.sampled[0].prompt_tokens or 0
        places = [recorded.order(seed)[:depth] for seed in range(orders)]
        answer[row], tokens[row], logprob[row], confidence[row] = _columns(recorded, codes[row])[:, places]
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


SWAY = (0.25, 0.25)
"""exp(0.5 z), shared between log-probability and confidence. It is not fitted. It was the first weight tried here,
and kept after others had been tried on the recorded sets (benchmarks/auto.py reports some of them)."""
EQUAL = (0.0, 0.0)
"""Sway of votes that weigh 1 each."""
_RIDGE = 0.2
"""Ridge penalty a row, on standardised terms."""


@dataclass(frozen=True, slots=True)
class Walk:
    """Votes sample by sample, over (problem, order, samples so far).

    Args:
        scale: by which the votes are weighed.
        terms: after 1 ... depth - 1 samples, (..., TERMS).
        leader, second: the largest weights, after 0 ... depth samples.
        right: whether the winner is right, after 0 ... depth samples.
    """

    scale: Scale
    terms: Array
    leader: Array
    second: Array
    right: Array

    @property
    def lead(self) -> Array:
        """How far the leader is ahead, in standard deviations, after 0 ... depth samples."""
        return np.asarray(vote_lead(self.leader, self.second, np))

    @property
    def gains(self) -> Array:
        """What drawing on to the end would change, after 1 ... depth - 1 samples."""
        return np.asarray(self.right[..., -1:] - self.right[..., 1:-1])


def scale_of(dealt: Dealt, sway: tuple[float, float]) -> Scale:
    """Means and spreads over the samples."""
    logprob, confidence, tokens = map(_spread, (dealt.logprob, dealt.confidence, dealt.tokens))
    scale = Scale(logprob, confidence, tokens)
    return replace(scale, weight=float(_weights(dealt, scale, sway).mean()))


def _spread(values: Array) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not known.size:
        return 0.0, 1.0
    return float(known.mean()), float(known.std()) or 1.0


def _standard(values: Array, of: tuple[float, float]) -> Array:
    return np.nan_to_num(standardised(values, of), nan=0.0)


def _weights(dealt: Dealt, scale: Scale, sway: tuple[float, float]) -> Array:
    return scale.vote(_standard(dealt.logprob, scale.logprob), _standard(dealt.confidence, scale.confidence), sway, np)


def walk(
    table: Table,
    place: int,
    sway: tuple[float, float],
    *,
    depth: int,
    carried: VoteCounts | None = None,
    scale: Scale | None = None,
) -> Walk:
    """Votes of the model at `place`.

    Args:
        carried: votes that answers have from elsewhere.
        scale: None for that of these very samples.
    """
    dealt = table.models[place]
    scale = scale or scale_of(dealt, sway)
    codes, weights = dealt.codes, _weights(dealt, scale, sway)
    shape = codes.shape[0], codes.shape[1]
    votes = VoteCounts(shape, table.right.shape[1]) if carried is None else carried.copy()
    z = [_standard(dealt.confidence, scale.confidence), _standard(dealt.logprob, scale.logprob)]
    sums = [np.cumsum(values, axis=2) for values in (*z, _standard(dealt.tokens, scale.tokens))]
    answers, unreadable = np.zeros(shape), np.zeros(shape)
    terms = np.zeros((*shape, depth - 1, TERMS))
    leader, second, right = (np.zeros((*shape, depth + 1)) for _ in range(3))
    for k in range(depth + 1):
        if k:
            code = codes[..., k - 1]
            answers += (code >= 0) & (codes[..., : k - 1] != code[..., None]).all(axis=2)
            unreadable += code < 0
            dealt.counted(votes, k - 1, weights[..., k - 1])
        leader[..., k], second[..., k] = votes.leader, votes.second
        # Without a vote the first answer would be the winner, so the leader needs one.
        right[..., k] = table.right[np.arange(shape[0])[:, None], votes.winner()] & (votes.leader > 0)
        if 0 < k < depth:
            totals = [total[..., k - 1] for total in sums]
            found = vote_terms(k, votes.leader, votes.second, totals, answers, unreadable, depth, np)
            terms[:, :, k - 1] = np.stack(np.broadcast_arrays(*found), axis=2)
    return Walk(scale, terms, leader, second, right)


def _expanded(terms: Array) -> NDArray[np.float32]:
    """The terms and their products in pairs, in the order of the coefficients."""
    first, second = np.array(PAIRS).T
    table = np.empty((*terms.shape[:-1], TERMS + len(PAIRS)), dtype=np.float32)
    table[..., :TERMS] = terms
    np.multiply(table[..., first], table[..., second], out=table[..., TERMS:])
    return table


class Ridge:
    """Sums over each problem, from which the regression on any subset of problems follows at once."""

    def __init__(self, votes: Walk) -> None:
        rows = _expanded(votes.terms)  # single precision: there are 135 columns a problem, order and sample
        problems = rows.shape[0]
        rows = rows.reshape(problems, -1, rows.shape[-1])
        self._shape = votes.gains.shape
        self.centre, self.spread = rows.mean(axis=(0, 1)), rows.std(axis=(0, 1)) + 1e-6
        design = np.ones((*rows.shape[:2], rows.shape[2] + 1), dtype=np.float32)
        np.subtract(rows, self.centre, out=design[..., :-1])
        design[..., :-1] /= self.spread
        self._design, gains = design, votes.gains.reshape(problems, -1).astype(np.float32)
        self._squares = np.matmul(design.transpose(0, 2, 1), design).astype(np.float64)
        self._products = np.matmul(design.transpose(0, 2, 1), gains[:, :, None])[..., 0].astype(np.float64)

    def fit(self, problems: Mask) -> Array:
        """Coefficients of the standardised terms and, last, of 1, from these problems."""
        size = self._squares.shape[1]
        penalty = _RIDGE * problems.sum() * self._design.shape[1] * np.eye(size)
        penalty[-1, -1] = 0  # the mean gain is not drawn towards zero
        squares, products = self._squares[problems].sum(axis=0), self._products[problems].sum(axis=0)
        return np.asarray(np.linalg.solve(squares + penalty, products))

    def gains(self, coefficients: Array, problems: Mask) -> Array:
        """Predicted gains of these problems, as Walk.gains."""
        gains = self._design[problems] @ coefficients.astype(np.float32)
        return np.asarray(gains.reshape(-1, *self._shape[1:]), dtype=float)

    def gains_without(self, train: Mask, problems: Mask) -> Array:
        """Gains of `problems` by a fit on `train`."""
        return self.gains(self.fit(train), problems)

    def crossed(self, members: NDArray[np.intp], fold: NDArray[np.int64]) -> Array:
        """Gains of these problems, each by a fit on those of the other folds."""
        problems = np.zeros(len(self._design), dtype=bool)
        gains = np.zeros((len(members), *self._shape[1:]))
        for k in range(int(fold.max()) + 1):
            inside, rest = problems.copy(), problems.copy()
            inside[members[fold == k]], rest[members[fold != k]] = True, True
            gains[fold == k] = self.gains_without(rest, inside)
        return gains

    def plain(self, coefficients: Array) -> tuple[float, ...]:
        """The same coefficients for terms that are not standardised, that of 1 first."""
        slopes = coefficients[:-1] / self.spread
        constant = coefficients[-1] - float((slopes * self.centre).sum())
        return (float(constant), *(float(slope) for slope in slopes))


# Stopping rules over the votes.


def after(totals: Array, stop: NDArray[np.intp]) -> Array:
    """Of totals after 0, 1, ... samples, (problem, order, samples), those after `stop` samples, (problem, order)."""
    return np.asarray(np.take_along_axis(totals, stop[..., None], 2)[..., 0])


def reached(values: Array | Mask, limit: float) -> NDArray[np.intp]:
    """Samples after which a value is at least the limit, all of them where it never is; values after 1, 2, ..."""
    enough = values >= limit
    enough[..., -1] = True
    return np.asarray(enough.argmax(axis=2) + 1)


def below(gains: Array, price: float) -> NDArray[np.intp]:
    """Samples after which what is left to gain is not worth the price; gains after 1, 2, ... samples."""
    enough = np.concatenate([gains <= price, np.ones((*gains.shape[:2], 1), dtype=bool)], axis=2)
    return np.asarray(enough.argmax(axis=2) + 1)
