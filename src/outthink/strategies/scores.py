"""Confidence scores of a finished sample.

Knows: the names of the scores and what each needs. Does not know how a score is used.
"""

from __future__ import annotations

from collections.abc import Callable

from outthink.core.errors import BadInput, Unsupported
from outthink.core.request import Request
from outthink.core.sample import Sample
from outthink.session.session import Session
from outthink.strategies.votes import Ties, Votes

SCORES = ("confidence", "tail", "bottom", "lowest", "logprob", "self-certainty")
TOP = 20
"""Alternatives a token that DeepConf's confidence averages over (arXiv 2508.15260)."""


def alternatives(score: str) -> int:
    """How many alternatives a token the engine must return for this score."""
    if score not in SCORES:
        raise BadInput("score", score, "is not known", f"use one of {', '.join(SCORES)}")
    return 0 if score == "logprob" else TOP


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
        trace = sample.confidence
        if score == "self-certainty" and sample.self_certainty is not None:
            return sample.self_certainty
        if score == "logprob" and sample.mean_logprob is not None:
            return sample.mean_logprob
        if trace is None or score == "logprob":
            raise Unsupported(
                f"score {score}: {session.tariff.model} returned no {'' if score == 'logprob' else 'top-'}"
                "log-probabilities; use an engine that does (see `outthink doctor`) or self-consistency"
            )
        if score == "self-certainty":
            session.note("self-certainty needs full log-probabilities; mean token confidence stands in")
        if score == "tail":
            return trace.tail(window)
        if score == "bottom":
            return trace.bottom(window)
        if score == "lowest":
            return trace.lowest(window)
        return trace.mean()

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
