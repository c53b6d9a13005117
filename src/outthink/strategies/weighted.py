"""Votes that weigh: by the rank or the size of the model's own confidence, or by a verifier's scores.

Knows: each paper's weights, and which samples lose their vote. Does not know how confidence is measured or how a
verifier judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil, exp, sqrt

from outthink.core.errors import BadInput
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.core.sample import TOP, Decision, Progress, Sample
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.votes import Ties, Votes, aggregation_of, judged, scored, scorer, verifier_of, weights

# Borda voting on self-certainty (Kang et al., arXiv 2502.18581): rank by certainty, vote by rank.

_by_certainty = partial(strategy, needs="top-k log-probabilities", votes="scores", alternatives=TOP)


@_by_certainty("borda", source="Kang et al. 2502.18581", shares_call=True)
async def borda(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    power: float = 0.5,
    score: str = "self-certainty",
    ties: Ties = "confidence",
) -> Verdict:
    """Vote of n samples weighted (N - rank + 1)^power, rank 1 the most certain of the N readable ones.

    Args:
        power: exponent of the rank; near 0 it is a plain majority
    """
    readable, votes = await scored(session, request, n, score, None, ties)
    # Ranks among readable samples alone: more unreadable ones would make all weights more alike.
    readable.sort(key=lambda pair: pair[0], reverse=True)
    for rank, (_, sample) in enumerate(readable):
        votes.add(sample, (len(readable) - rank) ** power)
    return votes.winner()


# Confidence-weighted self-consistency (Taubenfeld et al., arXiv 2502.06233).


@_by_certainty("confidence-vote", source="Taubenfeld et al. 2502.06233", shares_call=True)
async def confidence_vote(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    score: str = "confidence",
    temperature: float = 1.0,
    window: int | None = None,
    ties: Ties = "confidence",
) -> Verdict:
    """Vote of n samples weighted exp(z / temperature), z the score standardised over the samples.

    Args:
        temperature: how much confidence weighs; the larger, the closer to a plain majority
    """
    readable, votes = await scored(session, request, n, score, window, ties)
    # The paper takes a softmax of the scores; to standardise them first is our choice.
    values = [value for value, _ in readable]
    mean = sum(values) / len(values) if values else 0.0
    spread = sqrt(sum((v - mean) ** 2 for v in values) / len(values)) if values else 0.0
    for value, sample in readable:
        votes.add(sample, exp((value - mean) / spread / temperature) if spread > 0 else 1.0)
    return votes.winner()


# DeepConf, offline and online (Fu et al., arXiv 2508.15260): confident traces vote, weak ones stop.


@_by_certainty("deepconf", source="Fu et al. 2508.15260", shares_call=True)
async def deepconf(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    keep: float = 90.0,  # 10 only where calibrated: confident wrong answers concentrate there
    score: str = "confidence",
    window: int | None = None,
    ties: Ties = "confidence",
) -> Verdict:
    """Vote of the most confident `keep` percent of n samples, weighted by confidence.

    Args:
        keep: percent of the samples that vote, the surest first
    """
    _check(keep)
    readable, votes = await scored(session, request, n, score, window, ties)
    readable.sort(key=lambda pair: pair[0], reverse=True)
    for confidence, sample in readable[: ceil(len(readable) * keep / 100)]:
        votes.add(sample, exp(confidence) if score == "logprob" else confidence)  # weights are positive
    return votes.winner()


@_by_certainty(
    "deepconf-online", source="Fu et al. 2508.15260", needs="top-k log-probabilities, streamed", stops_early=True
)
async def deepconf_online(
    session: Session,
    request: Request,
    *,
    n: int = 32,
    warmup: int = 16,
    keep: float = 90.0,
    consensus: float = 0.95,
    window: int | None = None,
    ties: Ties = "confidence",
) -> Verdict:
    """DeepConf that stops weak samples on the way and everything at consensus.

    `warmup` full samples set the threshold: the (100 - keep) percentile of their lowest window.
    Later samples stop, and lose their vote, when a full window falls below it. Unlike the released
    code, all stops once the leader holds `consensus` of the weight.

    Args:
        warmup: full samples that set the threshold
        keep: percent of the warm-up samples that the threshold lets pass
        consensus: share of all weight at which sampling stops
    """
    _check(keep)
    width = window or session.confidence_window
    lowest, mean = scorer(session, "lowest", width), scorer(session, "confidence", width)
    votes = Votes(ties, session.random)
    bars: list[float] = []
    first = min(warmup, n)
    async for sample in session.sample(request, n=first, ahead=first, top_logprobs=TOP):
        votes.add(sample, 0.0 if sample.answer is None else mean(sample))
        if sample.confidence is not None or sample.answer is not None:  # else it was empty
            bars.append(lowest(sample))
    if votes.share() >= consensus:
        return votes.winner("consensus")
    if first == n or not bars:
        return votes.winner()
    # Unreadable samples count here, though they have no vote: the threshold is of traces, not of answers.
    bar = _percentile(sorted(bars), 100 - keep)

    def watch(progress: Progress) -> Decision:
        now = progress.window(width)
        return "stop" if now is not None and now < bar - 1e-9 else "keep"  # sums differ in rounding

    async for sample in session.sample(request, n=n - first, watch=watch, top_logprobs=TOP):
        votes.add(sample, 0.0 if sample.answer is None else mean(sample))
        if votes.share() >= consensus:
            return votes.winner("consensus")
    return votes.winner()


def _check(keep: float) -> None:
    if not 0 < keep <= 100:
        raise BadInput("keep", keep, "is no percentage", "give more than 0 and at most 100")


def _percentile(ordered: list[float], percent: float) -> float:
    """Linear interpolation between closest ranks."""
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


# Best-of-N weighted, also PRM-Vote: every sample votes with the verifier's score.


@strategy(
    "weighted-vote",
    source="Snell et al. 2408.03314",
    needs="any engine, and a verifier",
    votes="scores",
    judges="always",
    shares_call=True,
)
async def weighted_vote(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    aggregation: str = "auto",
    top: float = 1.0,
    ties: Ties = "confidence",
) -> Verdict:
    """Vote of n samples weighted by the verifier's scores, or plain vote of the best `top` of them.

    Args:
        top: share of the samples that vote, the best first; below 1 each has one vote
    """
    verifier = verifier_of(session, "weighted-vote")
    how = aggregation_of(verifier, aggregation)
    if not 0 < top <= 1:
        raise BadInput("weighted-vote:top", top, "is no fraction", "give more than 0 and at most 1")
    samples = [sample async for sample in session.sample(request, n=n, ahead=n)]
    readable = [sample for sample in samples if sample.answer is not None]
    scores = await judged(session, request, readable, how) if readable else []
    votes = Votes(ties, session.random)
    for sample in samples:
        if sample.answer is None:
            votes.add(sample)
    if top < 1:
        readable, scores = _best(readable, scores, top), []
    for sample, weight in zip(readable, weights(session, scores or [1.0] * len(readable)), strict=True):
        votes.add(sample, weight)
    return votes.winner()


def _best(samples: Sequence[Sample], scores: Sequence[float | None], top: float) -> list[Sample]:
    """The best share of the samples, and those as good as the last of them, so that order does not matter."""
    known = sorted((score for score in scores if score is not None), reverse=True)
    if not known:
        return list(samples)
    bar = known[min(len(known), ceil(len(samples) * top)) - 1]
    return [sample for sample, score in zip(samples, scores, strict=True) if score is not None and score >= bar]
