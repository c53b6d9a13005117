"""What fits into a deadline: branches, draft length and cap, by a roofline of decoding.

Knows: that branches are almost free while arithmetic hides behind reading the weights, and in which
order to give things up. Does not know how accuracy depends on branches and cap: that is passed in,
from recorded samples.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from outthink.core.errors import BadInput, Unsupported
from outthink.economics.hardware import Hardware, Shape, free_branches, step_seconds

Accuracy = Callable[[int, int], float]
"""Predicted accuracy of (branches, cap)."""


class DeadlineTooShort(Unsupported):
    """The deadline ends before the first token could: a refusal, never a truncated answer.

    Args:
        deadline: what was asked for, in seconds.
        needed: seconds of one prefill and one decode step.
    """

    def __init__(self, deadline: float, needed: float) -> None:
        super().__init__(
            f"budget seconds: {deadline:g} is less than the {needed:.3g} s that reading the prompt and one step take; "
            "allow more time, shorten the prompt or use a smaller model"
        )
        self.deadline, self.needed = deadline, needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Speculative decoding: how many of the drafted tokens are accepted.

    Args:
        acceptance: probability that a drafted token is accepted, given that those before it were.
        cost: seconds of drafting one token over those of one step of the large model.
    """

    acceptance: float
    cost: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.acceptance < 1:
            raise BadInput("draft acceptance", self.acceptance, "is not from 0 to below 1", "measure it")
        if not self.cost >= 0:
            raise BadInput("draft cost", self.cost, "is negative", "give seconds per seconds of a step")

    def tokens_a_step(self, length: int) -> float:
        """E[accepted + 1] = (1 - a^(g + 1)) / (1 - a) for a draft of g tokens (Leviathan et al., 2211.17192)."""
        return (1 - self.acceptance ** (length + 1)) / (1 - self.acceptance)


class Fit(NamedTuple):
    """A plan: branches, drafted tokens a step, cap of a completion, and what is expected of it."""

    branches: int
    draft: int
    cap: int
    seconds: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Where a request runs, and what runs there already.

    Args:
        prompt: tokens to read before the first step, once for all branches.
        busy: branches of other requests in the same steps.
        context: tokens that each of these attends to; for its own branches prompt + cap / 2 are counted.
    """

    hardware: Hardware
    shape: Shape
    prompt: int
    busy: int = 0
    context: float = 0.0

    def __post_init__(self) -> None:
        for name, count in {"prompt": self.prompt, "busy": self.busy, "context": self.context}.items():
            if not count >= 0:
                raise BadInput(name, count, "is negative", "give a count")

    @property
    def prefill(self) -> float:
        """Seconds to read the prompt."""
        return step_seconds(self.hardware, self.shape, max(1, self.prompt))

    @property
    def idle(self) -> int:
        """Tokens a step that still hide behind reading the weights; 1 where there is no such room."""
        return max(1, int(free_branches(self.hardware, self.shape.bytes_per_parameter)) - self.busy)

    def seconds(self, branches: int, cap: int, draft: int = 0, drafting: Draft | None = None) -> float:
        """From the request to the end of `cap` tokens in each of `branches` branches."""
        tokens = branches * (1 + draft) + self.busy
        rows = branches + self.busy
        mean = (branches * (self.prompt + cap / 2) + self.busy * self.context) / rows
        step = step_seconds(self.hardware, self.shape, tokens, mean, rows)
        gained = 1.0
        if draft and drafting is not None:
            gained = drafting.tokens_a_step(draft)
            # A draft is written token by token: its cost is relative to a step of one token in each row.
            step += draft * drafting.cost * step_seconds(self.hardware, self.shape, rows, mean, rows)
        # prefill + L t(B (1 + g)) / E[accepted + 1].
        return self.prefill + cap * step / gained


def plan(
    load: Load,
    deadline: float,
    accuracy: Accuracy,
    *,
    branches: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128),
    caps: Sequence[int] = (128, 256, 512, 1024, 2048, 4096),
    drafting: Draft | None = None,
    drafts: Sequence[int] = (2, 4, 8),
) -> Fit:
    """The most accurate (branches, draft, cap) that ends before the deadline.

    Idle parallelism is spent before depth: of equally accurate plans the one with the smaller cap wins,
    then the one with fewer branches, then the faster. Branches and drafts are only admitted into
    arithmetic that is idle, so nobody else's steps get slower; a single branch always is.

    Raises DeadlineTooShort where not even one token fits, BadInput for a deadline that is no number of
    seconds, or choices below 1.
    """
    if not 0 < deadline < float("inf"):
        raise BadInput("budget seconds", deadline, "is not a positive number", "give seconds")
    if not branches or not caps or min(*branches, *caps, *drafts, 1) < 1:
        raise BadInput("branches and caps", [*branches, *caps], "hold nothing, or less than 1", "give counts from 1")
    needed = load.seconds(1, 1)
    if deadline < needed:
        raise DeadlineTooShort(deadline, needed)
    fits = [
        Fit(count, draft, cap, seconds, accuracy(count, cap))
        for count in branches
        for draft in ((0, *drafts) if drafting is not None else (0,))
        if count * (1 + draft) <= load.idle
        for cap in caps
        if (seconds := load.seconds(count, cap, draft, drafting)) <= deadline
    ]
    if not fits:  # shorter than the smallest cap: one branch, as long as it may be
        cap = _longest(load, deadline, min(caps))
        return Fit(1, 0, cap, load.seconds(1, cap), accuracy(1, cap))
    return min(fits, key=lambda fit: (-fit.accuracy, fit.cap, fit.branches, fit.seconds))


def shed(fit: Fit, load: Load, left: float, *, drafting: Draft | None = None) -> Fit:
    """A plan made smaller because the machine has become busier, or the time shorter.

    Speculative work goes first, then branches, down to one, then the cap. `accuracy` is no longer
    known and becomes NaN where branches or cap have changed.

    Raises DeadlineTooShort where not even one token fits into the `left` seconds.
    """
    needed = load.seconds(1, 1)
    if left < needed:
        raise DeadlineTooShort(left, needed)
    branches, draft, cap = fit.branches, fit.draft, fit.cap

    def fits(count: int, ahead: int) -> bool:
        return (count * (1 + ahead) <= load.idle or (count == 1 and not ahead)) and load.seconds(
            count, cap, ahead, drafting
        ) <= left

    while draft and not fits(branches, draft):
        draft //= 2
    while branches > 1 and not fits(branches, draft):
        branches -= 1
    if not fits(branches, draft):
        cap = _longest(load, left, cap)
    same = (branches, cap) == (fit.branches, fit.cap)
    seconds = load.seconds(branches, cap, draft, drafting)
    return Fit(branches, draft, cap, seconds, fit.accuracy if same else float("nan"))


def _longest(load: Load, seconds: float, cap: int) -> int:
    """The largest cap up to `cap` that one plain branch ends in time; at least 1."""
    # Time rises with the cap, so the largest one that fits can be bisected.
    fitting = bisect_right(range(1, cap + 1), seconds, key=lambda tokens: load.seconds(1, tokens))
    return max(1, fitting)
