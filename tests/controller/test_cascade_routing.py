"""Choosing a model before decoding: the three ways, and the two ends of a threshold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outthink import BadInput
from outthink.controller.routing_rules import Routing, penalised, smallest_likely, strong_weak

COSTS = (1.0, 3.0, 11.0)


def test_the_smallest_model_that_is_likely_enough() -> None:
    assert smallest_likely([0.2, 0.7, 0.9], COSTS, 0.6) == 1
    assert smallest_likely([0.2, 0.7, 0.9], COSTS, 0.95) == 2
    assert smallest_likely([0.9, 0.2, 0.1], (11.0, 3.0, 1.0), 0.15) == 1


@pytest.mark.parametrize("chances", [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.3, 0.9, 0.1]])
def test_the_ends_of_the_threshold_are_the_single_models(chances: list[float]) -> None:
    assert smallest_likely(chances, COSTS, 0.0) == 0
    assert smallest_likely(chances, COSTS, 1.0001) == 2


def test_cost_penalised_argmax() -> None:
    chances = [0.5, 0.8, 0.9]  # scaled costs 0, 0.2, 1
    assert [penalised(chances, COSTS, price) for price in (0.0, 0.1, 0.2, 1.0, 2.0)] == [2, 2, 1, 1, 0]
    assert penalised([0.5, 0.5], (4.0, 2.0), 0.0) == 1  # equal values: the cheaper one
    assert penalised([0.5, 0.6], (2.0, 2.0), 5.0) == 1  # equal costs do not divide by zero


def test_strong_or_weak() -> None:
    assert [strong_weak(score, 0.5) for score in (0.4, 0.5, 0.6)] == [0, 1, 1]


def test_routing_chooses() -> None:
    for way, parameter, wanted in (("smallest-likely", 0.6, 1), ("penalised", 3.0, 0), ("strong-weak", 0.3, 1)):
        routing = Routing(way, parameter, ("small", "big"), (1.0, 3.0))  # type: ignore[arg-type]
        assert routing.place([0.4, 0.8]) == wanted


@pytest.mark.parametrize(
    "broken",
    [
        {"way": "guess"},
        {"models": ("only",), "costs": (1.0,)},
        {"costs": (1.0,)},
        {"way": "strong-weak", "models": ("a", "b", "c"), "costs": (1.0, 2.0, 3.0)},
    ],
)
def test_malformed_routing_is_refused(broken: dict[str, object]) -> None:
    values = Routing("penalised", 0.5, ("small", "big"), (1.0, 3.0))
    with pytest.raises(BadInput, match="routing"):
        replace(values, **broken)  # type: ignore[arg-type]


def test_a_chance_for_each_model_is_needed() -> None:
    with pytest.raises(BadInput, match="chances"):
        smallest_likely([0.5], COSTS, 0.5)
