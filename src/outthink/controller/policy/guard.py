"""Leaves a calibrated rule as soon as its first samples are unlike those it was calibrated on.

Knows: the calibrated range of lengths, and that adaptive-consistency goes on with the samples so far.
Does not know how the calibrated rule decides.
"""

from __future__ import annotations

from collections.abc import Callable

from outthink.controller.policy.regime import PROBES, Regime
from outthink.core.receipt import Stopped, Verdict
from outthink.core.sample import Sample
from outthink.strategies import Votes
from outthink.strategies.allocate import Rule, Step

SURE = 0.95
"""How sure adaptive-consistency must be of its leader (arXiv 2305.11860)."""


class AdaptiveConsistency:
    """The strategy of this name as a rule, so that it can take over samples that are already there."""

    def __init__(self, n: int, samples: list[Sample], sure: float = SURE) -> None:
        self._n, self._votes, self._drawn, self._sure = n, Votes(), 0, sure
        self._stopped: Stopped = "finished"
        for sample in samples:
            self.add(sample, None)

    def next(self) -> Step | None:
        """The samples that are left."""
        left = self._n - self._drawn
        return Step(None, left) if left > 0 and self._stopped == "finished" else None

    def add(self, sample: Sample, model: str | None) -> bool:
        """Count a vote; True once the leader is sure."""
        self._drawn += 1
        self._votes.add(sample)
        if self._votes.leader_probability() >= self._sure:
            self._stopped = "consensus"
        return self._stopped != "finished"

    def verdict(self) -> Verdict:
        """The majority's answer."""
        return self._votes.winner(self._stopped)


class Guarded:
    """A rule that watches its first samples.

    Args:
        rule: what decides as long as they look as calibrated.
        n: samples at most.
        tell: receives the reason, once, where they do not.
        ahead: calls in flight at least, None to leave it to the rule.
    """

    def __init__(
        self, rule: Rule, n: int, regime: Regime, tell: Callable[[str], None], ahead: int | None = None
    ) -> None:
        self._rule, self._n, self._regime, self._tell, self._ahead = rule, n, regime, tell, ahead
        self._seen: list[Sample] = []
        self._watching = n > PROBES

    def next(self) -> Step | None:
        """What the rule in charge wants."""
        step = self._rule.next()
        if step is None or self._ahead is None:
            return step
        return step._replace(ahead=max(self._ahead, step.ahead or 1))

    def add(self, sample: Sample, model: str | None) -> bool:
        """Count a sample; True to leave the step, also where another rule takes over."""
        if not self._watching:
            return self._rule.add(sample, model)
        self._seen.append(sample)
        if model is not None:  # another model's lengths are not these
            self._watching = False
        elif len(self._seen) == PROBES:
            self._watching = False
            lengths = [one.tokens for one in self._seen if one.tokens is not None]
            if (reason := self._regime.odd(lengths)) is not None:
                self._rule = AdaptiveConsistency(self._n, self._seen)
                self._tell(reason)
                return True
        return self._rule.add(sample, model)

    def verdict(self) -> Verdict:
        """The answer of the rule in charge."""
        return self._rule.verdict()
