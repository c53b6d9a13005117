"""Who gets the next sample of a batch: the request whose sample gains most per unit of cost.

Knows: a lazy-greedy heap over gains and costs (Damani et al., arXiv 2410.04707), and when a request
is closed. Does not know how gains are believed, how samples are drawn or where the budget is kept.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Protocol

from outthink.controller.gain import GainTable, State, assumed_gain
from outthink.core.errors import BadInput
from outthink.core.receipt import Stopped, Verdict
from outthink.core.sample import Sample
from outthink.strategies.votes import Votes

# What is believed of one request of a batch: how much its next sample is expected to gain.
#
# Knows: posteriors under an exact check, and votes. Does not know costs, budgets or other requests.


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
        return self.a / (self.a + self.b + self.failures)

    def ahead(self, n: int) -> float:
        """Gain of sample n + 1 (n from 0) of those planned now, without waiting for the outcomes of the first n.

        E[p (1 - p)^n] = B(a + 1, b + n) / B(a, b); p (1 - p)^n for a known p.
        """
        a, b = self.a, self.b + self.failures
        value = 0.0 if self.solved is not None else a / (a + b)
        for k in range(n):
            value *= (b + k) / (a + b + k + 1)
        return value

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
        weights = self.votes.weights
        if not weights:
            return State(self.n, 0, 0, None)
        winner = self.votes.winner().answer or ""
        votes = weights[winner]
        second = max((weight for answer, weight in weights.items() if answer != winner), default=0.0)
        certainty = None if self._unknown else self._logprob[winner] / votes
        return State(self.n, int(votes), int(second), certainty)

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
            self._unknown = self._unknown or sample.mean_logprob is None
            self._logprob[sample.answer] = self._logprob.get(sample.answer, 0.0) + (sample.mean_logprob or 0.0)

    def verdict(self, stopped: Stopped | None) -> Verdict:
        """The majority's answer; closed early it is a consensus if most samples agree, else given up."""
        early: Stopped = "consensus" if 2 * self.state.leader > self.n else "gave-up"
        return self.votes.winner(stopped or ("finished" if self.n >= self.at_most else early))


_WEIGHT = 2
"""Samples of the whole batch that a request's own costs are averaged with: its first ones say little."""


class Allocation:
    """Deals out samples one at a time. What is in flight counts: k samples of a request that are not back
    yet divide its gain by k + 1, so that idle places are not filled with samples that gain next to nothing.

    Args:
        beliefs: one a request.
        cost: of a sample in the budget's currency, None where unknown (then it counts as the batch's mean).
        worth: the most that one more right answer may cost, in the same currency; a request whose next
            sample gains less than cost / worth is closed. None: only those that can gain nothing are.

    Costs and gains of a request only change with its own samples, but for the mean of the batch;
    therefore the heap is put right lazily, when a request comes to its top.
    """

    def __init__(
        self,
        beliefs: Sequence[Belief],
        cost: Callable[[Sample], float | None] = lambda sample: 1.0,
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
            if stamp != self._newest[i]:
                continue
            rate = self.rate(i)
            if rate <= 0 or (self._known and rate * (1 + self.in_flight[i]) < self._least):
                continue  # closed, unless what is in flight changes that
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
        cost = self._cost(sample)
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
