"""Counting votes on canonical answers, and what their weights are made of: confidence or a verifier's scores.

Knows: ties, how sure the leader is, which score needs which log-probabilities, and what a candidate without a
score weighs. An unreadable sample is counted and never votes. Does not know where samples come from.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import comb, fsum
from typing import Literal

from outthink.core.errors import BadInput, Unsupported, need_known
from outthink.core.receipt import Stopped, Verdict
from outthink.core.request import Request
from outthink.core.sample import Candidate, Sample, alternatives, certainty
from outthink.session.session import Session
from outthink.verifiers.protocol import AGGREGATIONS, Score, Verifier

Ties = Literal["confidence", "random"]


@lru_cache(maxsize=4096)
def leader_probability(leader: int, second: int) -> float:
    """P(p_leader > p_second) under Beta(leader + 1, second + 1).

    The exact form sum_{j=0..a} C(a+b+1, j) / 2^(a+b+1) of Adaptive-Consistency (arXiv 2305.11860).
    """
    n = leader + second + 1
    return float(sum(comb(n, j) for j in range(leader + 1)) / 2**n)


class Votes:
    """Votes of one request, by answer."""

    __slots__ = ("_ties", "first", "random", "samples", "unreadable", "weights")

    def __init__(self, ties: Ties = "confidence", randomness: random.Random | None = None) -> None:
        if ties not in ("confidence", "random"):
            raise BadInput("ties", ties, "is not known", "use confidence or random")
        self._ties = ties
        self.random = randomness
        self.weights: dict[str, float] = {}
        self.samples: list[Sample] = []
        self.first: Sample | None = None
        self.unreadable = 0

    def add(self, sample: Sample, weight: float = 1.0) -> None:
        """Count a sample; an unreadable one is only counted as such."""
        if self.first is None:
            self.first = sample
        answer = sample.answer
        if answer is None:
            self.unreadable += 1
            return
        self.weights[answer] = self.weights.get(answer, 0.0) + weight
        self.samples.append(sample)

    def top(self) -> tuple[float, float]:
        """The two largest weights, 0 where there is no answer."""
        leader = second = 0.0
        for weight in self.weights.values():
            if weight > leader:
                leader, second = weight, leader
            elif weight > second:
                second = weight
        return leader, second

    def leader_probability(self) -> float:
        """How sure it is that the leading answer is the more likely one of the top two."""
        leader, second = self.top()
        if not leader:
            return 0.0  # nobody leads before the first vote
        return leader_probability(int(leader), int(second))  # of votes that weigh 1; weighted ones have no such form

    def share(self) -> float:
        """The leader's share of all weight; 0 without votes."""
        total = sum(self.weights.values())
        return max(self.weights.values()) / total if total > 0 else 0.0

    def winner(self, stopped: Stopped = "finished") -> Verdict:
        """The answer with the most weight; its text is its earliest sample's.

        Ties go to the higher mean confidence over the tied answer's samples, then to the smaller
        mean length, then to the earlier; `ties=random` is the plain textbook rule.
        """
        if not self.weights:
            return Verdict(None, self.first.text if self.first else "", stopped)
        most = max(self.weights.values())
        # Sums of the same weights in another order differ in rounding, which must not decide.
        tied = [answer for answer, weight in self.weights.items() if weight >= most - 1e-12 * abs(most)]
        answer = tied[0] if len(tied) == 1 else self._break(tied)
        text = next(sample.text for sample in self.samples if sample.answer == answer)
        return Verdict(answer, text, stopped)

    def _break(self, tied: list[str]) -> str:
        if self._ties == "random":
            return (self.random or random.Random(0)).choice(tied)
        groups: dict[str, list[Sample]] = {answer: [] for answer in tied}
        for sample in self.samples:
            if sample.answer in groups:
                groups[sample.answer].append(sample)

        def strength(answer: str) -> tuple[float, float]:
            samples = groups[answer]
            known = [value for sample in samples if (value := sample.certainty) is not None]
            lengths = [sample.tokens for sample in samples if sample.tokens is not None]
            # Known in part is unknown, and never wins a tie; fsum, so that no rounding by order of arrival decides one.
            certainty = fsum(known) / len(known) if len(known) == len(samples) else float("-inf")
            length = sum(lengths) / len(lengths) if lengths else float("inf")
            return certainty, -length

        return max(tied, key=strength)


