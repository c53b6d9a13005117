"""What is believed of one request of a batch: how much its next sample is expected to gain.

Knows: posteriors under an exact check, and votes. Does not know costs, budgets or other requests.
"""

from __future__ import annotations

from typing import Protocol

from outthink.controller.gain_table import GainTable, State, assumed_gain
from outthink.core.errors import BadInput
from outthink.core.receipt import Stopped, Verdict
from outthink.core.sample import Sample
from outthink.strategies.votes import Votes


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
