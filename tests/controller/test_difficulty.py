"""Difficulty heads: what they say of a prompt, how they are stored, and what the plan tells of them."""

from __future__ import annotations

import json
import subprocess
import sys
from array import array
from dataclasses import replace
from math import exp, inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.controller.difficulty import Difficulty, Probe, heads, load, of, plain, save
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import Situation, explained, plan
from outthink.controller.router.folder import prompt_hash
from outthink.controller.router.model import Block, TextModel, sigmoid
from outthink.controller.router.text import NAMES
from outthink.controller.routing_rules import Routing
from outthink.core.errors import BadInput
from outthink.core.request import Message, Request
from support.policies import content
from support.samples import question

MODELS = ("small", "big")
ABOUT = {"created": "2026-01-01", "data": {"name": "sums"}}


def made(*, terms: bool = False) -> Difficulty:
    """Longer prompts are harder and longer answered; the word `proof` is too hard for the small model."""
    width = len(NAMES)
    rows = tuple((weight, *(0.0,) * (width - 1)) for weight in (-1.0, 0.5, -0.5, 0.5))
    blocks = (Block("word", 9, ("proof",), (3,), tuple(array("d", [value]) for value in (-3.0, 0.1, 0.0, 0.1))),)
    text = TextModel(
        heads=heads(MODELS),
        bias=(0.0, 5.0, 1.0, 5.5),
        mean=(4.0, *(0.0,) * (width - 1)),
        scale=(1.0, *(0.0,) * (width - 1)),
        hand_weight=1.0,
        hand=rows,
        blocks=blocks if terms else (),
        subjects={},
        platt=((1.0, 0.0), (1.0, 0.1), (2.0, 0.0), (1.0, 0.0)),
    )
    return Difficulty("unsaved", MODELS, text, ((0.5, 2.0), (0.8, 1.2)), 5, 100)


def test_a_forecast_is_the_formula() -> None:
    prompt = "x" * 50
    length = made().text.standardised(prompt)[0]
    result = made().forecast(prompt)
    small, big = result.models
    assert small.right == pytest.approx(sigmoid(-length))
    assert small.tokens == pytest.approx(exp(5.1 + 0.5 * length))
    assert (small.tokens_low, small.tokens_high) == pytest.approx((0.5 * small.tokens, 2 * small.tokens))
    assert big.right == pytest.approx(sigmoid(2 * (1 - 0.5 * length)))
    assert result.gain("small", "big") == big.right - small.right
    assert result.chances == [small.right, big.right]
    with pytest.raises(BadInput, match="huge"):
        result.of("huge")


def test_terms_count_and_strange_lengths_are_flagged() -> None:
    heads_ = made(terms=True)
    plain_, proof = heads_.forecast("a long story"), heads_.forecast("a long proof")
    assert proof.of("small").right < plain_.of("small").right
    assert proof.of("big").right == pytest.approx(plain_.of("big").right)
    assert plain_.flags == ()
    assert heads_.forecast("x" * 101).flags == ("101 characters, trained on 5 to 100",)


@settings(deadline=None)
@given(st.text(max_size=3000))
def test_every_prompt_has_a_forecast(prompt: str) -> None:
    for model in made(terms=True).forecast(prompt).models:
        assert 0 <= model.right <= 1
        assert 0 < model.tokens_low < model.tokens < model.tokens_high < inf


def test_routing_over_any_number_of_models_chooses_by_it() -> None:
    chances = made().forecast("x" * 50).chances
    routing = Routing("smallest-likely", 0.0, MODELS, (1.0, 3.0))
    assert routing.choose(chances) == "small"
    assert replace(routing, parameter=1.0001).choose(chances) == "big"
    assert replace(routing, parameter=(chances[0] + chances[1]) / 2).choose(chances) == "big"


def test_a_folder_round_trip_is_byte_identical(tmp_path: Path) -> None:
    save(tmp_path / "one", made(terms=True), ABOUT, [prompt_hash("a proof")])
    result = load(tmp_path / "one")
    assert replace(result, id="unsaved") == made(terms=True)
    assert save(tmp_path / "two", result, ABOUT, [prompt_hash("a proof")]) == result.id
    for name in ("difficulty.json", "terms.json", "prompts.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    text = (tmp_path / "one" / "difficulty.json").read_text()
    (tmp_path / "one" / "difficulty.json").write_text(text.replace("sums", "suns"))
    with pytest.raises(BadInput, match="was changed after it was written"):
        load(tmp_path / "one")
    with pytest.raises(BadInput, match=r"has no difficulty\.json"):
        load(tmp_path / "three")


def test_plain_values_make_the_same_heads_and_refuse_what_is_malformed() -> None:
    values = json.loads(json.dumps(plain(made())))
    assert of(values) == made()
    with pytest.raises(BadInput, match="reads terms"):
        plain(made(terms=True))
    for wrong in ({"model": None}, {"tokens_spread": [[1, 2]]}, {"models": ["small"]}, {"regime": {}}):
        with pytest.raises(BadInput, match="difficulty"):
            of(values | wrong)
    with pytest.raises(BadInput, match="hand features"):
        of(values | {"model": values["model"] | {"hand_features": ["length"]}})
    with pytest.raises(BadInput, match="hand features"):
        of(values | {"model": values["model"] | {"characters_read": 10}})


def test_a_plan_says_what_it_expects_before_the_first_sample() -> None:
    text = question(3)
    policy_content = content()
    policy_content["tasks"][0]["difficulty"] = plain(made())
    request = Request(messages=(Message("user", text),), answer="number")
    policy = Policy.read(Policy.of(policy_content).text)
    lines = explained(plan(policy, request, Situation(model="tiny", question=text, prompt_tokens=20)))
    small = made().forecast(text).of("small")
    wanted = f"believed: small: {small.right:.0%} of samples right, {small.tokens:,.0f} tokens each "
    assert sum(line.startswith(wanted) for line in lines) == 1
    silent = explained(plan(policy, request, Situation(model="tiny", prompt_tokens=20)))
    assert not any("samples right" in line for line in silent)


def test_a_probe_is_a_dot_product() -> None:
    probe = Probe("small", "reader", 2, (0.5, -1.0), 0.25, 1e9)
    assert probe.right([1.0, 2.0]) == pytest.approx(sigmoid(0.5 - 2.0 + 0.25))
    assert Probe.of(json.loads(json.dumps(probe.json()))) == probe
    with pytest.raises(BadInput, match="does not fit the probe's 2"):
        probe.right([1.0])
    with pytest.raises(BadInput, match="is malformed"):
        Probe.of({**probe.json(), "direction": "none"})


def test_applying_loads_neither_numpy_nor_scikit_learn(tmp_path: Path) -> None:
    save(tmp_path, made(terms=True), ABOUT, [])
    code = (
        "import sys, pathlib\n"
        "from outthink.controller.difficulty import load\n"
        f"load(pathlib.Path({str(tmp_path)!r})).forecast('Write a proof')\n"
        "print([name for name in ('numpy', 'sklearn', 'scipy', 'pickle', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