def ranked(score: float, certainty: float | None, tokens: int | None) -> tuple[float, float, float]:
    """What the best candidate has most of: score, then certainty, then brevity; what is unknown comes last."""
    last = float("-inf")
    return score, last if certainty is None else certainty, last if tokens is None else -tokens


# Confidence scores of a finished sample.


def scorer(session: Session, score: str, window: int) -> Callable[[Sample], float]:
    """A function from sample to score (higher = more confident).

    Args:
        score: `confidence` mean token confidence; `tail` of the last `window` tokens; `bottom` mean
            of the least confident tenth of the windows; `lowest` least confident window; `logprob`
            mean log-probability; `self-certainty` (arXiv 2502.18581), for which mean token
            confidence stands in, with a note, where full log-probabilities are missing.

    The function raises Unsupported for a sample without the log-probabilities it needs.
    """
    alternatives(score)

    def value(sample: Sample) -> float:
        measured = certainty(sample, score, window)
        if measured is None and score == "self-certainty":
            measured = certainty(sample, "confidence", window)
            if measured is not None:
                session.note("self-certainty needs full log-probabilities; mean token confidence stands in")
        if measured is None:
            raise Unsupported(
                f"score {score}: {session.tariff.model} returned no {'' if score == 'logprob' else 'top-'}"
                "log-probabilities; use an engine that does (see `outthink doctor`) or self-consistency"
            )
        return measured

    return value


async def scored(
    session: Session, request: Request, n: int, score: str, window: int | None, ties: Ties
) -> tuple[list[tuple[float, Sample]], Votes]:
    """Draw n samples at once: the readable ones with their scores, in launch order, and votes that
    hold no weight yet but know the unreadable ones."""
    value = scorer(session, score, window or session.confidence_window)
    votes = Votes(ties, session.random)
    readable = []
    async for sample in session.sample(request, n=n, ahead=n, top_logprobs=alternatives(score)):
        if sample.answer is None:
            votes.add(sample)
        else:
            readable.append((value(sample), sample))
    return readable, votes


# From a verifier's scores to the weights of votes.


def verifier_of(session: Session, name: str) -> Verifier:
    """The session's verifier; BadInput for a strategy that has none."""
    if session.verifier is None:
        raise BadInput("strategy", name, "needs a verifier", "give one (--verifier NAME|PATH|URL)")
    return session.verifier


def aggregation_of(verifier: Verifier, aggregation: str) -> str:
    """How step scores become one number, `auto` as the verifier was calibrated; BadInput for an unknown way."""
    if aggregation == "auto":
        return verifier.aggregation
    need_known("aggregation", aggregation, AGGREGATIONS, f"use auto, {', '.join(AGGREGATIONS)}")
    return aggregation


async def judged(
    session: Session, request: Request, candidates: Sequence[Candidate | Sample], aggregation: str
) -> list[float | None]:
    """One number a candidate, None for one without a score (see `Session.score`)."""
    return values(await session.score(request, candidates), aggregation)


def values(scores: Sequence[Score | None], aggregation: str) -> list[float | None]:
    """One number a candidate, None where it has no score."""
    return [None if score is None else score.value(aggregation) for score in scores]


def weights(session: Session, scores: Sequence[float | None]) -> list[float]:
    """How much each candidate's vote weighs.

    One without a score weighs as much as the others on average. All weigh the same, so that the
    majority wins, where none has a score or all scores are 0.
    """
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        rest = "the others weigh by theirs" if known else "the majority decides"
        session.note(f"{len(scores) - len(known)} of {len(scores)} candidates have no score; {rest}")
    if not known or max(known) <= 0:
        return [1.0] * len(scores)
    mean = fsum(known) / len(known)
    return [mean if score is None else score for score in scores]
