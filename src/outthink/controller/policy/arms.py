"""The arms of a policy: what a task was calibrated on, its ways to answer, and what each did on held-out problems.

Knows: an arm's rule, figures and promise, which arm is chosen, and the interval that new problems should fall in. Does
not know the policy's file, how a rule decides, or how anything was fitted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt

from outthink.controller.cascade import StageRule
from outthink.controller.policy.promise import Promise
from outthink.controller.policy.regime import Regime
from outthink.controller.stored import JsonObject
from outthink.core.errors import BadInput

_AGAIN = "calibrate again (`outthink calibrate`)"
_Z = 1.959964  # of the normal distribution, 95 % two-sided


def prediction(accuracy: float, spread: float, here: int, there: int) -> tuple[float, float]:
    """95 % prediction interval for the mean accuracy over `there` new problems, from what `here` ones gave.

    It covers the error of both means: spread x sqrt(1/here + 1/there), with Student's quantile.
    Two problems, one right and one wrong, are added to the spread, so that a perfect record does
    not promise perfection.
    """
    mean = (accuracy * here + 1) / (here + 2)
    variance = (here * (spread**2 + (accuracy - mean) ** 2) + (1 - mean) ** 2 + mean**2) / (here + 2)
    freedom = max(here - 1, 1)
    # Student's quantile, expanded to first order in 1 / freedom: a policy is applied without scipy.
    quantile = _Z + (_Z**3 + _Z) / (4 * freedom)
    half = quantile * sqrt(variance * (1 / there + 1 / here))
    return max(0.0, accuracy - half), min(1.0, accuracy + half)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Means per problem over held-out problems; None where a quantity is unknown.

    Args:
        problems: how many were held out, each in its turn.
        accuracy: share answered right, with its 95 % bootstrap interval over problems.
        spread: standard deviation of a problem's accuracy (mean over orders) between problems.
        tokens: generated, cancelled included; `prompt_tokens` are counted apart.
        seconds: on the time model of the calibration.
        verifier_tokens: read by the verifier that weighs the votes.
    """

    problems: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    spread: float
    tokens: float
    tokens_low: float
    tokens_high: float
    prompt_tokens: float | None
    samples: float
    seconds: float | None
    flops: float | None
    usd: float | None = None
    verifier_tokens: float = 0.0

    def __post_init__(self) -> None:
        for name, value in {"problems": self.problems, "samples": self.samples}.items():
            if not value > 0:
                raise BadInput(name, value, "is not above 0", _AGAIN)

    def cost(self, currency: str) -> float | None:
        """Mean of a problem in `tokens` (prompts and judging too), `flops`, `usd` or `seconds`; None where unknown."""
        if currency == "tokens":
            return None if self.prompt_tokens is None else self.tokens + self.prompt_tokens + self.verifier_tokens
        return {"flops": self.flops, "usd": self.usd, "seconds": self.seconds}[currency]

    def predicted(self, problems: int) -> tuple[float, float]:
        """95 % prediction interval for the mean accuracy over so many new problems."""
        if problems < 1:
            raise BadInput("problems", problems, "is below 1", "predict for at least one problem")
        return prediction(self.accuracy, self.spread, self.problems, problems)

    def json(self) -> JsonObject:
        """Plain values, six significant digits."""
        return {
            name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in asdict(self).items()
        }

    @classmethod
    def of(cls, values: JsonObject) -> HeldOut:
        """From plain values. BadInput for a missing key, or a value that is no number."""
        from outthink.validation import Border, read_values

        return read_values(cls, values, Border(source="policy", remedy=_AGAIN))


@dataclass(frozen=True, slots=True)
class PolicyArm:
    """One way to answer: at most n samples under a rule, what that did on held-out problems, and what is promised of it
    (of a size other than the chosen one against self-consistency of that size)."""

    n: int
    rule: StageRule
    held_out: HeldOut
    promise: Promise | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise BadInput("n", self.n, "is no number of samples", _AGAIN)

    @property
    def name(self) -> str:
        """Kind and size, as in `linear-gain@32`, with `+verifier` where one weighs its votes."""
        return f"{self.rule.kind}@{self.n}{'+verifier' if self.rule.judges else ''}"


@dataclass(frozen=True, slots=True)
class JudgedArm:
    """The arm whose votes a verifier weighs, which is chosen where that verifier is at hand.

    Args:
        verifier: its id: scores of another one mean something else.
        model: its name in receipts.
        parameters: weights that it reads per token, None if unknown.
        arm: of the same size as the arm that is chosen without it.
    """

    verifier: str
    model: str
    parameters: int | None
    arm: PolicyArm


@dataclass(frozen=True, slots=True)
class Task:
    """What was calibrated on one file of samples.

    Args:
        model, dataset: of the samples; None for files that name no data set.
        answer: kind of the gold answers, None where the problems were not at hand.
        arms: by rising n.
        chosen: size of the arm that meets the target at the least cost.
        promise: what is promised of it, None for a target that is a cost.
        judged: what is chosen instead where its verifier is at hand, None where none was tried or none paid.
        problems, questions: marks of the problems it was calibrated on.
        other: everything else of the task, for reports.
    """

    model: str
    dataset: str | None
    answer: str | None
    arms: tuple[PolicyArm, ...]
    chosen: int
    regime: Regime
    problems: frozenset[str]
    questions: frozenset[str]
    other: JsonObject
    promise: Promise | None = None
    judged: JudgedArm | None = None

    def arm(self, n: int) -> PolicyArm:
        """The arm of size n; BadInput for a size that was not calibrated."""
        for arm in self.arms:
            if arm.n == n:
                return arm
        sizes = ", ".join(str(arm.n) for arm in self.arms)
        raise BadInput("policy", n, "is a size it was not calibrated for", f"use one of {sizes}")
