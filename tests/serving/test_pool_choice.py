"""The choice of a backend: loads, weights, affinity and its bounds, as invariants."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from outthink.serving.pool.backend import least_busy, preferred, seed_of


@dataclass
class Site:
    name: int
    weight: float = 1.0
    active: int = 0
    passed: float = 0.0

    @property
    def inverse(self) -> float:
        return 1 / self.weight

    @property
    def seed(self) -> int:
        return seed_of(f"http://192.0.2.{self.name}:8000/v1")


def sites(count: int, *weights: float) -> list[Site]:
    return [Site(at, weights[at] if weights else 1.0) for at in range(count)]


def take(site: Site) -> Site:
    site.active += 1
    site.passed += site.inverse
    return site


SITES = st.lists(
    st.tuples(st.sampled_from([0.5, 1.0, 2.0, 4.0]), st.integers(0, 60), st.floats(0, 100)), min_size=1, max_size=7
).map(lambda rows: [Site(at, *row) for at, row in enumerate(rows)])
PREFIX = st.integers(0, (1 << 32) - 1)


@given(SITES)
def test_nobody_is_less_busy_than_the_least_busy(able: list[Site]) -> None:
    chosen = least_busy(able)
    assert all(chosen.active * chosen.inverse <= item.active * item.inverse for item in able)
    equals = [item for item in able if item.active * item.inverse == chosen.active * chosen.inverse]
    assert chosen.passed == min(equal.passed for equal in equals)


@given(SITES, PREFIX, st.integers(0, 20))
def test_affinity_overloads_nobody(able: list[Site], prefix: int, slack: int) -> None:
    chosen = preferred(able, prefix, 1.25, slack)
    share = 1.25 * (sum(item.active for item in able) + 1) * chosen.weight / sum(item.weight for item in able)
    assert chosen.active < max(slack, share)
    assert chosen.active + 1 <= max(slack, ceil(share))


@given(st.integers(2, 7), PREFIX, st.data())
def test_losing_a_backend_moves_only_its_own_prompts(count: int, prefix: int, data: st.DataObject) -> None:
    able = sites(count)
    lost = data.draw(st.sampled_from(able))
    before = preferred(able, prefix, 1.25, 16)
    after = preferred([item for item in able if item is not lost], prefix, 1.25, 16)
    assert after is not lost
    assert after is before or before is lost


def test_prompts_spread_by_weight() -> None:
    able = sites(3, 1.0, 2.0, 1.0)
    counts = [0, 0, 0]
    for prefix in range(4000):
        counts[preferred(able, prefix * 2654435761 % (1 << 32), 1.25, 16).name] += 1
    assert abs(counts[1] - 2000) < 150
    assert abs(counts[0] - 1000) < 150


def test_the_hash_is_the_same_in_every_process() -> None:
    assert seed_of("http://127.0.0.1:8001/v1") == 15897180911987319868


def test_idle_backends_take_turns_by_weight() -> None:
    able = sites(2, 3.0, 1.0)
    counts = [0, 0]
    for _ in range(40):
        site = take(least_busy(able))
        counts[site.name] += 1
        site.active -= 1
    assert counts == [30, 10]


def test_busy_backends_hold_calls_by_weight() -> None:
    able = sites(2, 3.0, 1.0)
    for _ in range(40):
        take(least_busy(able))
    assert [item.active for item in able] == [30, 10]


def test_samples_of_one_prompt_meet_one_cache_until_it_is_overloaded() -> None:
    able = sites(4)
    first = [take(preferred(able, 7, 1.25, 16)).name for _ in range(16)]
    assert len(set(first)) == 1
    for _ in range(64):
        take(preferred(able, 7, 1.25, 16))
    assert max(item.active for item in able) <= 1.25 * 80 / 4 + 1
    assert able[first[0]].active == max(item.active for item in able)
