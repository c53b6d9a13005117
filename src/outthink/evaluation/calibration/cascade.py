"""Fits a cascade of two models to recorded samples: the size of the first stage, the threshold it is left by,
whether its votes are kept, and when the second stage stops.

Knows: the candidates, and how the cheapest whose accuracy holds up is chosen. A first stage of no samples
is a candidate too: where the cheap model does not pay, it is left out. Does not know files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from outthink.controller.cascade import Cascade, Stage, StageRule
from outthink.controller.gain import LinearGain
from outthink.controller.policy.rules import rule_from_json
from outthink.evaluation.calibration.dealt import Array, Table
from outthink.evaluation.calibration.first_stage import TIES, Exit, carried_votes, first_exits
from outthink.evaluation.calibration.gain import SWAY, Mask, Ridge, Walk, scale_of, walk


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is tried, and what is aimed at.

    Args:
        target: size of the second model's self-consistency whose accuracy is to be matched.
        margin: accuracy that may be lost against it.
        firsts: samples of the first stage; 0 leaves it out.
        keeps: weights at which its votes may go along.
        depth: samples of the second model at which votes end.
        caps: samples of the second stage at most.
        folds: of the inner cross-fitting.
        partitions: random partitions for the choice of the operating point.
    """

    target: int = 16
    margin: float = 0.005
    firsts: Sequence[int] = (0, 1, 2, 4)
    keeps: Sequence[float] = (0.0, 0.5)
    depth: int = 28
    caps: Sequence[int] = (12, 14, 16, 20)
    prices: Sequence[float] = tuple(float(price) for price in np.geomspace(2e-3, 0.15, 36))
    folds: int = 10
    partitions: int = 8
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """One candidate: parameters of both stages."""

    first: int
    tau: float
    keep: float
    price: float
    cap: int

    @property
    def signal(self) -> str:
        """One sample cannot agree with itself: its confidence decides."""
        return "confidence" if self.first == 1 else "agreement"


@dataclass(slots=True)
class Candidates:
    """What every candidate did on each problem, mean over orders; rows as `choices`."""

    choices: list[Choice] = field(default_factory=list)
    accuracy: list[Array] = field(default_factory=list)
    cost: list[Array] = field(default_factory=list)

    def add(self, choice: Choice, right: Array, spent: Array) -> None:
        """Outcomes over (problem, order)."""
        self.choices.append(choice)
        self.accuracy.append(right.mean(axis=1))
        self.cost.append(spent.mean(axis=1))

    def only(self, keep: Sequence[int]) -> Candidates:
        """Some of them."""
        part = Candidates([self.choices[i] for i in keep])
        part.accuracy, part.cost = [self.accuracy[i] for i in keep], [self.cost[i] for i in keep]
        return part


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted cascade and its parameters."""

    cascade: Cascade
    choice: Choice


def baseline(table: Table, place: int, n: int) -> tuple[Array, Array]:
    """Accuracy and FLOPs a problem of plain self-consistency with n samples."""
    everyone = np.ones(len(table.names), dtype=bool)
    found = walk(table, place, scale_of(table.models[place], everyone, (0.0, 0.0)), TIES, depth=n)
    return found.right[..., n].mean(axis=1), table.models[place].spent()[..., n].mean(axis=1)


class Fitter:
    """All candidates on a table whose first model is the cheap one; `fit` chooses among them."""

    def __init__(self, table: Table, settings: Settings) -> None:
        self.table, self.settings = table, settings
        self.candidates = Candidates()
        self.aim, self.cost = baseline(table, 1, settings.target)
        everyone = np.ones(len(table.names), dtype=bool)
        self._scale = scale_of(table.models[1], everyone, SWAY)
        self._coefficients: dict[tuple[int, float], tuple[float, ...]] = {}
        for first, keep in _walks(settings):
            found = walk(table, 1, self._scale, SWAY, depth=settings.depth, carried=carried_votes(table, first, keep))
            ridge = Ridge(found)
            self._coefficients[first if keep else 0, keep] = ridge.plain(ridge.fit(everyone))
            gains = crossed(ridge, len(table.names), settings)
            for n in [first] if keep else settings.firsts:
                self._try(found, gains, n, keep)

    def _try(self, found: Walk, gains: Array, first: int, keep: float) -> None:
        """All second stages behind one first stage."""
        settings, spent = self.settings, self.table.models[1].spent()
        exits = first_exits(self.table, first, keep) if first else [Exit.never(gains.shape[:2])]
        for price, cap in product(settings.prices, settings.caps):
            at = stops(gains, price, cap)[..., None]
            right = np.take_along_axis(found.right, at, 2)[..., 0]
            cost = np.take_along_axis(spent, at, 2)[..., 0]
            for one in exits:
                choice = Choice(first, one.tau, keep, price, cap)
                spent_all = one.spent + np.where(one.left, 0, cost)
                self.candidates.add(choice, np.where(one.left, one.right, right), spent_all)

    def fit(self, *, forced: bool = False) -> Fit:
        """The cheapest cascade whose cross-fitted accuracy is within the margin of the target.

        Args:
            forced: only those that draw from the cheap model.
        """
        candidates = self.candidates
        if forced:
            candidates = candidates.only([i for i, one in enumerate(candidates.choices) if one.first])
        choice = candidates.choices[operating_point(candidates, self.aim, self.settings)]
        coefficients = self._coefficients[choice.first if choice.keep else 0, choice.keep]
        gain = LinearGain(self._scale, coefficients, self.settings.depth, SWAY, choice.price)
        return Fit(assemble(self.table, choice, gain), choice)


def assemble(table: Table, choice: Choice, second: StageRule) -> Cascade:
    """The cascade of these parameters; the cheap model is the session's own."""
    last = Stage(table.models[1].model, choice.cap, second)
    if not choice.first:
        return Cascade((last,))
    fixed = rule_from_json({"kind": "fixed"})
    return Cascade((Stage(None, choice.first, fixed, choice.tau, choice.signal, choice.keep), last))  # type: ignore[arg-type]


