"""Confidence scores of a finished sample.

Knows: the names of the scores and what each needs. Does not know how a score is used.
"""

from __future__ import annotations

from collections.abc import Callable

from outthink.core.errors import Unsupported
from outthink.core.request import Request
from outthink.core.sample import MEASURES as SCORES
from outthink.core.sample import TOP, Sample, alternatives, certainty
from outthink.session.session import Session
from outthink.strategies.votes import Ties, Votes

__all__ = ["SCORES", "TOP", "alternatives", "scored", "scorer"]


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
        found = certainty(sample, score, window)
        if found is None and score == "self-certainty":
            found = certainty(sample, "confidence", window)
            if found is not None:
                session.note("self-certainty needs full log-probabilities; mean token confidence stands in")
        if found is None:
            raise Unsupported(
                f"score {score}: {session.tariff.model} returned no {'' if score == 'logprob' else 'top-'}"
                "log-probabilities; use an engine that does (see `outthink doctor`) or self-consistency"
            )
        return found

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
