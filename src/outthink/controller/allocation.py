"""Who gets the next sample of a batch: the request whose sample gains most per unit of cost.

Knows: a lazy-greedy heap over gains and costs (Damani et al., arXiv 2410.04707), when a request is closed, and
what is believed of each one's next sample: a posterior under an exact check, or votes and measured gains. Does
not know how samples are drawn, where the budget is kept, or how gains were measured (evaluation/gains.py).
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, exp, lgamma
from typing import NamedTuple, Protocol

from outthink.core.errors import BadInput
from outthink.core.receipt import Stopped, Verdict
from outthink.core.sample import Sample
from outthink.strategies.votes import Votes, leader_probability


class Belief(Protocol):
    """One request; updated by its samples."""

    @property
    def at_most(self) -> float:
        """Samples it may get in all."""
        ...

    @property
    def gain(self) -> float:
        """Expected accuracy gained per further sample; 0 where none can help."""
        ...

    def add(self, sample: Sample, passed: bool | None = None) -> None:
        """Learn from a sample; `passed` is what an exact check said, None without one."""
        ...

    def verdict(self, stopped: Stopped | None) -> Verdict:
        """The answer so far; `stopped` is the reason from outside, None where the request was closed."""
        ...


_WEIGHT = 2
"""Samples of the whole batch that a request's own costs are averaged with: its first ones say little."""


class Allocation:
    """Deals out samples one at a time. What is in flight counts: k samples of a request that are not back
    yet divide its gain by k + 1, so that idle places are not filled with samples that gain next to nothing.

    Args:
        beliefs: one a request.
        cost: of a request's sample in the budget's currency, None where unknown (then it counts as the batch's mean).
        worth: the most that one more right answer may cost, in the same currency; a request whose next
            sample gains less than cost / worth is closed. None: only those that can gain nothing are.

    Costs and gains of a request only change with its own samples, but for the mean of the batch;
    therefore the heap is put right lazily, when a request comes to its top.
    """

    def __init__(
        self,
        beliefs: Sequence[Belief],
        cost: Callable[[int, Sample], float | None] = lambda i, sample: 1.0,
        *,
        worth: float | None = None,
    ) -> None:
        if worth is not None and not worth > 0:
            raise BadInput("worth", worth, "is not positive", "give the most that one more right answer may cost")
        self.beliefs, self._cost, self._least = beliefs, cost, 0.0 if worth is None else 1 / worth
        self.drawn = [0] * len(beliefs)
        self.in_flight = [0] * len(beliefs)
        self._spent = [0.0] * len(beliefs)
        self._total, self._known = 0.0, 0
        self._failed: set[int] = set()
        self._newest = [0] * len(beliefs)
        self._heap: list[tuple[float, int, int]] = []
        for i in range(len(beliefs)):
            self._push(i)

    def expected_cost(self, i: int) -> float:
        """Of the next sample of request i; 1 before anything is known of costs."""
        if not self._known:
            return 1.0
        mean = self._total / self._known
        # Gains are divided by this, and all samples may have cost nothing, as at a price of 0.
        return (self._spent[i] + _WEIGHT * mean) / (self.drawn[i] + _WEIGHT) or 1.0

    def rate(self, i: int) -> float:
        """Expected gain per unit of cost of the next sample of request i; 0 where it gets no more."""
        belief, flying = self.beliefs[i], self.in_flight[i]
        if i in self._failed or self.drawn[i] + flying >= belief.at_most:
            return 0.0
        return belief.gain / (self.expected_cost(i) * (1 + flying))

    def next(self) -> int | None:
        """The request that gets the next sample, the earlier on ties; None while none is worth one."""
        heap = self._heap
        while heap:
            _, i, stamp = heapq.heappop(heap)
            # A heap cannot move an entry: a changed one is pushed anew, and its older places are told by their stamp.
            if stamp != self._newest[i]:
                continue
            rate = self.rate(i)
            # What is in flight delays a request and must not close it; the cost of 1 before the first one is no price.
            if rate <= 0 or (self._known and rate * (1 + self.in_flight[i]) < self._least):
                continue  # closed, unless what is in flight changes that
            # The batch's mean cost has moved since it was pushed, so that another one may be ahead by now.
            if heap and (-rate, i) > heap[0][:2]:
                self._push(i)
                continue
            self.in_flight[i] += 1
            self._push(i)
            return i
        return None

    def add(self, i: int, sample: Sample | None, passed: bool | None = None) -> None:
        """The outcome of a sample that `next` gave to request i; None closes it: no more will come."""
        self.in_flight[i] -= 1
        if sample is None:
            self._failed.add(i)
            return
        cost = self._cost(i, sample)
        if cost is None:
            cost = self._total / self._known if self._known else 1.0
        self.drawn[i] += 1
        self._spent[i] += cost
        self._total += cost
        self._known += 1
        self.beliefs[i].add(sample, passed)
        self._push(i)

    def _push(self, i: int) -> None:
        """Put a request where it belongs; its older places are skipped."""
        self._newest[i] += 1
        heapq.heappush(self._heap, (-self.rate(i), i, self._newest[i]))


