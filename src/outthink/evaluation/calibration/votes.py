"""Recorded samples as arrays dealt in the orders of replay, votes over them, and how likely going on mends a vote.

That chance is a ridge regression on the vote's shape; a ridge, because a few hundred problems do not bear much more.
Rules are fitted on arrays because every candidate is tried on every problem: the loop over samples would take hours.
Knows: answers as numbers within their problem, lengths, confidences, and the regression. Does not know which rules
compete, how one is chosen, or cascades.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from outthink.controller.policy.judging import Judging, log_odds
from outthink.controller.policy.rules import (
    PAIRS,
    TERMS,
    Scale,
    Sway,
    standardised,
    vote_lead,
    vote_terms,
)
from outthink.core.errors import BadInput
from outthink.engines.recorded import Recorded
from outthink.engines.traces import Traces
from outthink.evaluation.calibration.counts import Codes, VoteCounts
from outthink.evaluation.calibration.losses import Array, Mask
from outthink.evaluation.dataset import weights_of
from outthink.strategies import leader_probability


@dataclass(frozen=True, slots=True)
class Dealt:
    """Samples of one model; arrays over (problem, order, sample) unless said otherwise.

    Args:
        codes: the answer's number within its problem, -1 where none could be read.
        tokens: generated tokens.
        prompt: tokens of the prompt, over problems.
        logprob, confidence: means over a sample's tokens, NaN where not recorded.
        cut: 1 where a sample was cut at its longest, else 0.
        score: log-odds of the verifier's score, NaN without one.
        judging: tokens of the verifier, 0 for a sample that has no answer and is not judged.
        flops: of one token.
        verifier_flops: of one token of the verifier.
    """

    model: str
    codes: Codes
    tokens: Array
    prompt: Array
    logprob: Array
    confidence: Array
    cut: Array
    score: Array
    judging: Array
    flops: float
    verifier_flops: float = 0.0

    def take(self, problems: NDArray[np.bool_]) -> Dealt:
        """Some of the problems."""
        return replace(
            self,
            codes=self.codes[problems],
            tokens=self.tokens[problems],
            prompt=self.prompt[problems],
            logprob=self.logprob[problems],
            confidence=self.confidence[problems],
            cut=self.cut[problems],
            score=self.score[problems],
            judging=self.judging[problems],
        )

    def spent(self, *, judged: bool = False) -> Array:
        """FLOPs of the first 0, 1, ... samples, prompts and, if they are judged, the verifier's included: (problem,
        order, samples + 1)."""
        each = (self.tokens + self.prompt[:, None, None]) * self.flops
        total = np.cumsum(each + self.judging * self.verifier_flops if judged else each, axis=2)
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


def deal_one(traces: Traces, *, orders: int, depth: int = 32, by: str = "tokens") -> Table:
    """The same for one model.

    Args:
        by: `flops`, or anything else for tokens, of which one of the model and one of the verifier cost 1; so nothing
            need be known of their sizes.
    """
    flops, scoring = 1.0, traces.scoring
    verifier = 0.0 if scoring is None or scoring.parameters == 0 else 1.0
    if by == "flops":
        flops = _flops(traces)
        verifier = 0.0 if scoring is None or scoring.parameters is None else 2.0 * scoring.parameters
    table = _table([traces], tuple(traces.problems), orders, min(depth, traces.depth), [flops])
    return replace(table, models=(replace(table.models[0], verifier_flops=verifier),))


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
    tokens, logprob, confidence, cut, score, judging = (np.zeros(shape) for _ in range(6))
    how = "last" if traces.scoring is None else traces.scoring.aggregation or "last"
    prompt = np.zeros(len(names))
    for row, name in enumerate(names):
        recorded = traces.problems[name]
        prompt[row] = recorded.sampled[0].prompt_tokens or 0
        places = [recorded.order(seed)[:depth] for seed in range(orders)]
        columns = _columns(recorded, codes[row], how)[:, places]
        answer[row], tokens[row], logprob[row], confidence[row], cut[row], score[row], judging[row] = columns
    return Dealt(traces.model, answer, tokens, prompt, logprob, confidence, cut, score, judging, flops)


def _columns(recorded: Recorded, codes: dict[str, int], how: str) -> Array:
    """Of each sample: answer, tokens, log-probability, confidence, whether cut, log-odds of its score (aggregated so),
    and tokens of judging it; new answers get new numbers."""
    nan = float("nan")
    rows = [
        (
            -1 if sample.answer is None else codes.setdefault(sample.answer, len(codes)),
            sample.tokens or 0,
            nan if sample.mean_logprob is None else sample.mean_logprob,
            nan if sample.confidence is None else sample.confidence.mean(),
            sample.cut,
            log_odds(sample.scores, how) if sample.scores else nan,
            0 if sample.answer is None else sample.verifier_tokens or 0,
        )
        for sample in recorded.sampled
    ]
    return np.array(rows, dtype=float).T


EQUAL = Sway()
"""Of votes that weigh 1 each."""
SWAYS = tuple(Sway(confidence=share, cut=-1.0) for share in (0.25, 0.5, 0.75))
"""Of votes that rules are learned on. Confidence tells right samples from wrong ones of the same problem: on the
recorded sets a spread of it multiplies the odds by e^0.5 to e^1.6, log-probability adds nothing to it, and a sample
that was cut has e^-1.5 to e^-2.3 of the odds. About half of that as a weight gives the most accurate votes."""
SWAY = SWAYS[1]
"""Where only one is tried."""
_RIDGE = 0.2
"""Ridge penalty a row, on standardised terms."""
_CHUNK = 64
"""Problems whose rows are looked at together."""


@dataclass(frozen=True, slots=True)
class Walk:
    """Votes sample by sample, over (problem, order, samples so far).

    Args:
        scale, sway, judging: by which the votes are weighed.
        terms: after 1 ... depth - 1 samples, (..., TERMS).
        leader, second: the largest weights, after 0 ... depth samples.
        right: whether the winner is right, after 0 ... depth samples.
    """

    scale: Scale
    sway: Sway
    judging: Judging | None
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
        """Whether drawing on to the end puts a wrong leader right, after 1 ... depth - 1 samples."""
        return np.maximum(self.right[..., -1:] - self.right[..., 1:-1], 0)


def scale_of(dealt: Dealt, sway: Sway, judging: Judging | None = None) -> Scale:
    """Means and spreads over the samples, of the weights over those that have one of their own."""
    logprob, confidence, tokens = map(_spread, (dealt.logprob, dealt.confidence, dealt.tokens))
    scale = Scale(logprob, confidence, tokens)
    weights = _weights(dealt, scale, sway, judging)
    known = weights if judging is None else weights[~np.isnan(dealt.score)]
    return replace(scale, weight=float(known.mean()) if known.size else 1.0)


def _spread(values: Array) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not known.size:
        return 0.0, 1.0
    return float(known.mean()), float(known.std()) or 1.0


def _standard(values: Array, of: tuple[float, float]) -> Array:
    return np.nan_to_num(standardised(values, of), nan=0.0)


def _weights(dealt: Dealt, scale: Scale, sway: Sway, judging: Judging | None) -> Array:
    logprob, confidence = _standard(dealt.logprob, scale.logprob), _standard(dealt.confidence, scale.confidence)
    if judging is None:
        return scale.vote(logprob, confidence, dealt.cut, sway, maths=np)
    weights = scale.vote(logprob, confidence, dealt.cut, sway, judging.exponent * dealt.score / judging.temperature, np)
    return np.where(np.isnan(dealt.score), 1.0, weights)  # the mean, as at a request


def walk(
    table: Table,
    place: int,
    sway: Sway,
    *,
    depth: int,
    carried: VoteCounts | None = None,
    scale: Scale | None = None,
    judging: Judging | None = None,
) -> Walk:
    """Votes of the model at `place`.

    Args:
        carried: votes that answers have from elsewhere.
        scale: None for that of these very samples.
        judging: how the verifier's scores weigh, None where they do not.
    """
    dealt = table.models[place]
    scale = scale or scale_of(dealt, sway, judging)
    codes, weights = dealt.codes, _weights(dealt, scale, sway, judging)
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
    return Walk(scale, sway, judging, terms, leader, second, right)


def _expanded(terms: Array) -> NDArray[np.float32]:
    """The terms and their products in pairs, in the order of the coefficients."""
    table = np.empty((*terms.shape[:-1], TERMS + len(PAIRS)), dtype=np.float32)
    table[..., :TERMS] = terms
    end = TERMS
    for first in range(TERMS):  # the pairs of one term stand together
        begin, end = end, end + TERMS - first
        np.multiply(table[..., first, None], table[..., first:TERMS], out=table[..., begin:end])
    return table


class Ridge:
    """Sums over each problem, from which the regression on any subset of problems follows at once."""

    def __init__(self, votes: Walk) -> None:
        self._terms, gains = votes.terms, votes.gains
        self._rows = gains.shape[1] * gains.shape[2]
        problems, size = len(gains), TERMS + len(PAIRS) + 1
        # There are 136 columns for every row: they are made of some problems at a time, in single precision.
        parts = [slice(start, start + _CHUNK) for start in range(0, problems, _CHUNK)]
        total, square = np.zeros(size - 1), np.zeros(size - 1)
        for part in parts:
            rows = _expanded(self._terms[part]).reshape(-1, size - 1)
            total += rows.sum(axis=0, dtype=float)
            square += np.einsum("rc,rc->c", rows, rows, dtype=float)
        self._centre = total / (problems * self._rows)
        self._spread = np.sqrt(np.maximum(square / (problems * self._rows) - self._centre**2, 0)) + 1e-6
        centre, spread = self._centre.astype(np.float32), self._spread.astype(np.float32)
        self._squares = np.empty((problems, size, size), dtype=np.float32)
        self._products = np.empty((problems, size), dtype=np.float32)
        for part in parts:
            table = _expanded(self._terms[part]).reshape(-1, self._rows, size - 1)
            design = np.ones((len(table), self._rows, size), dtype=np.float32)
            np.divide(np.subtract(table, centre, out=table), spread, out=design[..., :-1])
            turned = design.transpose(0, 2, 1)
            np.matmul(turned, design, out=self._squares[part])
            mended = gains[part].reshape(len(table), -1, 1).astype(np.float32)
            self._products[part] = np.matmul(turned, mended)[..., 0]

    def fit(self, problems: Mask) -> Array:
        """Coefficients of 1, of the terms and of their products, from these problems."""
        return self._solved(*self._sums(problems), int(problems.sum()))

    def _sums(self, problems: Mask | NDArray[np.intp]) -> tuple[Array, Array]:
        return self._squares[problems].sum(axis=0, dtype=float), self._products[problems].sum(axis=0, dtype=float)

    def _solved(self, squares: Array, products: Array, problems: int) -> Array:
        penalty = _RIDGE * problems * self._rows * np.eye(len(squares))
        penalty[-1, -1] = 0  # the mean is not drawn towards zero
        found = np.linalg.solve(squares + penalty, products)
        slopes = found[:-1] / self._spread
        return np.concatenate([[found[-1] - slopes @ self._centre], slopes])

    def gains(self, coefficients: Array, problems: Mask) -> Array:
        """Predicted chances for these problems, as Walk.gains."""
        terms = self._terms[problems]
        products = np.zeros((TERMS, TERMS))
        products[tuple(np.array(PAIRS).T)] = coefficients[TERMS + 1 :]
        linear = coefficients[0] + terms @ coefficients[1 : TERMS + 1]
        return np.asarray(linear + np.einsum("...t,...t->...", terms @ products, terms))

    def crossed(self, problems: Mask, fold: NDArray[np.int64]) -> tuple[Array, Array]:
        """Coefficients from all of these problems, and their predicted chances, each by a fit on the other folds.

        Args:
            fold: of each of these problems, from 0.
        """
        members = np.flatnonzero(problems)
        parts = [members[fold == k] for k in range(int(fold.max()) + 1)]
        squares, products = zip(*(self._sums(part) for part in parts), strict=True)
        whole = sum(squares), sum(products)  # read once: what a fold leaves is all but its own
        gains = np.zeros((len(members), *self._terms.shape[1:3]))
        for k, part in enumerate(parts):
            inside = np.zeros(len(self._terms), dtype=bool)
            inside[part] = True
            rest = self._solved(whole[0] - squares[k], whole[1] - products[k], len(members) - len(part))
            gains[fold == k] = self.gains(rest, inside)
        return self._solved(*whole, len(members)), gains


# Stopping rules over the votes.


def certainty(votes: Walk) -> Array:
    """Adaptive-consistency's probability of the leader of equal votes after 1, 2, ... samples."""
    n = votes.leader.shape[2]
    known = np.array([[leader_probability(a, b) if a else 0.0 for b in range(n)] for a in range(n)])
    return np.asarray(known[votes.leader[..., 1:].astype(int), votes.second[..., 1:].astype(int)])


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
