"""Cheap models first: a request goes on to the next model only where the votes so far are not trusted.

Knows: stages in order of cost, the signal and threshold that each is left by, and which votes go along
to the next one. Does not know how thresholds were chosen (evaluation/calibration) or how
a stage stops (any rule of a policy). As a policy's rule it is of kind `cascade`: `json`, `start`,
`models`, and `Cascade.of(values, rule_from_json)`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar, Literal, Protocol, get_args

from outthink.controller.stored import JsonObject
from outthink.core.errors import BadInput
from outthink.core.receipt import Verdict
from outthink.core.sample import Sample
from outthink.strategies.voting import Rule, Step

Signal = Literal["agreement", "confidence", "score"]


class StageRule(Protocol):
    """How the samples of a stage are bought; a rule of a policy."""

    @property
    def kind(self) -> str:
        """Its name in JSON."""
        ...

    @property
    def models(self) -> tuple[str, ...]:
        """Models of the pool that it draws from besides the session's own one."""
        return ()

    @property
    def judges(self) -> bool:
        """Whether a verifier's scores weigh its votes."""
        return False

    @property
    def carries(self) -> bool:
        """Whether its rule on one request has `carry(sample, weight)`: votes of earlier stages count in it."""
        return False

    def json(self) -> JsonObject:
        """Plain values."""
        ...

    def start(self, n: int, features: Sequence[float] | None) -> Rule:
        """The rule for one request of at most n samples."""
        ...


# Both take the numbers of one request, or, in calibration, arrays over problems and orders.

_ROUNDING = 1e-9  # shares that are equal on paper differ in rounding, which must not decide


def trusted(signal: Any, tau: float) -> Any:
    """Whether a stage's answer is taken at this signal."""
    return signal >= tau - _ROUNDING


def beyond_reach(votes: Any, drawn: Any, n: int, tau: float) -> Any:
    """Whether a leader of so many votes among `drawn` samples cannot have a share of tau after n any more."""
    return (votes + n - drawn) / n < tau - _ROUNDING  # at best all that are left go to the leader


@dataclass(frozen=True, slots=True)
class Stage:
    """One model's turn.

    Args:
        model: name in the session's pool, None for the session's own model.
        n: samples at most.
        rule: how they are bought; one of fixed size draws all n.
        tau: the stage's answer is taken where its signal is at least this; above 1 it never is. The last
            stage's answer is always taken.
        signal: `agreement` the leader's share of the samples (unreadable ones count), `confidence` the
            geometric mean probability of the leader's tokens, `score` the mean of its samples' last
            verifier scores (an exact check gives 0 or 1). The last two are 0 where a sample has none.
        keep: weight of this stage's votes in later stages, 0 to drop them.
    """

    model: str | None
    n: int
    rule: StageRule
    tau: float = 0.0
    signal: Signal = "agreement"
    keep: float = 0.0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise BadInput("n", self.n, "is no number of samples", "give at least 1")
        if self.signal not in get_args(Signal):
            raise BadInput("signal", self.signal, "is no signal", f"use one of {', '.join(get_args(Signal))}")
        if math.isnan(self.tau) or self.tau < 0 or not 0 <= self.keep < math.inf:
            raise BadInput("tau and keep", (self.tau, self.keep), "are below 0", "give a threshold and a weight from 0")

    def measure(self, samples: Sequence[Sample]) -> float:
        """The signal after these samples."""
        counts = Counter(sample.answer for sample in samples if sample.answer is not None)
        if not counts:
            return 0.0
        leader, votes = counts.most_common(1)[0]
        if self.signal == "agreement":
            return votes / len(samples)
        leading = [sample for sample in samples if sample.answer == leader]
        if self.signal == "score":
            scored = all(sample.scores for sample in leading)
            return sum(sample.scores[-1] for sample in leading) / votes if scored else 0.0
        logprobs = [sample.mean_logprob for sample in leading if sample.mean_logprob is not None]
        return math.exp(sum(logprobs) / votes) if len(logprobs) == votes else 0.0

    def lost(self, samples: Sequence[Sample]) -> bool:
        """Whether the samples still to come cannot lift its agreement to tau any more."""
        # The other signals may rise by any amount, and votes that are kept count later even where the stage is lost.
        if self.signal != "agreement" or self.keep:
            return False
        votes = self.measure(samples) * len(samples)
        return bool(beyond_reach(votes, len(samples), self.n, self.tau))

    def json(self) -> JsonObject:
        """Plain values; a threshold that nothing passes is null."""
        tau = None if math.isinf(self.tau) else self.tau
        own = {"model": self.model, "n": self.n, "tau": tau, "signal": self.signal, "keep": self.keep}
        return {**own, "rule": self.rule.json()}


@dataclass(frozen=True, slots=True)
class _StoredStage:
    model: str | None
    n: int
    rule: dict[str, Any]
    tau: float | None
    signal: Signal
    keep: float


@dataclass(frozen=True, slots=True)
class _StoredCascade:
    stages: tuple[_StoredStage, ...]


