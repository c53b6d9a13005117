"""Who gets the next sample of a batch: the request whose sample gains most per unit of cost.

Knows: a lazy-greedy heap over gains and costs (Damani et al., arXiv 2410.04707), and when a request
is closed. Does not know how gains are believed, how samples are drawn or where the budget is kept.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from outthink.controller.belief import Belief
from outthink.core.errors import BadInput
from outthink.core.sample import Sample

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