def split(beliefs: Sequence[Belief], budget: int) -> list[int]:
    """How many of `budget` samples at equal cost each request gets, ordered before any is judged."""
    allocation = Allocation(beliefs)
    blank = Sample(0, "", None, "none", None)
    while budget > 0 and (i := allocation.next()) is not None:
        allocation.add(i, blank)
        budget -= 1
    return allocation.drawn


# What is believed of one request: how much its next sample is expected to gain.


class Checked:
    """A request with an exact check, and a Beta posterior over its success probability.

    Args:
        prior: pseudo-counts (successes, failures); a known probability p is the limit of (s p, s (1 - p)).
        at_most: samples after which it is closed.
    """

    def __init__(self, prior: tuple[float, float] = (1.0, 1.0), at_most: int = 32) -> None:
        a, b = prior
        if not (a >= 0 and b >= 0 and 0 < a + b < float("inf")):
            raise BadInput("prior", prior, "are no pseudo-counts", "give two numbers from 0, not both 0")
        self.a, self.b, self.at_most = a, b, at_most
        self.failures = 0
        self.solved: Sample | None = None
        self.first: Sample | None = None

    @property
    def gain(self) -> float:
        """P(the next sample passes), given that all so far have failed; 0 once one has passed."""
        if self.solved is not None or self.failures >= self.at_most:
            return 0.0
        return self.a / (self.a + self.b + self.failures)  # mean of Beta(a, b + failures)

    def add(self, sample: Sample, passed: bool | None = None) -> None:
        """Count a failure, or keep the first sample that passed."""
        self.first = self.first or sample
        if passed:
            self.solved = self.solved or sample
        else:
            self.failures += 1

    def verdict(self, stopped: Stopped | None) -> Verdict:
        """The sample that passed, else no answer and the first text."""
        if self.solved is not None:
            return Verdict(self.solved.answer, self.solved.text, "finished")
        return Verdict(None, self.first.text if self.first else "", stopped or "gave-up")


class Planned:
    """A request whose samples are all ordered before any is judged; gains p (1 - p)^n with p known."""

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise BadInput("p", p, "is no probability", "give a number from 0 to 1")
        self.p, self.n = p, 0
        self.at_most = float("inf")

    @property
    def gain(self) -> float:
        """P(the next sample is the first to pass)."""
        return float(self.p * (1 - self.p) ** self.n)

    def add(self, sample: Sample | None = None, passed: bool | None = None) -> None:
        """One more is ordered."""
        self.n += 1

    def verdict(self, stopped: Stopped | None) -> Verdict:
        """Nothing has been judged."""
        return Verdict(None, "", stopped or "finished")


class Voted:
    """A request whose answer is the majority's.

    Args:
        table: measured gains; None to assume that the answer the model prefers is right.
        at_most: samples after which it is closed.
    """

    def __init__(self, table: GainTable | None = None, at_most: int = 32) -> None:
        self.table, self.at_most = table, at_most
        self.votes = Votes()
        self.n = 0
        self._logprob: dict[str, float] = {}
        self._unknown = False

    @property
    def state(self) -> State:
        """What the gain is looked up by."""
        winner = self.votes.winner().answer
        leader, second = self.votes.top()
        certainty = None if winner is None or self._unknown else self._logprob[winner] / leader
        return State(self.n, int(leader), int(second), certainty)

    @property
    def gain(self) -> float:
        """Expected change of the majority's accuracy per further sample."""
        if self.n >= self.at_most:
            return 0.0
        return assumed_gain(self.state) if self.table is None else self.table.gain(self.state)

    def add(self, sample: Sample, passed: bool | None = None) -> None:
        """Count a vote."""
        self.n += 1
        self.votes.add(sample)
        if sample.answer is not None:
            self._unknown = self._unknown or sample.mean_logprob is None  # a sum with an unknown part is unknown
            self._logprob[sample.answer] = self._logprob.get(sample.answer, 0.0) + (sample.mean_logprob or 0.0)

    def verdict(self, stopped: Stopped | None) -> Verdict:
        """The majority's answer; closed early it is a consensus if most samples agree, else given up."""
        early: Stopped = "consensus" if 2 * self.state.leader > self.n else "gave-up"
        return self.votes.winner(stopped or ("finished" if self.n >= self.at_most else early))


