"""Revision chains (Snell et al., arXiv 2408.03314): attempts that see earlier attempts, selected, never just the last.

Knows: the grid of chains and revisions, what a revision is shown, and selection in two steps. Does not
know how a verifier judges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from outthink.core.errors import BadInput
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.core.sample import Sample
from outthink.session.session import Session
from outthink.strategies.prompts import asking, question
from outthink.strategies.registry import strategy
from outthink.strategies.votes import Ties, Votes

SHOWN = 4  # as in Snell et al.: earlier attempts are left out
_RATIONALE = 400  # characters of an attempt that a revision gets to see, from its end


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt, its score (None without one) and what an exact check said of it."""

    sample: Sample
    score: float | None = None
    feedback: str = ""


def grid(n: int, chains: int | None) -> tuple[int, int]:
    """Chains and revisions with chains * revisions = n; by default as near to square as n allows, wider
    rather than longer. BadInput where `chains` does not divide n."""
    if n < 1:
        raise BadInput("n", n, "is below 1", "ask for at least one attempt")
    if chains is None:
        chains = next(count for count in range(math.isqrt(n - 1) + 1, n + 1) if n % count == 0)  # from ceil(sqrt(n))
    if chains < 1 or n % chains:
        raise BadInput("chains", chains, f"does not divide n = {n}", "choose chains x revisions = n")
    return chains, n // chains


def revised(request: Request, attempts: Sequence[Attempt]) -> Request:
    """The question with the last four attempts: answer, end of the rationale, and feedback where there is some."""
    parts = []
    for number, attempt in enumerate(attempts[-SHOWN:], max(1, len(attempts) - SHOWN + 1)):
        sample = attempt.sample
        lines = [f"Attempt {number}: answer {sample.answer or '(none could be read)'}"]
        lines.append(f"Rationale: {sample.text.strip()[-_RATIONALE:]}")
        if attempt.feedback:
            lines.append(f"Check: {attempt.feedback}")
        parts.append("\n".join(lines))
    return asking(
        request,
        f"{question(request)}\n\nEarlier attempts at this question:\n\n" + "\n\n".join(parts) + "\n\n"
        "Some of them may be wrong, and some may be right. Check them, then write a complete solution of your own "
        "and finish with a line of the form: The answer is X.",
    )


@strategy(
    "revision", source="Snell et al. 2408.03314", votes="answers", judges="parameter", stops_early=True, rewrites=True
)
async def revision(
    session: Session, request: Request, *, n: int = 16, chains: int | None = None, ties: Ties = "confidence"
) -> Verdict:
    """Chains of attempts that each see the last four; the best or commonest of each chain, then across chains.

    Args:
        chains: chains side by side; auto is the square root of n
    """
    count, revisions = grid(n, chains)
    verifier = session.verifier
    grown: list[list[Attempt]] = []
    if verifier is not None and verifier.kind == "exact":
        for _ in range(count):  # one after another: nothing is drawn after a pass
            grown.append(await _chain(session, request, revisions))
            if _passed(grown[-1]):
                sample = grown[-1][-1].sample
                return Verdict(sample.answer, sample.text, "consensus")
    else:
        grown = await session.together(*[lambda branch: _chain(branch, request, revisions)] * count)
    # Never just the last of a chain: Snell et al. find some 38 % of right answers flipped by a revision.
    winners = [winner for chain in grown if (winner := select(session, chain, ties)) is not None]
    best = select(session, winners, ties)
    return Verdict(best.sample.answer, best.sample.text) if best else Verdict(None, "")


async def _chain(session: Session, request: Request, revisions: int) -> list[Attempt]:
    """One chain in its order; shorter where the budget ends, or an exact check passes."""
    attempts: list[Attempt] = []
    for _ in range(revisions):
        asked = revised(request, attempts) if attempts else request
        async for sample in session.sample(asked, n=1, ahead=1):
            attempts.append(await _judged(session, request, sample))
            break
        else:
            break
        if _passed(attempts) and session.verifier is not None and session.verifier.kind == "exact":
            break
    return attempts


async def _judged(session: Session, request: Request, sample: Sample) -> Attempt:
    verifier = session.verifier
    if verifier is None:
        return Attempt(sample)
    (score,) = await session.score(request, [sample])
    if score is None:
        return Attempt(sample)
    value = score.value(verifier.aggregation)
    # A learned score may be wrong: only what an exact check says is shown to the model.
    if verifier.kind != "exact":
        return Attempt(sample, value)
    return Attempt(sample, value, score.message or ("It passed." if value >= 1 else "It did not pass."))


def _passed(attempts: Sequence[Attempt]) -> bool:
    return bool(attempts) and attempts[-1].score is not None and attempts[-1].score >= 1


def select(session: Session, attempts: Sequence[Attempt], ties: Ties = "confidence") -> Attempt | None:
    """The attempt with the highest score (the earliest of equals), without scores that of the commonest answer."""
    scored = [attempt for attempt in attempts if attempt.score is not None]
    if scored:
        return max(scored, key=lambda attempt: attempt.score or 0.0)
    votes = Votes(ties, session.random)
    for attempt in attempts:
        votes.add(attempt.sample)
    answer = votes.winner().answer
    return next((attempt for attempt in attempts if attempt.sample.answer == answer), None)
