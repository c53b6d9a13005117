"""Counting votes on canonical answers.

Knows: weights, ties and how sure the leader is. Does not know where samples come from; an
unreadable sample is counted and never votes.
"""

from __future__ import annotations

import random
from functools import lru_cache
from math import comb, fsum
from typing import Literal

from outthink.core.errors import BadInput
from outthink.core.receipt import Stopped, Verdict
from outthink.core.sample import Sample

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

    def leader_probability(self) -> float:
        """How sure it is that the leading answer is the more likely one of the top two."""
        leader = second = 0.0
        for weight in self.weights.values():
            if weight > leader:
                leader, second = weight, leader
            elif weight > second:
                second = weight
        if not leader:
            return 0.0  # nobody leads before the first vote
        return leader_probability(int(leader), int(second))

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
            certainty = fsum(known) / len(known) if len(known) == len(samples) else float("-inf")
            length = sum(lengths) / len(lengths) if lengths else float("inf")
            return certainty, -length

        return max(tied, key=strength)
