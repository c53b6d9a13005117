"""DeepConf, offline and online (Fu et al., arXiv 2508.15260): confident traces vote, weak ones stop."""

from __future__ import annotations

from math import ceil, exp

from outthink.core.errors import BadInput
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.core.sample import TOP, Decision, Progress
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.scores import scored, scorer
from outthink.strategies.votes import Ties, Votes


@strategy("deepconf", source="Fu et al. 2508.15260", needs="top-k log-probabilities")
async def deepconf(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    keep: float = 90.0,
    score: str = "confidence",
    window: int | None = None,
    ties: Ties = "confidence",
) -> Verdict:
    """Vote of the most confident `keep` percent of n samples, weighted by confidence."""
    _check(keep)
    readable, votes = await scored(session, request, n, score, window, ties)
    readable.sort(key=lambda pair: pair[0], reverse=True)
    for confidence, sample in readable[: ceil(len(readable) * keep / 100)]:
        votes.add(sample, exp(confidence) if score == "logprob" else confidence)  # weights are positive
    return votes.winner()


@strategy("deepconf-online", source="Fu et al. 2508.15260", needs="top-k log-probabilities, streamed", stops_early=True)
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
