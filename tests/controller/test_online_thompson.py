"""Thompson sampling among calibrated arms: who is admitted, how likely each is, and that it learns."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.controller.online import Arm, Posterior, Settings
from outthink.core.errors import BadInput


def arm(name: str, mean: float, half: float = 0.05, cost: float = 1.0) -> Arm:
    return Arm(name, mean, max(0.0, mean - half), min(1.0, mean + half), cost)


def test_the_prior_has_the_calibrated_mean_and_spread() -> None:
    a, b = Arm("x", 0.7, 0.6, 0.8, 1.0).prior(most=1e9)
    spread = (a * b / ((a + b) ** 2 * (a + b + 1))) ** 0.5
    assert a / (a + b) == pytest.approx(0.7, abs=0.005)
    assert spread == pytest.approx(0.2 / (2 * 1.96), rel=0.02)
    assert sum(Arm("x", 0.7, 0.69, 0.71, 1.0).prior(most=100)) == pytest.approx(101)
    assert min(Arm("x", 1.0, 1.0, 1.0, 1.0).prior(most=100)) > 0


def test_only_arms_whose_interval_meets_the_target_are_drawn() -> None:
    arms = [arm("poor", 0.5), arm("unsure", 0.78, 0.2), arm("good", 0.8), arm("better", 0.9)]
    posterior = Posterior(arms, Settings(target=0.7))
    chances = posterior.propensities()
    assert (chances["poor"], chances["unsure"]) == (0, 0)
    assert chances["good"] > 0 < chances["better"]
    assert not posterior.fallback
    nobody = Posterior(arms, Settings(target=0.99))
    assert nobody.fallback
    assert nobody.choose("r") == ("better", 1.0)


def test_propensities_are_those_of_thompson_sampling() -> None:
    arms = [arm("a", 0.6, cost=1.0), arm("b", 0.62, cost=3.0), arm("c", 0.55, 0.1, cost=0.5)]
    posterior = Posterior(arms, Settings(price=0.01, floor=0.0))
    draw = random.Random(0)
    wins: Counter[str] = Counter()
    for _ in range(20_000):
        values = {item.name: draw.betavariate(*posterior.beta(i)) - 0.01 * item.cost for i, item in enumerate(arms)}
        wins[max(values, key=values.__getitem__)] += 1
    for name, chance in posterior.propensities().items():
        assert chance == pytest.approx(wins[name] / 20_000, abs=0.012)  # three standard errors


def test_what_is_logged_is_how_often_it_is_drawn() -> None:
    posterior = Posterior([arm("a", 0.6), arm("b", 0.62)])
    chances = posterior.propensities()
    drawn = Counter(posterior.choose(f"r{i}")[0] for i in range(8000))
    for name, chance in chances.items():
        assert drawn[name] / 8000 == pytest.approx(chance, abs=0.017)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3), st.floats(0, 5)), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=20),
    st.sampled_from([None, 3.0, 50.0]),
    st.floats(0, 0.3),
)
@settings(max_examples=60, deadline=None)
def test_propensities_are_a_distribution_with_a_floor(
    said: list[tuple[float, float, float]], outcomes: list[tuple[int, bool]], memory: float | None, floor: float
) -> None:
    arms = [arm(str(i), *values) for i, values in enumerate(said)]
    posterior = Posterior(arms, Settings(memory=memory, floor=floor, price=0.02))
    for place, right in outcomes:
        posterior.learn(str(place % len(arms)), right, 1.0)
    chances = posterior.propensities()
    assert sum(chances.values()) == pytest.approx(1)
    assert min(chances.values()) >= min(floor, 1 / len(arms)) - 1e-12


def test_it_finds_the_better_arm() -> None:
    truth, draw = {"said good": 0.5, "is good": 0.8}, random.Random(1)
    posterior = Posterior([arm("said good", 0.75), arm("is good", 0.65)], Settings(most=30))
    for i in range(400):
        name, _ = posterior.choose(f"r{i}")
        posterior.learn(name, draw.random() < truth[name])
    assert posterior.propensities()["is good"] > 0.95


def test_cost_is_learned_too() -> None:
    posterior = Posterior([arm("a", 0.6, 0.01, cost=1.0), arm("b", 0.6, 0.01, cost=1.0)], Settings(price=0.05))
    for _ in range(50):
        posterior.learn("a", True, 9.0)
        posterior.learn("b", True, 1.0)
    assert posterior.cost(0) > 6 > posterior.cost(1)
    assert posterior.propensities()["b"] > 0.95


def test_memory_forgets_calibration_and_the_past() -> None:
    posterior = Posterior([arm("a", 0.9), arm("b", 0.2)], Settings(memory=20.0))
    for _ in range(200):
        posterior.learn("a", False)
    a, b = posterior.beta(0)
    assert a + b < 25
    for _ in range(40):
        posterior.learn("a", True)
    a, b = posterior.beta(0)
    assert a / (a + b) > 0.8


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Arm("", 0.5, 0.4, 0.6, 1.0),
        lambda: Arm("a", 0.5, 0.6, 0.7, 1.0),
        lambda: Arm("a", 0.5, 0.4, 0.6, -1.0),
        lambda: Posterior([]),
        lambda: Posterior([arm("a", 0.5), arm("a", 0.6)]),
        lambda: Posterior([arm("a", 0.5)]).learn("b", True),
        lambda: Settings(memory=1.0),
        lambda: Settings(floor=1.0),
        lambda: Settings(price=float("nan")),
    ],
)
def test_bad_input(wrong) -> None:
    with pytest.raises(BadInput):
        wrong()
