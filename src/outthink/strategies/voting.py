"""One sample, and votes of equal weight: all at once, until the leader is sure, or the first to finish.

Knows: when each strategy of the family stops, and how any stopping rule is carried out (`allocate`, behind `auto`).
Does not know how votes are counted, or how a rule decides.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.core.sample import Judged, Sample
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.votes import Ties, Votes


@strategy("single", source="baseline", streams="tokens", serial=True)
async def single(session: Session, request: Request) -> Verdict:
    """One sample at the request's temperature."""
    async for sample in session.sample(request, n=1):
        return Verdict(sample.answer, sample.text)
    return Verdict(None, "")


@strategy("greedy", source="baseline", streams="tokens", serial=True)
async def greedy(session: Session, request: Request) -> Verdict:
    """One sample at temperature 0."""
    return await single(session, request.greedy)


# Self-consistency (Wang et al., arXiv 2203.11171): sample n, the most frequent answer wins.


@strategy("self-consistency", source="Wang et al. 2203.11171", votes="answers", shares_call=True)
async def self_consistency(session: Session, request: Request, *, n: int = 16, ties: Ties = "confidence") -> Verdict:
    """Majority vote over n samples, all in flight at once."""
    votes = Votes(ties, session.random)
    async for sample in session.sample(request, n=n, ahead=n):
        votes.add(sample)
    return votes.winner()


# Adaptive-Consistency (Aggarwal et al., arXiv 2305.11860): stop when the majority is sure.


@strategy("adaptive-consistency", source="Aggarwal et al. 2305.11860", votes="answers", stops_early=True)
async def adaptive_consistency(
    session: Session, request: Request, *, n: int = 16, confidence: float = 0.95, ties: Ties = "confidence"
) -> Verdict:
    """Majority vote that stops once the leader beats the second with probability `confidence`.

    Args:
        confidence: how sure the leader must be before sampling stops
    """
    votes = Votes(ties, session.random)
    async for sample in session.sample(request, n=n):
        votes.add(sample)
        if votes.leader_probability() >= confidence:
            return votes.winner("consensus")
    return votes.winner()


# Early-stopping self-consistency (Li et al., arXiv 2401.10480): stop when a whole window agrees.


@strategy("esc", source="Li et al. 2401.10480", votes="answers", stops_early=True)
async def esc(
    session: Session, request: Request, *, n: int = 16, window: int = 5, ties: Ties = "confidence"
) -> Verdict:
    """Majority vote that stops once all `window` answers of the newest window agree.

    Args:
        window: answers in a row that must agree
    """
    votes = Votes(ties, session.random)
    answers: list[str | None] = []
    async for sample in session.sample(request, n=n):
        votes.add(sample)
        answers.append(sample.answer)
        newest = answers[-window:]
        # Windows follow each other and do not overlap, as in the paper.
        if len(answers) % window == 0 and newest[0] is not None and len(set(newest)) == 1:
            return votes.winner("consensus")
    return votes.winner()


# short-m@k (Hassid et al., arXiv 2505.17813): of k running samples the m shortest vote.


@strategy("short-m-of-k", source="Hassid et al. 2505.17813", votes="answers", stops_early=True, waits=False)
async def short_m_of_k(
    session: Session, request: Request, *, n: int = 8, m: int = 3, ties: Ties = "confidence"
) -> Verdict:
    """Launch n, let the first m readable finishers vote, cancel the rest.

    Args:
        m: finishers that vote
    """
    votes = Votes(ties, session.random)
    # In every other vote this order would be a bias towards short samples; here that is the algorithm.
    async for sample in session.sample(request, n=n, ahead=n, order="finished"):
        votes.add(sample)
        if len(votes.samples) >= m:
            return votes.winner("first-m" if n > m else "finished")
    return votes.winner()


# Samples one step at a time, as a rule says: the strategy behind `auto`.


class Step(NamedTuple):
    """What to buy next.

    Args:
        model: which model of the session's pool, None for the session's own.
        n: samples at most.
        ahead: of them in flight at once, None for the session's default.
        alternatives: alternatives a token that the log-probabilities come with (0 = chosen tokens only).
        judged: whether the session's verifier judges each sample before the rule sees it; a `Judged` tells how many
            tokens that takes.
    """

    model: str | None
    n: int
    ahead: int | None = None
    alternatives: int = 0
    judged: bool | Judged = False


class Rule(Protocol):
    """Decides for one request what to buy, when to stop and who has won. It holds the state of that request."""

    def next(self) -> Step | None:
        """What to buy now, None when nothing more is worth it."""

    def add(self, sample: Sample, model: str | None) -> bool:
        """Count a sample; True to leave the present step now (what is in flight is cancelled)."""

    def verdict(self) -> Verdict:
        """The answer by all samples so far, and why it stopped."""


async def allocate(session: Session, request: Request, *, rule: Rule) -> Verdict:
    """Carry out a rule. Its first samples are probes and votes at once: nothing sampled is thrown away."""
    fruitless: Step | None = None
    while session.stopped is None and (step := rule.next()) is not None:
        if step == fruitless:
            break  # its calls failed; the same again would fail again
        fruitless = step
        buyer = session if step.model is None else session.on(step.model)
        samples = buyer.sample(request, n=step.n, ahead=step.ahead, top_logprobs=step.alternatives, judged=step.judged)
        async for sample in samples:
            fruitless = None
            if rule.add(sample, step.model):
                break
    return rule.verdict()
