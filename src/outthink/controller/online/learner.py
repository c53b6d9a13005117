"""Learns which arm to take from what came of earlier choices.

Knows: the log and the posterior that follows from it, line by line; replaying the log gives the same
state as having lived through it. Does not know how an arm is run or who says that an answer was right.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from outthink.controller.online.arm import Arm, arms_of
from outthink.controller.online.log import SCHEMA, Line, Log
from outthink.controller.online.posterior import Posterior, Settings
from outthink.core.errors import BadInput


class Node(NamedTuple):
    """The outcomes that count after a line: the last one, and those before it."""

    line: Line
    before: Node | None


class Choice(NamedTuple):
    """The arm for a request, and the probability with which it was drawn."""

    arm: str
    propensity: float


class ArmBelief(NamedTuple):
    """What is believed of an arm now: mean accuracy and cost, and the probability that it is taken next."""

    arm: Arm
    mean: float
    cost: float
    propensity: float


class Learner:
    """A log and what follows from it.

    Args:
        path: the log; made if it does not exist and `arms` are given.
        policy: identifier of the calibrated policy that the arms come from.
        arms: what may be done; None to take those of the log.
        settings: how to learn; None to take those of the log, or the defaults.
        clock: seconds since 1970.

    Raises BadInput for a log of another policy, other arms or other settings, or a damaged one.
    """

    def __init__(
        self,
        path: Path,
        policy: str | None = None,
        arms: Sequence[Arm] | None = None,
        settings: Settings | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if arms is None and not path.is_file():
            raise BadInput("log", str(path), "does not exist", "learn first, or check the path")
        self._clock = clock
        self._log = Log(path)
        self.policy = ""
        self.posterior: Posterior | None = None
        self.choices: dict[str, Line] = {}
        self.costs: dict[str, float] = {}
        self.outcomes: dict[str, Line] = {}
        self._effective: list[Node | None] = []
        try:
            self._open(policy, arms, settings)
        except BaseException:
            self._log.close()
            raise

    def _open(self, policy: str | None, arms: Sequence[Arm] | None, settings: Settings | None) -> None:
        for line in self._log.read():
            self._apply(line)
        if self.posterior is None:
            if arms is None:
                raise BadInput("log", str(self._log.path), "is empty", "learn first, or check the path")
            fresh = Posterior(arms, settings)
            about = {"schema_version": SCHEMA, **{name: fresh.state()[name] for name in ("arms", "settings")}}
            self._append("policy", about=about, policy=policy or "")
        assert self.posterior is not None
        state = self.posterior.state()
        asked = {
            "policy": (policy, self.policy),
            "arms": (None if arms is None else [arm.json() for arm in arms], state["arms"]),
            "settings": (None if settings is None else settings.json(), state["settings"]),
        }
        for name, (wanted, found) in asked.items():
            if wanted is not None and wanted != found:
                raise BadInput(
                    "log",
                    str(self._log.path),
                    f"was learned with other {name}",
                    "give another file, or the same policy",
                )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told about the log."""
        return self._log.notes

    @property
    def count(self) -> int:
        """Lines so far."""
        return self._log.count

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What may be done."""
        return self._learned().arms

    @property
    def fallback(self) -> bool:
        """Whether no arm's calibrated interval meets the target, so that the most accurate one is taken."""
        return self._learned().fallback

    def beliefs(self) -> tuple[ArmBelief, ...]:
        """Of every arm, in their order."""
        learned = self._learned()
        chances = learned.propensities()
        betas = [learned.beta(i) for i in range(len(learned.arms))]
        return tuple(
            ArmBelief(arm, a / (a + b), learned.cost(i), chances[arm.name])
            for i, (arm, (a, b)) in enumerate(zip(learned.arms, betas, strict=True))
        )

    def choose(self, request: str) -> Choice:
        """Take an arm for a request; the choice is on disk when this returns. Asked twice, it is the same."""

        def make() -> Line:
            arm, propensity = self._learned().choose(request)
            return self._line("choice", request=request, arm=arm, propensity=propensity)

        if request not in self.choices:
            self._log.append(make, self._apply)
        made = self.choices[request]
        return Choice(made.arm or "", made.propensity or 0.0)

    def spent(self, request: str, cost: float) -> None:
        """What a request has cost, in the unit of the arms' costs."""
        _check(cost)
        self._about(request, "cost", cost=cost)

    def learn(self, request: str, right: bool, cost: float | None = None) -> bool:
        """Learn whether the answer to a request was right; False where that teaches nothing.

        Only choices with a known propensity teach: what was not drawn by this policy may have been
        picked for its outcome. Raises BadInput for a request that is not in the log, or whose
        outcome is known already (undo it first).
        """
        known = self.outcomes.get(request)
        if known is not None:
            raise BadInput(
                "request", request, f"has the outcome {_word(known.outcome)} already", "undo that line first"
            )
        cost = self.costs.get(request) if cost is None else cost
        _check(cost)
        return _teaches(self._about(request, "outcome", outcome=right, cost=cost))

    def revert(self, to: int) -> None:
        """Forget all outcomes after line `to`. This is a line itself: reverting to before it takes it back."""
        if not 0 <= to < self.count:
            raise BadInput("undo", to, "is no line of the log", f"give a number from 0 to {self.count - 1}")
        self._append("revert", to=to)

    def state(self) -> dict[str, Any]:
        """Everything that decides; equal for a log that was lived through and one that was replayed."""
        return {
            "policy": self.policy,
            **self._learned().state(),
            "choices": {request: [line.arm, line.propensity] for request, line in self.choices.items()},
            "outcomes": {request: line.outcome for request, line in self.outcomes.items()},
            "spent": dict(self.costs),
        }

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _learned(self) -> Posterior:
        if self.posterior is None:
            raise BadInput("log", str(self._log.path), "does not begin with a policy", "give a file of --learn")
        return self.posterior

    def _about(self, request: str, kind: str, **fields: Any) -> Line:
        made = self.choices.get(request)
        if made is None:
            raise BadInput("request", request, "is not in the log", "give the id that the receipt names")
        return self._append(kind, request=request, arm=made.arm, propensity=made.propensity, **fields)

    def _append(self, kind: str, **fields: Any) -> Line:
        return self._log.append(lambda: self._line(kind, **fields), self._apply)

    def _line(self, kind: str, **fields: Any) -> Line:
        fields.setdefault("policy", self.policy)
        return Line(kind=kind, time=self._clock(), **fields)  # type: ignore[arg-type]

    def _apply(self, line: Line) -> None:
        """One line of the log, lived or replayed."""
        if line.kind == "policy" and self.posterior is None:
            about = line.about or {}
            if about.get("schema_version") != SCHEMA:
                raise BadInput("log schema_version", about.get("schema_version"), f"is not {SCHEMA}", "learn anew")
            self.policy = line.policy
            self.posterior = Posterior(arms_of(about["arms"]), Settings(**about["settings"]))
        self._learned()
        effective = self._effective[-1] if self._effective else None
        if line.kind == "choice" and line.request is not None:
            self.choices.setdefault(line.request, line)
        elif line.kind == "cost" and line.request is not None and line.cost is not None:
            self.costs[line.request] = line.cost
        elif line.kind == "outcome" and line.request is not None and line.request not in self.outcomes:
            effective = Node(line, effective)
            self._count(line)
        elif line.kind == "revert" and line.to is not None:
            effective = self._effective[line.to]
            self._rebuild(effective)
        self._effective.append(effective)

    def _count(self, line: Line) -> None:
        self.outcomes[line.request or ""] = line
        if _teaches(line):
            self._learned().learn(line.arm or "", bool(line.outcome), line.cost)

    def _rebuild(self, effective: Node | None) -> None:
        old = self._learned()
        self.posterior, self.outcomes = Posterior(old.arms, old.settings), {}
        lines = []
        while effective is not None:
            lines.append(effective.line)
            effective = effective.before
        for line in reversed(lines):
            self._count(line)


def _teaches(line: Line) -> bool:
    """Whether the outcome is known, and drawn with a known probability."""
    return line.outcome is not None and line.arm is not None and 0 < (line.propensity or 0.0) <= 1


def _check(cost: float | None) -> None:
    if cost is not None and not (math.isfinite(cost) and cost >= 0):
        raise BadInput("cost", cost, "is no cost", "give a number from 0")


def _word(outcome: bool | None) -> str:
    return "right" if outcome else "wrong"
