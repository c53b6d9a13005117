"""From a verifier's scores to the weights of votes.

Knows: which verifier a session has, how its step scores become one number, and what a candidate
without a score weighs. Does not know who votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from outthink.core.errors import BadInput
from outthink.core.request import Request
from outthink.core.sample import Candidate, Sample
from outthink.session.session import Session
from outthink.verifiers.protocol import AGGREGATIONS, Score, Verifier


def verifier_of(session: Session, name: str) -> Verifier:
    """The session's verifier; BadInput for a strategy that has none."""
    if session.verifier is None:
        raise BadInput("strategy", name, "needs a verifier", "give one (--verifier NAME|PATH|URL)")
    return session.verifier


def aggregation_of(verifier: Verifier, aggregation: str) -> str:
    """How step scores become one number, `auto` as the verifier was calibrated; BadInput for an unknown way."""
    if aggregation == "auto":
        return verifier.aggregation
    if aggregation not in AGGREGATIONS:
        raise BadInput("aggregation", aggregation, "is not known", f"use auto, {', '.join(AGGREGATIONS)}")
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
