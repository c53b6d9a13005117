"""The arms that learning draws among, and what is believed of each: calibration as the prior, then outcomes.

Knows: Beta posteriors, the target, costs, and the exact probability with which Thompson sampling takes an arm.
Does not know requests, or where outcomes are kept.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from outthink.controller.stored import JsonObject
from outthink.core.errors import BadInput

_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Arm:
    """A plan with its calibrated accuracy, 95 % interval, and mean cost a request in any one unit."""

    name: str
    mean: float
    low: float
    high: float
    cost: float

    def __post_init__(self) -> None:
        if not self.name:
            raise BadInput("arm", self.name, "has no name", "give it one")
        if not 0 <= self.low <= self.mean <= self.high <= 1:
            interval = [self.low, self.mean, self.high]
            raise BadInput(
                f"arm {self.name}", interval, "is no interval around a mean", "give 0 <= low <= mean <= high <= 1"
            )
        if not (math.isfinite(self.cost) and self.cost >= 0):
            raise BadInput(f"arm {self.name} cost", self.cost, "is no cost", "give a number from 0")

    def prior(self, most: float) -> tuple[float, float]:
        """Beta parameters with this mean and the interval's spread, worth at most `most` outcomes.

        The spread is (high - low) / (2 x 1.96); a mean of 0 or 1 is moved inside by half an outcome.
        """
        # An interval of no width would be worth infinitely many outcomes.
        spread = max((self.high - self.low) / (2 * _Z), 1e-9)
        # The variance of Beta(a, b) is mean (1 - mean) / (a + b + 1): solved for a + b.
        strength = min(most, max(1.0, self.mean * (1 - self.mean) / spread**2 - 1))
        return self.mean * strength + 0.5, (1 - self.mean) * strength + 0.5


# What has been learned about each arm, and how likely Thompson sampling is to take it.

_CELLS = 2048
"""Midpoints between 0 and 1 at which the Beta densities are summed."""
_COST_WEIGHT = 20.0
"""Requests' worth of evidence that a calibrated cost counts for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to learn.

    Args:
        target: accuracy that an arm's calibrated interval must meet (low >= target) to be tried; None
            admits all arms.
        price: accuracy that one unit of cost is worth; arms are compared by accuracy - price x cost.
        memory: an outcome's weight is multiplied by 1 - 1/memory with every later outcome of its arm; None
            never forgets. Shorter follows drift faster, and pays for it while nothing changes.
        most: outcomes that calibration is worth at most.
        floor: least probability of every admitted arm, so that the log can judge other policies later.
        seed: of the choices.
    """

    target: float | None = None
    price: float = 0.0
    memory: float | None = None
    most: float = 100.0
    floor: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "target": (self.target, self.target is None or 0 <= self.target <= 1),
            "price": (self.price, math.isfinite(self.price) and self.price >= 0),
            "memory": (self.memory, self.memory is None or self.memory > 1),
            "most": (self.most, math.isfinite(self.most) and self.most > 0),
            "floor": (self.floor, 0 <= self.floor < 1),
        }
        for name, (value, fine) in checks.items():
            if not fine:
                raise BadInput(f"online {name}", value, "is out of range", "see docs/online.md")


class Posterior:
    """Beta(a, b) for every arm: calibration as the prior, then outcomes.

    Where calibration leaves no arm above the target, the one with the highest mean is taken, and
    `fallback` says so. Raises BadInput for no arms, or two of one name.
    """

    def __init__(self, arms: Sequence[Arm], settings: Settings | None = None) -> None:
        self.arms, self.settings = tuple(arms), settings or Settings()
        self.place = {arm.name: i for i, arm in enumerate(self.arms)}
        if not arms or len(self.place) < len(arms):
            names = [arm.name for arm in arms]
            raise BadInput("arms", names, "are none, or two of one name", "give each arm its own name")
        self.prior = [arm.prior(self.settings.most) for arm in self.arms]
        self.counts = [[0.0, 0.0] for _ in self.arms]
        self.costs = [[0.0, 0.0] for _ in self.arms]
        target = self.settings.target
        met = [i for i, arm in enumerate(self.arms) if target is None or arm.low >= target]
        self.fallback = not met
        best = max(range(len(self.arms)), key=lambda i: (self.arms[i].mean, -self.arms[i].cost))
        self.admitted = met or [best]
        self._propensities: dict[str, float] | None = None

    def beta(self, i: int) -> tuple[float, float]:
        """Parameters of arm i now."""
        (a, b), (right, wrong) = self.prior[i], self.counts[i]
        memory = self.settings.memory  # calibration fades as outcomes come in
        keep = 1.0 if memory is None else max(0.0, 1 - (right + wrong) / memory)
        return keep * a + right, keep * b + wrong

    def cost(self, i: int) -> float:
        """Mean cost of arm i: the calibrated one, then what it has cost."""
        total, number = self.costs[i]
        return (_COST_WEIGHT * self.arms[i].cost + total) / (_COST_WEIGHT + number)

    def learn(self, arm: str, right: bool, cost: float | None = None) -> None:
        """Count an outcome, and what it cost if that is known; BadInput for an arm that is not known."""
        if arm not in self.place:
            raise BadInput("arm", arm, "is not known", f"use one of {', '.join(self.place)}")
        counts, costs = self.counts[self.place[arm]], self.costs[self.place[arm]]
        if self.settings.memory is not None:
            fade = 1 - 1 / self.settings.memory
            counts[0], counts[1] = fade * counts[0], fade * counts[1]
            costs[0], costs[1] = fade * costs[0], fade * costs[1]
        counts[0 if right else 1] += 1.0
        if cost is not None:
            costs[0], costs[1] = costs[0] + cost, costs[1] + 1.0
        self._propensities = None

    def propensities(self) -> dict[str, float]:
        """P(arm is taken) for every arm, 0 for those not admitted; they add up to 1.

        P(theta_i - price cost_i is the largest) by summing Beta densities over 2,048 cells, mixed
        with `floor`. Choices are drawn from these very numbers: what is logged is exact.
        """
        if self._propensities is None:
            handicaps = [self.settings.price * self.cost(i) for i in self.admitted]
            chances = _largest([self.beta(i) for i in self.admitted], handicaps)
            floor = min(self.settings.floor, 1 / len(self.admitted))  # the floors of all arms may not exceed 1 in all
            mixed = [floor + (1 - floor * len(chances)) * chance for chance in chances]
            by_name = dict.fromkeys(self.place, 0.0)
            by_name.update((self.arms[i].name, chance) for i, chance in zip(self.admitted, mixed, strict=True))
            self._propensities = by_name
        return self._propensities

    def choose(self, request: str) -> tuple[str, float]:
        """The arm for a request and its propensity; equal for equal posteriors, seeds and requests."""
        chances = self.propensities()
        names = [self.arms[i].name for i in self.admitted]
        # By request, not from a generator that goes on: several processes share a log and draw without each other.
        draw = random.Random(f"{self.settings.seed}:{request}")
        name = draw.choices(names, [chances[name] for name in names])[0]
        return name, chances[name]

    def state(self) -> JsonObject:
        """Everything that decides: equal states choose equally."""
        return {
            "arms": [asdict(arm) for arm in self.arms],
            "settings": asdict(self.settings),
            "counts": {arm.name: list(self.counts[i]) for i, arm in enumerate(self.arms)},
            "costs": {arm.name: list(self.costs[i]) for i, arm in enumerate(self.arms)},
        }


def _largest(betas: Sequence[tuple[float, float]], handicaps: Sequence[float]) -> list[float]:
    """P(theta_i - handicap_i is the largest), theta_i ~ Beta, independent."""
    if len(betas) == 1:
        return [1.0]
    # Not on top: requests without a log are decided without numpy (see the policy package).
    import numpy as np

    middle = (np.arange(_CELLS) + 0.5) / _CELLS
    edges = np.arange(_CELLS + 1) / _CELLS
    masses, cumulative = [], []
    for a, b in betas:
        logs = (a - 1) * np.log(middle) + (b - 1) * np.log1p(-middle)
        mass = np.exp(logs - logs.max())  # densities of hundreds of outcomes would underflow
        masses.append(mass / mass.sum())
        cumulative.append(np.concatenate([[0.0], masses[-1].cumsum()]))
    largest = []
    # Arms are independent: the sum over x of f_i(x) times the product over j of F_j(x - handicap_i + handicap_j).
    for i, mass in enumerate(masses):
        chance = mass.copy()
        for j, below in enumerate(cumulative):
            if j != i:
                chance *= np.interp(middle - handicaps[i] + handicaps[j], edges, below)
        largest.append(float(chance.sum()))
    # The cells miss 1 by a little, and what is logged has to be a distribution.
    total = sum(largest)
    return [chance / total for chance in largest]