def _walks(settings: Settings) -> list[tuple[int, float]]:
    """First sizes and kept weights that need votes of their own; without kept votes all sizes share one."""
    return [(0, 0.0), *((first, keep) for first in settings.firsts if first for keep in settings.keeps if keep)]


def crossed(ridge: Ridge, problems: int, settings: Settings) -> Array:
    """Each problem's gains as predicted from the other folds."""
    rng = np.random.default_rng(settings.seed)
    fold = rng.permutation(problems) % settings.folds
    parts = [(fold == k, ridge.gains(ridge.fit(fold != k), fold == k)) for k in range(settings.folds)]
    gains = np.zeros((problems, *parts[0][1].shape[1:]))
    for mask, found in parts:
        gains[mask] = found
    return gains


def stops(gains: Array, price: float, cap: int) -> NDArray[np.intp]:
    """Samples at which the second stage stops, over (problem, order)."""
    enough = np.concatenate([gains[..., : cap - 1] <= price, np.ones((*gains.shape[:2], 1), dtype=bool)], axis=2)
    return np.asarray(enough.argmax(axis=2) + 1)


def operating_point(candidates: Candidates, aim: Array, settings: Settings) -> int:
    """The cheapest candidate, aimed high enough that the choice itself holds up on other problems.

    Choosing the cheapest of many that seem to reach the aim favours lucky ones. So the aim is raised
    until candidates that were chosen on some folds are within the margin on the others, on average.
    """
    accuracy, cost = np.array(candidates.accuracy), np.array(candidates.cost)
    rng = np.random.default_rng(settings.seed)
    folds = [rng.permutation(len(aim)) % settings.folds for _ in range(settings.partitions)]
    masks = [fold == k for fold in folds for k in range(settings.folds)]
    for slack in np.arange(settings.margin, -2 * settings.margin - 1e-9, -settings.margin / 5):
        held = [
            (accuracy[_cheapest(accuracy, cost, aim, ~mask, float(slack)), mask] - aim[mask]).sum() for mask in masks
        ]
        if sum(held) / (len(aim) * settings.partitions) >= -settings.margin:
            break
    everyone = np.ones(len(aim), dtype=bool)
    return _cheapest(accuracy, cost, aim, everyone, float(slack))


def _cheapest(accuracy: Array, cost: Array, aim: Array, problems: Mask, slack: float) -> int:
    mean = accuracy[:, problems].mean(axis=1)
    enough = mean >= aim[problems].mean() - slack
    if not enough.any():
        return int(mean.argmax())
    return int(np.where(enough, cost[:, problems].mean(axis=1), np.inf).argmin())
