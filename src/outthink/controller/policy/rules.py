"""Rules that decide how many samples a request gets, as plain values in a policy and on one request.

Knows: the fixed size, votes that are sure enough, and the shape of a vote so far, from which a fitted line
foretells what further samples would gain. Does not know how parameters were chosen: evaluation/calibration
does, by the same formulas over arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations_with_replacement
from operator import mul
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from outthink.controller.cascade import Cascade, StageRule
from outthink.controller.policy.judging import Judging
from outthink.controller.policy.regime import PROBES, Regime
from outthink.controller.stored import JsonObject, plain_values
from outthink.core.errors import BadInput
from outthink.core.receipt import Stopped, Verdict
from outthink.core.sample import TOP, Judged, Sample
from outthink.strategies import Votes
from outthink.strategies.voting import Rule, Step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Value = TypeVar("Value", float, "NDArray[np.float64]")
"""A number of one request, or, in calibration, an array over problems and orders."""
AGAIN = "calibrate again"
SURE = 0.95
"""How sure adaptive-consistency must be of its leader (arXiv 2305.11860)."""
TERMS = 15
"""Terms of the linear formula before products; see `vote_terms`."""
PAIRS = tuple(combinations_with_replacement(range(TERMS), 2))
"""Terms that are multiplied; coefficients are those of 1, of the terms and of these products, in this order."""
COEFFICIENTS = 1 + TERMS + len(PAIRS)


@dataclass(frozen=True, slots=True)
class PlainRule(StageRule):
    """A rule whose fields are plain values."""

    def json(self) -> JsonObject:
        """Plain values."""
        return {"kind": self.kind, **plain_values(self)}


@dataclass(frozen=True, slots=True)
class Fixed(PlainRule):
    """Self-consistency at a fixed size."""

    kind: ClassVar[str] = "fixed"

    def start(self, n: int, features: Sequence[float] | None) -> Rule:
        """The rule for one request."""
        return AdaptiveConsistency(n, [], sure=2.0)  # no probability reaches 2


@dataclass(frozen=True, slots=True)
class Adaptive(PlainRule):
    """Adaptive-consistency with a threshold of its own."""

    threshold: float
    kind: ClassVar[str] = "adaptive"

    def start(self, n: int, features: Sequence[float] | None) -> Rule:
        """The rule for one request."""
        return AdaptiveConsistency(n, [], sure=self.threshold)


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


# Leaving a calibrated rule as soon as the first samples are unlike those it was calibrated on.


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
        self._watching = n > PROBES  # else nothing is left that another rule could decide

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
            lengths = [sample.tokens for sample in self._seen if sample.tokens is not None]
            if (reason := self._regime.odd(lengths)) is not None:
                self._rule = AdaptiveConsistency(self._n, self._seen)  # probes are votes: none is thrown away
                self._tell(reason)
                return True
        return self._rule.add(sample, model)

    def verdict(self) -> Verdict:
        """The answer of the rule in charge."""
        return self._rule.verdict()


# Rules that see the shape of a vote: its lead, its confidence and lengths. Where a formula takes `maths`, that is
# `math` for one request and numpy for arrays.


def standardised(value: Value, of: tuple[float, float]) -> Value:
    """In spreads from the mean."""
    return (value - of[0]) / of[1]


def vote_lead(leader: Value, second: Value, maths: ModuleType = math) -> Value:
    """How far the leader is ahead, in standard deviations."""
    deviation: Value = maths.sqrt(leader + second + 1)
    return (leader - second) / deviation


def vote_terms(
    drawn: int,
    leader: Value,
    second: Value,
    sums: Sequence[Value],
    answers: Value,
    unreadable: Value,
    horizon: int,
    maths: ModuleType = math,
) -> list[Any]:
    """What the linear formula is linear in, before products: TERMS values, some of them plain numbers.

    Args:
        drawn: samples so far, from 1 and below the horizon.
        leader, second: the largest weights.
        sums: of the standardised confidences, log-probabilities and lengths.
        answers, unreadable: counts of distinct answers and of samples without one.
    """
    lead = vote_lead(leader, second, maths)
    left = math.sqrt(1 - drawn / (horizon + 1))
    sure = lead / left
    shares: list[Any] = [leader / drawn, second / drawn, leader, second, *(total / drawn for total in sums)]
    counts: list[Any] = [answers / drawn, unreadable / drawn, 1 / drawn]
    return [lead, sure, *shares, *counts, left, maths.exp(-sure), maths.exp(-2 * sure)]


@dataclass(frozen=True, slots=True)
class Sway:
    """How much the weight of a vote follows what is known of its sample: the exponential of the sum of these parts.

    Args:
        logprob: for each spread of its mean log-probability above the calibration's mean.
        confidence: the same for its mean token confidence.
        cut: where it was cut at the most tokens it might have.
    """

    logprob: float = 0.0
    confidence: float = 0.0
    cut: float = 0.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and spread over the calibration samples of mean log-probability, confidence and length."""

    logprob: tuple[float, float]
    confidence: tuple[float, float]
    tokens: tuple[float, float]
    weight: float = 1.0
    """Mean of the unscaled vote weights."""

    def __post_init__(self) -> None:
        spreads = {"logprob": self.logprob[1], "confidence": self.confidence[1], "tokens": self.tokens[1]}
        for name, spread in {**spreads, "weight": self.weight}.items():
            if not spread > 0:
                raise BadInput(name, spread, "is no spread or weight above 0", AGAIN)

    def vote(
        self, logprob: Value, confidence: Value, cut: Value, sway: Sway, odds: Any = 0.0, maths: ModuleType = math
    ) -> Value:
        """Weight of a vote, scaled: by its standardised log-probability and confidence, whether it was cut, and the
        part that a verifier's score has in the exponent."""
        weight: Value = maths.exp(sway.logprob * logprob + sway.confidence * confidence + sway.cut * cut + odds)
        return weight / self.weight


