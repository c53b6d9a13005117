"""Feedback applied to requests: which arm of a policy's plan the log of earlier outcomes draws.

Knows: which arms compete, and at what price. Does not know how outcomes are learned (the learner does),
nor who says that an answer was right.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from outthink.controller.online.arms import Arm, Settings
from outthink.controller.online.learner import Learner
from outthink.controller.policy.arms import PolicyArm, Task
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import Plan
from outthink.core.receipt import Receipt


class RequestFeedback:
    """The log that one request's choice is written to.

    Args:
        log: made if it does not exist. It belongs to one task of one policy.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._drawn: tuple[str, str] | None = None
        self._learner: Learner | None = None

    def choose(self, policy: Policy, plan: Plan) -> Plan:
        """The plan with the arm that is drawn for this request; the choice is on disk when this returns.

        Where the policy was not followed, or the budget excludes one of the arms, the plan stays as it
        is and nothing is learned: a draw among what is left would have another propensity.
        """
        task = plan.task
        if plan.arm is None or task is None or not plan.options:
            return self._kept(plan, "the policy was not followed here")
        rivals = competing(task)
        allowed = {option.arm.name for option in plan.options if not option.exceeds}
        if not {arm.name for arm in rivals} <= allowed:
            return self._kept(plan, "the budget does not allow every arm that competes")
        costs = [arm.held_out.cost(policy.by) for arm in rivals]
        arms = [_arm(arm, cost) for arm, cost in zip(rivals, costs, strict=True) if cost is not None]
        if len(arms) < len(rivals):
            return self._kept(plan, f"calibration does not know what its arms cost in {policy.by}")
        name = f"{policy.id} {task.model} {task.dataset}"
        settings = Settings(price=price_of(arms, task.arm(task.chosen).name))
        self._learner = learner = Learner(self.log, name, arms, settings)
        request = f"req-{secrets.token_hex(6)}"  # at random: the draw is seeded by it
        choice = learner.choose(request)
        self._drawn = request, policy.by
        option = next(option for option in plan.options if option.arm.name == choice.arm)
        reminder = f"{request} drew {choice.arm} with probability {choice.propensity:.3f}; say what came of it: "
        reminder += f"outthink feedback {self.log} {request} right|wrong"
        return replace(
            plan,
            arm=option.arm,
            n=option.arm.n,
            ahead=None,  # it was worked out for the other arm
            why=f"{self.log} drew it (policy's own: {plan.name})",
            flags=(*plan.flags, reminder, *learner.notes),
        )

    def spent(self, receipt: Receipt) -> None:
        """Note what the request has cost, where that is known."""
        if self._learner is not None and self._drawn is not None:
            request, by = self._drawn
            costs = {"tokens": receipt.tokens, "flops": receipt.flops, "usd": receipt.usd, "seconds": receipt.seconds}
            cost = costs[by]
            if cost is not None:
                self._learner.spent(request, cost)

    def close(self) -> None:
        """Close the log."""
        if self._learner is not None:
            self._learner.close()

    def _kept(self, plan: Plan, reason: str) -> Plan:
        return replace(plan, flags=(*plan.flags, f"{reason}: nothing is learned from this request"))


def competing(task: Task) -> Sequence[PolicyArm]:
    """The arms whose calibrated interval reaches the accuracy of the arm that meets the target."""
    wanted = task.arm(task.chosen).held_out.accuracy
    return [arm for arm in task.arms if arm.n == task.chosen or arm.held_out.accuracy_high >= wanted]


def price_of(arms: Sequence[Arm], chosen: str) -> float:
    """Accuracy that a unit of cost is worth, so that calibration alone prefers the policy's own arm.

    The middle of the prices at which it is the best by accuracy - price x cost; where there are none, the
    least at which it beats the dearer arms.
    """
    own = next(arm for arm in arms if arm.name == chosen)
    least, most = 0.0, math.inf
    for arm in arms:
        if arm.cost > own.cost:
            least = max(least, (arm.mean - own.mean) / (arm.cost - own.cost))
        elif arm.cost < own.cost:
            most = min(most, (own.mean - arm.mean) / (own.cost - arm.cost))
    return least if most <= least or math.isinf(most) else (least + most) / 2


def _arm(calibrated: PolicyArm, cost: float) -> Arm:
    held = calibrated.held_out
    return Arm(calibrated.name, held.accuracy, held.accuracy_low, held.accuracy_high, cost)
