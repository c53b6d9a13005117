"""What a calibration aims at: to match a strategy, to reach an accuracy, or to stay under a cost.

Knows: how a target is written, what may be lost against it and how often, what an arm loses, and which arm meets it at
the least cost on held-out problems. Does not know how rules are fitted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from outthink.controller.policy.promise import Promise
from outthink.core.errors import BadInput
from outthink.economics.price import Price
from outthink.evaluation.calibration.losses import Array, GuardedChoice, LossLimit, LossMatrix
from outthink.evaluation.replay import MEASURES, Outcomes
from outthink.evaluation.sample_file import JsonObject
from outthink.strategies import Spec
from outthink.strategies.defaults import BASELINE

_ACCURACY = MEASURES.index("accuracy")
COSTS = ("tokens", "flops", "usd", "seconds")
_FORMS = "use match=self-consistency@32, accuracy=0.7, or a mean cost a problem such as tokens=1500"


@dataclass(frozen=True, slots=True)
class Target:
    """An aim.

    Args:
        kind: `match` the accuracy of self-consistency at size n, reach `accuracy` value, or the highest
            accuracy at a mean `cost` of value a problem in `currency` (tokens include the prompt's).
        margin: accuracy that may be lost against it.
        by: currency in which the cheapest is chosen.
        risk: share of calibrations that may lose more.
    """

    kind: Literal["match", "accuracy", "cost"]
    value: float
    currency: str | None = None
    margin: float = 0.005
    by: str = "tokens"
    risk: float = 0.1

    @classmethod
    def parse(cls, text: str, *, margin: float = 0.005, by: str = "tokens", risk: float = 0.1) -> Target:
        """Read `match=self-consistency@32`, `accuracy=0.7` or `tokens=1500`; BadInput for anything else."""
        if by not in COSTS:
            raise BadInput("--by", by, "is no cost", f"use one of {', '.join(COSTS)}")
        if not 0 <= margin < 1:
            raise BadInput("--margin", margin, "is no share of problems", "give for example 0.005")
        if not 0 < risk < 0.5:
            raise BadInput("--risk", risk, "is not between 0 and 0.5", "give for example 0.1")
        name, _, value = text.partition("=")
        if name == "match":
            strategy, _, size = value.partition("@")
            if strategy != BASELINE or not size.isdecimal() or int(size) < 1:
                raise BadInput("--target", text, "cannot be matched", _FORMS)
            return cls("match", int(size), None, margin, by, risk)
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name == "accuracy" and 0 < number <= 1:
            return cls("accuracy", number, None, margin, by, risk)
        if name in COSTS and 0 < number < math.inf:
            return cls("cost", number, name, margin, by, risk)
        raise BadInput("--target", text, "is no target", _FORMS)

    @property
    def text(self) -> str:
        """As it was written."""
        if self.kind == "match":
            return f"match={BASELINE}@{self.value:.0f}"
        return f"{self.currency or self.kind}={self.value:g}"

    def json(self) -> JsonObject:
        """Plain values."""
        return {**asdict(self), "text": self.text}

    @classmethod
    def of(cls, values: JsonObject) -> Target:
        """From plain values."""
        return cls.parse(values["text"], margin=values["margin"], by=values["by"], risk=values["risk"])

    def losses(self, outcomes: Sequence[Outcomes], problems: Sequence[str], price: Price | None) -> LossMatrix[int]:
        """What every arm of a replay, named by its size, loses and costs on each problem.

        An arm is compared with self-consistency of the size to be matched, replayed beside it; with the accuracy to be
        reached; or, for a cost, with a right answer to everything.

        Args:
            outcomes: of arms and of strategies beside them, on held-out problems.
            price: of a token, for costs in usd.

        Raises BadInput where nothing of the size to be matched was replayed, or the cost is unknown.
        """
        baseline = {outcome.spec.n: outcome for outcome in outcomes if outcome.spec.canonical == BASELINE}
        aim = np.full(len(problems), self.value if self.kind == "accuracy" else 1.0)
        if self.kind == "match":
            aim = self._matched(baseline).values[_ACCURACY]
        arms = [outcome for outcome in outcomes if not isinstance(outcome.spec, Spec)]
        costs = [(arm.spec.n, arm.values[_ACCURACY], self._costs(arm, price)) for arm in arms]
        return LossMatrix.of(problems, aim, costs)

    def choose(self, matrix: LossMatrix[int], promises: Mapping[int, Promise]) -> tuple[int, Promise | None]:
        """Size of the arm that meets it at the least cost, and what is promised of it; a cost promises nothing.

        Args:
            matrix: of the arms on held-out problems.
            promises: by size, against self-consistency of the same size.

        Raises BadInput where no arm has the accuracy or is below the cost; the line names the nearest one.
        """
        if self.kind == "match":
            return int(self.value), promises[int(self.value)]
        if self.kind == "cost":
            return matrix.arms[self._under(matrix)], None
        place, promise = GuardedChoice(matrix, LossLimit(self.margin, self.risk, self.text), None).promise()
        if (lost := float(matrix.losses[place].mean())) > self.margin:
            reached = f"the best, {matrix.arms[place]}, has {self.value - lost:.1%} on held-out problems"
            remedy = "aim lower, or allow a larger --margin"
            raise BadInput("--target", self.text, f"is reached by no size ({reached})", remedy)
        return matrix.arms[place], promise

    def _matched(self, baseline: Mapping[int, Outcomes]) -> Outcomes:
        n = int(self.value)
        if n not in baseline:
            most = max(baseline)
            problem = f"is more than the {most} samples recorded"
            if n < most:
                problem = f"is no size that is compared ({', '.join(map(str, baseline))})"
            raise BadInput("--target", self.text, problem, f"give --target match={BASELINE}@{most}, or record more")
        return baseline[n]

    def _under(self, matrix: LossMatrix[int]) -> int:
        costs, losses = matrix.costs.mean(axis=1).tolist(), matrix.losses.mean(axis=1).tolist()
        fitting = [place for place, cost in enumerate(costs) if cost <= self.value]
        if not fitting:
            problem = f"is met by no arm (the cheapest needs {min(costs):.4g} {self.currency})"
            raise BadInput("--target", self.text, problem, "allow more")
        return min(fitting, key=lambda place: (losses[place], costs[place]))

    def _costs(self, arm: Outcomes, price: Price | None) -> Array:
        """Of an arm on each problem, in the currency that is to be saved, or kept to."""
        values = dict(zip(MEASURES, arm.values, strict=True))
        prompt, made = values["prompt_tokens"], values["tokens"]
        dollars = None if price is None else (prompt * price.input + made * price.output) / 1e6
        known: dict[str, Array | None]
        known = {"tokens": prompt + made, "flops": values["flops"], "seconds": values["seconds"], "usd": dollars}
        costs = known[currency := self.currency or self.by]
        if costs is None or np.isnan(costs).any():
            flag = "--by" if self.currency is None else "--target"
            raise BadInput(flag, currency, "is unknown for these samples", "use tokens, or give --price IN,OUT")
        return costs