@dataclass(frozen=True, slots=True)
class Cascade(StageRule):
    """Stages in order of cost. All that is drawn is charged, whichever stage answers."""

    stages: tuple[Stage, ...]
    kind: ClassVar[str] = "cascade"

    def __post_init__(self) -> None:
        if not self.stages:
            raise BadInput("stages", [], "are none", "give at least one")
        if any(stage.keep for stage in self.stages[:-1]) and not all(stage.rule.carries for stage in self.stages[1:]):
            keeps = [stage.keep for stage in self.stages]
            raise BadInput("keep", keeps, "needs later stages whose rule can carry votes", "set it to 0")

    @property
    def models(self) -> tuple[str, ...]:
        """Models of the pool besides the session's own one."""
        return tuple(dict.fromkeys(stage.model for stage in self.stages if stage.model is not None))

    def json(self) -> JsonObject:
        """Plain values."""
        return {"kind": self.kind, "stages": [stage.json() for stage in self.stages]}

    @classmethod
    def of(cls, values: JsonObject, inner: Callable[[JsonObject], StageRule]) -> Cascade:
        """From plain values, `inner` reading the stages' rules; BadInput for what is malformed."""
        from outthink.validation import Border, read_values

        stages, border = [], Border()
        for place, stored in enumerate(read_values(_StoredCascade, values, border).stages):
            with border.part("stages", place, "rule"):
                rule = inner(stored.rule)
            tau = math.inf if stored.tau is None else stored.tau
            with border.part("stages", place):
                stages.append(Stage(stored.model, stored.n, rule, tau, stored.signal, stored.keep))
        return cls(tuple(stages))

    def start(self, n: int, features: Sequence[float] | None) -> CascadeRun:
        """The rule for one request of at most n samples over all stages."""
        return CascadeRun(self.stages, n, features)


class CascadeRun:
    """A cascade on one request."""

    def __init__(self, stages: Sequence[Stage], n: int, features: Sequence[float] | None) -> None:
        # What could never matter is not bought: the two ends of a threshold are the two single models, cost included
        # (docs/cascades.md).
        self._stages = [stage for stage in stages[:-1] if stage.tau <= 1 or stage.keep] + [stages[-1]]
        self._left, self._features = n, features
        self._kept: list[tuple[Sample, float]] = []
        self._before: Verdict | None = None
        self._place, self._over = -1, False
        self._enter()

    def _enter(self) -> None:
        self._place += 1
        stage = self._stages[self._place]
        self._seen: list[Sample] = []
        self._lost = False
        self._rule = stage.rule.start(min(stage.n, self._left), self._features)
        for sample, weight in self._kept:
            self._rule.carry(sample, weight)  # type: ignore[attr-defined]

    def next(self) -> Step | None:
        """More of this stage; the next stage where this one's answer is not trusted."""
        while not self._over:
            stage = self._stages[self._place]
            step = None if self._lost or self._left <= 0 else self._rule.next()
            if step is not None:
                return step._replace(model=stage.model)
            if self._place + 1 == len(self._stages) or self._left <= 0 or trusted(stage.measure(self._seen), stage.tau):
                self._over = True
            else:
                self._before = self.verdict()
                self._kept += [(sample, stage.keep) for sample in self._seen if stage.keep]
                self._enter()
        return None

    def add(self, sample: Sample, model: str | None) -> bool:
        """Count a vote of the present stage; True to leave its stream."""
        self._left -= 1
        self._seen.append(sample)
        enough = self._rule.add(sample, model)
        stage = self._stages[self._place]
        self._lost = self._place + 1 < len(self._stages) and stage.lost(self._seen)
        return enough or self._lost

    def verdict(self) -> Verdict:
        """The answer of the present stage, or of the one before while this one has none."""
        here = self._rule.verdict()
        return self._before if here.answer is None and self._before is not None else here


# Thresholds whose risk on new problems is bounded: conformal risk control for a monotone loss of 0 or 1. The least
# tau with (n * risk(tau) + 1) / (n + 1) <= alpha (Angelopoulos et al., arXiv 2208.02814, for losses up to 1) bounds
# the mean risk over draws of the calibration problems.

NEVER = math.inf
"""A threshold that nothing passes."""


def least_threshold(signals: Sequence[float], losses: Sequence[bool], alpha: float) -> float:
    """The least threshold at which leaving early is safe enough; NEVER where none is.

    Args:
        signals: one a held-out problem; a problem is left early where its signal is at least the threshold.
        losses: whether leaving that problem early loses something (a wrong answer, or one that going
            on would have put right).
        alpha: share of all problems that may be lost so, on average.

    The threshold is 0 (always leave), one of the signals, or NEVER: between two signals nothing changes.
    Raises BadInput for an alpha that is no share, or signals that do not fit the losses.
    """
    if not 0 < alpha < 1:
        raise BadInput("alpha", alpha, "is no share of problems", "give a number between 0 and 1, for example 0.05")
    if len(signals) != len(losses) or not signals:
        raise BadInput("signals", len(signals), f"do not fit {len(losses)} losses", "give one of each a problem")
    if any(math.isnan(signal) for signal in signals):
        raise BadInput("signals", "nan", "is no signal", "leave that problem out")
    n = len(signals)
    allowed = alpha * (n + 1) - 1  # the bound above, solved for n * risk: how many problems may be lost
    if allowed < 0:
        return NEVER  # so few problems bound nothing
    pairs = sorted(zip(signals, losses, strict=True), key=lambda pair: -pair[0])
    lost, threshold = 0, NEVER
    # A threshold lets all problems of an equal signal leave or none, so they are counted together.
    for signal, tied in groupby(pairs, key=lambda pair: pair[0]):
        lost += sum(loss for _, loss in tied)
        if lost > allowed + 1e-9:
            return threshold
        threshold = signal
    return min(0.0, threshold)  # all may leave, those below the lowest signal seen here too