class VoteShape:
    """The votes of one request as a rule sees them.

    Args:
        horizon: samples at which the calibration's votes ended.
        sway, judging: of the weights.
    """

    def __init__(self, scale: Scale, horizon: int, sway: Sway, judging: Judging | None = None) -> None:
        self._scale, self._horizon, self._sway, self._judging = scale, horizon, sway, judging
        self.votes = Votes()
        self.drawn = self._unreadable = 0
        self._answers: set[str] = set()  # of the samples drawn here; votes may come from elsewhere too
        # Sums over the samples, standardised; what a sample does not tell counts as the calibration's mean.
        self._logprob = self._confidence = self._tokens = 0.0

    def add(self, sample: Sample) -> None:
        """Count a sample."""
        scale = self._scale
        trace = sample.confidence
        logprob = 0.0 if sample.mean_logprob is None else standardised(sample.mean_logprob, scale.logprob)
        confidence = 0.0 if trace is None else standardised(trace.mean(), scale.confidence)
        self._logprob += logprob
        self._confidence += confidence
        self._tokens += 0.0 if sample.tokens is None else standardised(sample.tokens, scale.tokens)
        self.drawn += 1
        odds = 0.0 if self._judging is None else self._judging.odds(sample)
        # Without a score it weighs as much as votes do on average.
        weight = 1.0 if odds is None else scale.vote(logprob, confidence, float(sample.cut), self._sway, odds)
        self.votes.add(sample, weight)
        if sample.answer is None:
            self._unreadable += 1
        else:
            self._answers.add(sample.answer)

    @property
    def lead(self) -> float:
        """How far the leader is ahead, in standard deviations."""
        return vote_lead(*self.votes.top())

    def terms(self) -> list[float]:
        """What the formula is linear in, before products; after the first sample and before the horizon."""
        sums = self._confidence, self._logprob, self._tokens
        counts = len(self._answers), self._unreadable
        return vote_terms(self.drawn, *self.votes.top(), sums, *counts, self._horizon)


