"""The policy file: the same bytes after a round trip, and no policy that is not exactly what was written."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.controller.cascade import Cascade, Stage
from outthink.controller.policy.arms import HeldOut
from outthink.controller.policy.artefact import Policy, canonical, digest
from outthink.controller.policy.plan import Situation, explained, plan
from outthink.controller.policy.rules import COEFFICIENTS, Fixed, LinearGain, Scale, Sway
from outthink.core.errors import BadInput
from outthink.core.request import Budget, Message, Request
from support.policies import content, policy
from support.samples import question

SCALE = Scale((-0.3, 0.1), (12.0, 2.0), (200.0, 80.0))

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


@given(VALUES)
def test_canonical_text_is_json_and_stays_the_same(value: Any) -> None:
    text = canonical(value)
    assert json.loads(text) == value
    assert canonical(json.loads(text)) == text


@given(st.dictionaries(st.text(), SCALARS, min_size=2))
def test_the_order_of_keys_does_not_count(values: dict[str, Any]) -> None:
    turned = dict(reversed(values.items()))
    assert digest(turned) == digest(values)


def test_round_trip_is_byte_identical(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    policy().save(first)
    Policy.load(first).save(second)
    assert first.read_bytes() == second.read_bytes()
    assert Policy.load(second) == policy()


def test_a_diff_shows_what_changed_on_its_own_line(tmp_path: Path) -> None:
    before = policy().text.splitlines()
    after = policy(seed=7).text.splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert {old.split(":")[0].strip() for old, _ in changed} == {'"id"', '"seed"'}


def edited(text: str) -> str:
    return text.replace('"accuracy": 0.5', '"accuracy": 0.9', 1)


def newer(text: str) -> str:
    return text.replace('"schema_version": 2', '"schema_version": 3')


def older(text: str) -> str:
    return text.replace('"schema_version": 2', '"schema_version": 1')


def cut(text: str) -> str:
    return text[: len(text) // 2]


def unnamed(text: str) -> str:
    values = json.loads(text)
    del values["id"]
    return json.dumps(values)


def not_a_number(text: str) -> str:
    return text.replace('"seed": 0', '"seed": NaN')


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (edited, "was changed after it was written"),
        (newer, "has schema_version 3"),
        (older, "has schema_version 1, this version reads 2; calibrate again"),
        (cut, "is no policy"),
        (unnamed, "is no policy"),
        (not_a_number, "was changed after it was written"),
        (lambda text: "[]", "is no policy"),
    ],
)
def test_what_was_changed_is_refused(change: Any, part: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(change(policy().text))
    with pytest.raises(BadInput, match=part) as refusal:
        Policy.load(path)
    assert "\n" not in str(refusal.value)


def test_spaces_and_order_of_the_file_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(dict(reversed(json.loads(policy().text).items()))))
    assert Policy.load(path) == policy()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        Policy.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "broken",
    [
        {"tasks": []},
        {"target": {}},
        {"tasks": [{"model": "tiny"}]},
        {"tasks": [{**content()["tasks"][0], "chosen": 3}]},
        {"tasks": [{**content()["tasks"][0], "arms": [{"n": 1, "rule": {"kind": "oracle"}, "held_out": {}}]}]},
    ],
)
def test_a_content_that_is_no_policy_is_refused_even_with_a_matching_hash(broken: dict[str, Any]) -> None:
    values = content() | broken
    with pytest.raises(BadInput):
        Policy.read(canonical({"id": digest(values), **values}))


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in plain values, as the keys that lead there; of long lists the first."""
    if before:
        yield before
    parts = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*before, key))


LEARNED = LinearGain(SCALE, 4, Sway(0.1, 0.1, -1.0), (0.0,) * COEFFICIENTS, 0.01)
CASCADE = Cascade((Stage("small", 2, Fixed(), 0.8, keep=0.5), Stage(None, 4, LEARNED)))
FULL = json.loads(canonical(content(rule=CASCADE.json())))
MISSING = object()
ANYTHING = VALUES | st.sampled_from([MISSING, 0, -1, 1e308, "", [], {}, [1.5], True, None])


def used(text: str) -> str | None:
    """What is said of a policy that is refused; None for one that can be read, shown and planned with."""
    request = Request(messages=(Message("user", question(1)),), answer="number", budget=Budget(tokens=900))
    situation = Situation(model="tiny", question=question(1), prompt_tokens=30, pool=("small",))
    try:
        loaded = Policy.read(text, "p.json")
        decided = plan(loaded, request, situation)
        assert explained(decided)
        assert str(loaded)
        if decided.arm is not None:
            decided.rule().next()
    except BadInput as error:
        return str(error)
    return None


@given(st.sampled_from(list(places(FULL))), ANYTHING)
@settings(max_examples=300, deadline=None)
def test_any_one_value_changed_works_or_is_refused_in_one_line(place: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(FULL)
    *parents, last = place
    inside = reduce(lambda part, key: part[key], parents, changed)
    if value is MISSING:
        del inside[last]
    else:
        inside[last] = value
    line = used(canonical({"id": digest(changed), **changed}))
    assert line is None or re.fullmatch(r"(policy: ')?p\.json.*; calibrate again .*", line)


def test_a_refusal_names_the_place_and_the_value() -> None:
    task = content()["tasks"][0]
    broken = task | {"arms": [*task["arms"][:3], task["arms"][3] | {"rule": {"kind": "adaptive", "threshold": "0.9"}}]}
    line = r"^policy: tasks\[0\]\.arms\[3\]\.rule\.threshold: '0\.9' is no number; calibrate again"
    with pytest.raises(BadInput, match=line):
        Policy.of(content(tasks=[broken]))


def test_another_revision_of_the_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    policy(revision="r1").save(path)
    assert Policy.load(path, {"tiny": "r1"})
    assert Policy.load(path, {"other": "r2"})
    with pytest.raises(BadInput, match=r"tiny at r1.*r2"):
        Policy.load(path, {"tiny": "r2"})


def held(accuracy: float, problems: int, spread: float) -> HeldOut:
    return HeldOut.of(content()["tasks"][0]["arms"][0]["held_out"] | locals())


@given(st.floats(0, 1), st.integers(2, 1000), st.integers(1, 1000))
def test_prediction_intervals(accuracy: float, problems: int, ahead: int) -> None:
    spread = math.sqrt(accuracy * (1 - accuracy))
    low, high = held(accuracy, problems, spread).predicted(ahead)
    assert 0 <= low <= accuracy <= high <= 1
    assert low < high  # a perfect record promises no perfection
    wider = held(accuracy, problems, spread).predicted(max(1, ahead // 2))
    assert wider[0] <= low + 1e-12
    assert wider[1] >= high - 1e-12


def test_a_prediction_interval_holds_both_errors() -> None:
    low, high = held(0.5, 1000, 0.5).predicted(1000)
    assert (high - low) / 2 == pytest.approx(1.96 * 0.5 * math.sqrt(2 / 1000), rel=0.01)
