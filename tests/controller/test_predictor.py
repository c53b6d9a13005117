"""A stored predictor is the trained one, to the last digit, says what its coefficients say, and refuses damage."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from math import exp, inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outthink as ot
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import Situation, explained, plan
from outthink.controller.router.artefact import load, of, plain, prompt_hash, save
from outthink.controller.router.model import Coefficients, sigmoid
from outthink.controller.router.predictor import OperatingPoint, Predictor, PromptLengths, heads
from outthink.controller.router.probe import Probe
from outthink.controller.router.text import NAMES
from outthink.core.errors import BadInput
from outthink.core.request import Message, Request
from support.policies import content
from support.samples import question

MODELS = ("small", "big")
GAINS = (-0.5, 0.0, 0.25, 0.5, 1.0)


def made(*, terms: bool = False, tokens: bool = True, subjects: bool = False) -> Predictor:
    """Longer prompts are harder and longer answered; the word `proof` is too hard for the small model."""
    width, step = len(NAMES), 1 if tokens else 2
    rows = [(weight, *(0.0,) * (width - 1)) for weight in (-1.0, 0.5, -0.5, 0.5)]
    model = Coefficients(
        heads=heads(MODELS, tokens),
        platt=((1.0, 0.0), (1.0, 0.1), (2.0, 0.0), (1.0, 0.0))[::step],
        bias=(0.0, 5.0, 1.0, 5.5)[::step],
        hand_mean=(4.0, *(0.0,) * (width - 1)),
        hand_scale=(1.0, *(0.0,) * (width - 1)),
        hand_weight=1.0,
        hand=tuple(rows[::step]),
        documents={"word": 9} if terms else {},
        subjects={"logic": (1.0, 0.0, -1.0, 0.0)[::step]} if subjects else {},
    )
    return Predictor(
        models=MODELS,
        columns=MODELS,
        parameters=(135_000_000, None),
        tokens_spread=((0.5, 2.0), (0.8, 1.2)) if tokens else None,
        regime=PromptLengths(characters=(5, 100)),
        model=model,
        terms=(("word", "proof", 3, (-3.0, 0.1, 0.0, 0.1)[::step]),) if terms else (),
        operating_point=OperatingPoint(way="strong-weak", parameter=0.25),
        gains=GAINS,
        data={"name": "sums"},
        prompts=(prompt_hash("a proof"),),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "one", made(terms=True))
    return tmp_path / "one"


def test_a_prediction_is_the_formula() -> None:
    prompt = "x" * 50
    length = made().text.standardised(prompt)[0]
    result = made().predict(prompt)
    small, big = result.models
    assert small.chance == pytest.approx(sigmoid(-length))
    assert small.tokens == pytest.approx(exp(5.1 + 0.5 * length))
    assert (small.tokens_low, small.tokens_high) == pytest.approx((0.5 * small.tokens, 2 * small.tokens))
    assert big.chance == pytest.approx(sigmoid(2 * (1 - 0.5 * length)))
    assert result.gain("small", "big") == big.chance - small.chance
    assert result.chances == [small.chance, big.chance]
    untold = made(tokens=False).predict(prompt)
    assert untold.chances == result.chances
    assert untold.of("big").tokens is None
    with pytest.raises(BadInput, match="huge"):
        result.of("huge")


def test_terms_and_subjects_count_and_what_is_strange_is_flagged() -> None:
    predictor = made(terms=True)
    story, proof = predictor.predict("a long story"), predictor.predict("a long proof")
    assert proof.of("small").chance < story.of("small").chance
    assert proof.of("big").chance == pytest.approx(story.of("big").chance)
    assert story.flags == ()
    assert predictor.predict("x" * 101).flags == ("101 characters, trained on 5 to 100",)
    told = made(subjects=True)
    assert told.predict("a story", "logic").of("small").chance > told.predict("a story").of("small").chance
    assert told.predict("a story").flags == ("subject '' is new",)
    assert told.predict("a story", "logic").flags == ()


@settings(deadline=None)
@given(st.text(max_size=3000))
def test_every_prompt_has_a_prediction(prompt: str) -> None:
    for model in made(terms=True).predict(prompt).models:
        assert 0 <= model.chance <= 1
        assert model.tokens_low is not None
        assert model.tokens is not None
        assert model.tokens_high is not None
        assert 0 < model.tokens_low < model.tokens < model.tokens_high < inf


def test_a_round_trip_is_byte_identical_and_equal_predictors_are_equal_bytes(folder: Path, tmp_path: Path) -> None:
    result = load(folder)
    assert replace(result, id="unsaved") == made(terms=True)
    assert load(folder / "predictor.json") == result
    assert save(tmp_path / "two", result) == result.id == save(tmp_path / "three", made(terms=True))
    texts = {(tmp_path / name / "predictor.json").read_bytes() for name in ("one", "two", "three")}
    assert len(texts) == 1
    assert '\n["word", "proof", 3, [-3.0, 0.1, 0.0, 0.1]]\n' in texts.pop().decode(), "one term a line"


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_changed_character_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("changed")
    save(folder, made(terms=True))
    text = (folder / "predictor.json").read_text()
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda letter: letter != text[place]))
    (folder / "predictor.json").write_text(text[:place] + other + text[place + 1 :], newline="")
    with pytest.raises(BadInput, match=r"changed after it was written|has schema_version") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_changed_line_end_is_refused(folder: Path) -> None:
    file = folder / "predictor.json"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r", 1))
    with pytest.raises(BadInput, match="changed after it was written"):
        load(folder)


def test_another_version_is_refused(folder: Path) -> None:
    values = json.loads((folder / "predictor.json").read_text())
    (folder / "predictor.json").write_text(json.dumps({**values, "schema_version": 99}))
    with pytest.raises(BadInput, match=r"schema_version 99, this is 2; train it again"):
        load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version"', "\x00"])
def test_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "predictor.json").write_text(text)
    with pytest.raises(BadInput, match=r"is no predictor\.json"):
        load(tmp_path)


def test_missing_and_former_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist; give the file or folder"):
        load(tmp_path / "none")
    with pytest.raises(BadInput, match=r"has no predictor\.json"):
        load(tmp_path)
    for name in ("router.json", "difficulty.json"):
        (tmp_path / name).write_text('{"schema_version": 1}')
        for path in (tmp_path, tmp_path / name):
            with pytest.raises(BadInput, match=r"holds the .*\.json of an earlier version; train it again"):
                load(path)
        (tmp_path / name).unlink()


def test_prompts_are_equal_up_to_case_and_spaces() -> None:
    assert prompt_hash(" Write  a\nproof ") == prompt_hash("write a proof")
    assert prompt_hash("write a proof") != prompt_hash("write a proof.")


def test_a_choice_is_the_operating_point_among_the_models_at_hand() -> None:
    predictor = replace(made(), costs=(1.0, 3.0))
    prompt = "x" * 50
    gain = predictor.predict(prompt).gain("small", "big")
    assert predictor.at(f"strong-weak={gain}").choose(prompt).model == "big"
    assert predictor.at(f"strong-weak={gain + 1e-9}").choose(prompt).model == "small"
    assert predictor.at("smallest-likely=0").choose(prompt).model == "small"
    assert predictor.at("penalised=2").choose(prompt).model == "small"
    assert predictor.at("penalised=0").choose(prompt, among=("big", "small", "else")).model == "big"
    with pytest.raises(BadInput, match=r"knows small, big, and at hand are big, else"):
        predictor.choose(prompt, among=("big", "else"))
    with pytest.raises(BadInput, match="has no operating point"):
        replace(predictor, operating_point=None).choose(prompt)


def test_a_share_becomes_the_threshold_that_gives_it_in_training() -> None:
    predictor = made()
    assert [predictor.threshold(share) for share in (0.5, 0.125, 0, 1)] == [0.25, 0.75, 2.0, -2.0]
    assert predictor.at("strong-share=0.5").operating_point == OperatingPoint(way="strong-weak", parameter=0.25)
    for point in ("strong-share=2", "penalised", "penalised=x", "nearest=1", "", "penalised=nan"):
        with pytest.raises(BadInput, match="operating point"):
            predictor.at(point)
    with pytest.raises(BadInput, match="is for a weak and a strong model"):
        replace(predictor, gains=None).at("strong-share=0.5")


def test_plain_values_make_the_same_heads_and_refuse_what_is_malformed() -> None:
    values = json.loads(json.dumps(plain(made())))
    result = of(values)
    assert (result.model, result.tokens_spread, result.regime) == (made().model, made().tokens_spread, made().regime)
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
    small = made().predict(text).of("small")
    wanted = f"believed: small: {small.chance:.0%} of samples right, {small.tokens:,.0f} tokens each "
    assert sum(line.startswith(wanted) for line in lines) == 1
    silent = explained(plan(policy, request, Situation(model="tiny", prompt_tokens=20)))
    assert not any("samples right" in line for line in silent)


def test_a_probe_is_a_dot_product() -> None:
    probe = Probe("small", "reader", 2, (0.5, -1.0), 0.25, 1e9)
    assert probe.right([1.0, 2.0]) == pytest.approx(sigmoid(0.5 - 2.0 + 0.25))
    assert Probe.of(json.loads(json.dumps(probe.json()))) == probe
    with pytest.raises(BadInput, match="does not fit the probe's 2"):
        probe.right([1.0])
    with pytest.raises(BadInput, match="probe: direction: 'none' is no list; fit it again"):
        Probe.of({**probe.json(), "direction": "none"})


@pytest.mark.parametrize("name", ["load_router", "load_choice_router", "load_difficulty"])
def test_former_names_load_it_for_one_version(folder: Path, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"outthink.{name} is outthink.load_predictor now"):
        found = getattr(ot, name)
    assert found(folder) == ot.load_predictor(folder)


def test_applying_loads_neither_numpy_nor_scikit_learn(folder: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from outthink.controller.router import load\n"
        f"load(pathlib.Path({str(folder)!r})).choose('Write a proof')\n"
        "print([name for name in ('numpy', 'sklearn', 'scipy', 'pickle', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