@dataclass(frozen=True, slots=True)
class LinearGain(PlainRule):
    """Draw until going on to the horizon puts a wrong leader right with a chance of at most `price`.

    Right leaders that going on would put wrong are not set against it. They would make up for others on average, but
    what is promised is a bound, which widens with every answer that differs from the whole vote's.

    Args:
        horizon: samples at which the calibration's votes ended.
        sway: of the votes' weights.
        coefficients: of 1, the terms, and their products in PAIRS.
        price: the least chance worth going on for.
        judging: how the verifier's scores weigh, None where votes do without.
    """

    scale: Scale
    horizon: int
    sway: Sway
    coefficients: tuple[float, ...]
    price: float
    judging: Judging | None = None
    kind: ClassVar[str] = "linear-gain"
    carries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if len(self.coefficients) != COEFFICIENTS:
            raise BadInput("coefficients", len(self.coefficients), f"are not {COEFFICIENTS} numbers", AGAIN)

    @property
    def judges(self) -> bool:
        """Whether a verifier's scores weigh its votes."""
        return self.judging is not None

    def gain(self, shape: VoteShape) -> float:
        """Chance that drawing on to the horizon puts a wrong leader right, by the regression: about 0 to 1."""
        terms = shape.terms()
        products = (terms[i] * terms[j] for i, j in PAIRS)
        gain: float = sum(map(mul, self.coefficients, chain([1.0], terms, products)))
        return gain

    def enough(self, shape: VoteShape) -> bool:
        """Whether going on is worth less than its price."""
        return shape.drawn >= self.horizon or self.gain(shape) <= self.price

    def start(self, n: int, features: Sequence[float] | None) -> Stopping:
        """The rule for one request of at most n samples; features of the question are not used."""
        return Stopping(self, n)


class Stopping:
    """A rule on the vote's shape, on one request."""

    def __init__(self, rule: LinearGain, n: int) -> None:
        self._rule, self._n = rule, n
        self._shape = VoteShape(rule.scale, rule.horizon, rule.sway, rule.judging)
        self._judged = Judged(rule.judging.tokens) if rule.judging else False
        self._stopped: Stopped = "finished"

    def carry(self, sample: Sample, weight: float) -> None:
        """A vote from elsewhere: it weighs, and is no draw of this model."""
        self._shape.votes.add(sample, weight)

    def next(self) -> Step | None:
        """The samples that are left."""
        left = self._n - self._shape.drawn
        if left <= 0 or self._stopped != "finished":
            return None
        # Confidence is averaged over the alternatives; where it sways no vote, an engine need not return any.
        alternatives = TOP if self._rule.sway.confidence else 0
        return Step(None, left, alternatives=alternatives, judged=self._judged)

    def add(self, sample: Sample, model: str | None) -> bool:
        """Count a vote; True where going on is not worth it."""
        self._shape.add(sample)
        if self._shape.drawn < self._n and self._rule.enough(self._shape):
            self._stopped = "consensus"
        return self._stopped != "finished"

    def verdict(self) -> Verdict:
        """The answer with the most weight."""
        return self._shape.votes.winner(self._stopped)


_RULES: dict[str, type[PlainRule]] = {rule.kind: rule for rule in (Fixed, Adaptive, LinearGain)}


def rule_from_json(values: JsonObject) -> StageRule:
    """The rule that plain values describe; BadInput, with the place in them, for anything else."""
    from outthink.validation import Border, read_values

    kind = values.get("kind")
    if kind == Cascade.kind:
        return Cascade.of(values, rule_from_json)  # handed over: importing it there would close a circle
    if not isinstance(kind, str) or kind not in _RULES:
        raise BadInput("kind", kind, "is no kind of rule", AGAIN)
    return read_values(_RULES[kind], values, Border(remedy=AGAIN))