# What one more sample has gained so far, by the state of a vote.

# Where somebody leads, one more vote alone changes no winner, and would seem to gain nothing: the best mean gain
# over several votes ahead is taken.
_AHEAD = (1, 2, 3, 4, 6, 8, 12, 16)
_MOST = 40
"""Votes beyond which the posterior is taken at the same shares: it is settled by then."""

Key = tuple[int, ...]


class State(NamedTuple):
    """A vote: samples drawn, votes of the leader and of the second, mean log-probability behind the leader."""

    n: int
    leader: int
    second: int
    certainty: float | None


def step(n: int) -> int:
    """Samples in classes: one each up to 8, then two a doubling."""
    # The bounds are 8 x sqrt(2)^k, rounded up.
    return n if n <= 8 else 8 + sum(n >= bound for bound in (12, 16, 23, 32, 46, 64, 91, 128))


def keys(state: State, edges: Sequence[float]) -> tuple[Key, ...]:
    """The cells of a state, the coarser first."""
    votes = (step(state.n), min(state.leader, 63), min(state.second, 63))
    if state.certainty is None or not edges:
        return (votes,)
    return votes, (*votes, bisect_right(edges, state.certainty))


@dataclass(frozen=True, slots=True)
class GainTable:
    """Accuracy gained per further sample, by state.

    Args:
        cells: gain by key: samples drawn (in classes), votes of leader and second, and, where the key is
            longer, the class of certainty.
        edges: limits between classes of certainty (mean log-probability), empty to leave it out.
        slope: gain per assumed gain, for states that were not seen.
        at_most: samples a request that the recorded ones tell of.
    """

    cells: Mapping[Key, float]
    edges: tuple[float, ...]
    slope: float
    at_most: int

    def gain(self, state: State) -> float:
        """Of the finest cell that was seen; 0 beyond what was recorded."""
        if state.n >= self.at_most:
            return 0.0
        for key in reversed(keys(state, self.edges)):
            if (gain := self.cells.get(key)) is not None:
                return gain
        return self.slope * assumed_gain(state)


def assumed_gain(state: State) -> float:
    """Without recorded samples: how much surer further samples are expected to make the leader.

    The leader is right if it is the answer the model prefers; what the two leading answers will get is
    beta-binomial under Beta(leader + 1, second + 1), and only their share of the samples votes for them.
    """
    if state.n == 0:
        return 1.0  # nothing is known, and nothing pays more than the first sample
    top = state.leader + state.second
    share = (top + 1) / (state.n + 1)
    if top > _MOST:
        return share * _surer(round(state.leader * _MOST / top), round(state.second * _MOST / top))
    return share * _surer(state.leader, state.second)


@lru_cache(maxsize=4096)
def _surer(leader: int, second: int) -> float:
    """Best mean rise of P(the leader is preferred) per vote, over the numbers of votes ahead."""
    now = leader_probability(leader, second)
    best = 0.0
    for ahead in _AHEAD:
        later = sum(
            _beta_binomial(more, ahead, leader + 1, second + 1)
            * leader_probability(max(leader + more, second + ahead - more), min(leader + more, second + ahead - more))
            for more in range(ahead + 1)
        )
        best = max(best, (later - now) / ahead)
    return best


def _beta_binomial(k: int, n: int, a: int, b: int) -> float:
    """P(k of n) under a success probability drawn from Beta(a, b)."""

    def log_beta(x: float, y: float) -> float:
        return lgamma(x) + lgamma(y) - lgamma(x + y)

    return comb(n, k) * exp(log_beta(k + a, n - k + b) - log_beta(a, b))
