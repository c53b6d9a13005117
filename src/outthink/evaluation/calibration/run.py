"""From files of samples to a policy: fitted, measured on held-out problems, described.

Knows: the order of the steps and what the policy file says. Does not know how rules are fitted or
how a policy is applied.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from outthink.controller.policy.artefact import SCHEMA, HeldOut, Policy
from outthink.core.errors import BadInput
from outthink.economics.price import Price
from outthink.economics.tariff import active_parameters
from outthink.engines.simulated import Speed
from outthink.engines.traces import missing
from outthink.evaluation.calibration.cascade import Offer, offers, worth
from outthink.evaluation.calibration.check import agreement
from outthink.evaluation.calibration.crossed import fitted, held_out, lineup
from outthink.evaluation.calibration.fit import FittedRules
from outthink.evaluation.calibration.source import Source, fingerprint, open_source, refuse_unusable, regime_of
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.compare import CompareSettings, Lineup, replay
from outthink.evaluation.routing.difficulty_run import for_policy
from outthink.evaluation.rows import BASELINE, LADDER, Array
from outthink.strategies import Spec

_SPLITS = 200
_FEW = 50
_LASTS = datetime.timedelta(days=365)
"""Models on servers change without a word; after this time a policy should be checked or made again."""
_CONTROL = "adaptive-consistency"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRecipe:
    """How to calibrate.

    Args:
        orders: random orders of each problem's samples that figures are means over.
        price: dollars a token, for costs in usd.
    """

    target: Target
    folds: int = 5
    seed: int = 0
    orders: int = 5
    price: Price | None = None
    speed: Speed = field(default_factory=Speed)
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise BadInput("--folds", self.folds, "is below 2", "give at least 2")
        if self.orders < 1:
            raise BadInput("--orders", self.orders, "is below 1", "give at least 1")
        if self.seed < 0:
            raise BadInput("--seed", self.seed, "is below 0", "give at least 0")


def calibrate(
    paths: Sequence[Path],
    recipe: CalibrationRecipe,
    *,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Policy:
    """Fit a policy and measure it on held-out problems.

    Args:
        progress: called with (parts replayed, parts in all).
        say: receives one line for each file that is skipped and each thing worth knowing.

    Raises BadInput for samples that nothing can be learned from, and for a target that cannot be met.
    """
    sources = _sources(paths, say)
    refuse_unusable(sources)
    for source in sources:
        if len(source.traces.problems) < recipe.folds:
            raise BadInput(
                "--folds", recipe.folds, f"is more than the problems of {source.traces.path}", "give fewer folds"
            )
    fits = [fitted(source, recipe.target, recipe.folds, recipe.seed) for source in sources]
    taken = sorted({n for found in fits for n in found.rules})
    offered = offers(sources, recipe.target, recipe.folds, recipe.seed, taken, say)
    lineups = [
        Lineup(
            source.traces,
            _controls(source.traces.depth),
            [*lineup(source, found), *([offer.auto] if offer else [])],
            (offer.pool,) if offer else (),
        )
        for source, found, offer in zip(sources, fits, offered, strict=True)
    ]
    settings = CompareSettings(seeds=recipe.orders, speed=recipe.speed, workers=recipe.workers)
    results = replay(lineups, settings, progress)
    tasks = []
    for source, found, offer, plan, outcomes in zip(sources, fits, offered, lineups, results, strict=True):
        values = [one.values for one in outcomes]
        count = len(plan.specs)
        controls = list(zip(plan.specs, values[:count], strict=True))
        rungs = {auto.n: each for auto, each in zip(plan.autos, values[count:], strict=True)}
        tasks.append(_task(source, found, offer, recipe, controls, rungs, say))
    return Policy.of(_content(sources, recipe, tasks))


def _sources(paths: Sequence[Path], say: Callable[[str], None]) -> list[Source]:
    found = []
    for path in paths:
        absent = missing(path)
        if absent:
            say(f"skipped {path}: it lacks {', '.join(absent)}")
        else:
            found.append(open_source(Path(path)))
    if not found:
        raise BadInput("traces", [str(p) for p in paths], "hold no usable samples", "give files made by record")
    return found


def _controls(depth: int) -> list[Spec]:
    sizes = [n for n in LADDER if n <= depth]
    return [Spec.parse(name).sized(n) for name in (BASELINE, _CONTROL) for n in sizes]


def _task(
    source: Source,
    found: FittedRules,
    offer: Offer | None,
    recipe: CalibrationRecipe,
    controls: Sequence[tuple[Spec, Array]],
    rungs: dict[int, Array],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """One task of the file: rules, what they did on held-out problems, and what they were fitted on."""
    price = recipe.price
    dollars = None if price is None else lambda prompt, made: round(price.cost(round(prompt), 0, round(made)), 12)
    held = {n: held_out(values, dollars) for n, values in rungs.items()}
    rules = dict(found.rules)
    control = [(spec, held_out(values, dollars)) for spec, values in controls]
    baseline = {spec.n: figures for spec, figures in control if spec.canonical == BASELINE}
    chosen = recipe.target.choose({n: held[n] for n in rules}, baseline)
    notes = [*found.notes, *_notes(source)]
    if offer is not None:
        goal = baseline[int(recipe.target.value)].accuracy
        pays, told = worth(rungs[offer.auto.n], rungs[chosen], goal, recipe.target.margin)
        notes.append(told)
        if pays:
            chosen = offer.auto.n
            rules[chosen] = offer.cascade
    for note in notes:
        say(f"{source.traces.path.name}: {note}")
    traces = source.traces
    return {
        "model": traces.model,
        "dataset": traces.dataset,
        "answer": source.answer,
        "traces": {
            "file": traces.path.name,
            "fingerprint": fingerprint(traces),
            "samples": traces.depth,
            "answers": "as recorded",
        },
        "chosen": chosen,
        "arms": [
            {"n": n, "rule": rules[n].json(), "held_out": held[n].json(), "coverage": _coverage(rungs[n], recipe)}
            for n in sorted(rules)
        ],
        "controls": [
            {"strategy": spec.canonical, "n": spec.n, "held_out": figures.json()} for spec, figures in control
        ],
        "coverage": _coverage(rungs[chosen], recipe),
        "regime": regime_of(source).json(),
        "difficulty": for_policy(source, folds=recipe.folds, seed=recipe.seed),
        "drift": _drift(source, held[max(found.rules)]),
        "problems": sorted(source.problem_marks.values()),
        "questions": sorted(source.question_marks.values()),
        "notes": notes,
    }


def _notes(source: Source) -> list[str]:
    notes = []
    if source.questions is None:
        notes.append("no problems file beside the samples, so only lengths and votes decide")
    if source.sampling is None:
        notes.append("how the samples were drawn is not recorded in the file")
    if len(source.traces.problems) < _FEW:
        notes.append(f"fewer than {_FEW} problems: too few to tell rules apart, and intervals are wide")
    return notes


def _coverage(values: Array, recipe: CalibrationRecipe) -> dict[str, Any]:
    """How often the mean of one random half lies in the interval that the other half predicts."""
    rng = np.random.default_rng(recipe.seed)
    accuracy = values[0]
    half = len(accuracy) // 2
    covered = 0
    for _ in range(_SPLITS):
        order = rng.permutation(len(accuracy))
        here, there = accuracy[order[:half]], accuracy[order[half:]]
        low, high = spread_of(here).predicted(len(there))
        covered += bool(low <= there.mean() <= high)
    return {"splits": _SPLITS, "covered": covered, "stated": 0.95}


def spread_of(accuracy: Array) -> HeldOut:
    """Accuracy and spread alone, for a prediction."""
    mean, zero = float(accuracy.mean()), 0.0
    return HeldOut(
        problems=len(accuracy),
        accuracy=mean,
        accuracy_low=mean,
        accuracy_high=mean,
        spread=float(accuracy.std()),
        tokens=zero,
        tokens_low=zero,
        tokens_high=zero,
        prompt_tokens=None,
        samples=zero,
        seconds=None,
        flops=None,
    )


def _drift(source: Source, widest: HeldOut) -> dict[str, Any]:
    """What new samples should look like: means over problems with their spreads, and when to raise an alarm."""
    problems = list(source.traces.problems.values())
    agreed = [agreement([sample.answer for sample in problem.sampled]) for problem in problems]
    length = [np.mean([sample.tokens or 0 for sample in problem.sampled]) for problem in problems]
    return {
        "agreement": _expectation(agreed),
        "sample_tokens": _expectation(length),
        "accuracy": _expectation_of(widest),
        "alarm": "a mean over m problems further away than 4 spreads / sqrt(m) + 0.25 spreads",
    }


def _expectation(values: Sequence[Any]) -> dict[str, float]:
    return {"mean": round(float(np.mean(values)), 6), "spread": round(float(np.std(values)), 6)}


def _expectation_of(held: HeldOut) -> dict[str, float]:
    return {"mean": round(held.accuracy, 6), "spread": round(held.spread, 6)}


def _content(sources: Sequence[Source], recipe: CalibrationRecipe, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    models = list(dict.fromkeys(source.traces.model for source in sources))
    price = recipe.price
    today = datetime.datetime.now(datetime.UTC).date()
    return {
        "schema_version": SCHEMA,
        "created": today.isoformat(),
        "expires": (today + _LASTS).isoformat(),
        "code": f"outthink {version('outthink')}",
        "seed": recipe.seed,
        "folds": recipe.folds,
        "orders": recipe.orders,
        "target": recipe.target.json(),
        "models": len(models),
        "pool": [_member(model, [one for one in sources if one.traces.model == model]) for model in models],
        "speed": asdict(recipe.speed),
        "prices": None if price is None else {"date": today.isoformat(), "text": f"{price.input:g},{price.output:g}"},
        "tasks": tasks,
    }


def _member(model: str, sources: Sequence[Source]) -> dict[str, Any]:
    about = next((source.about for source in sources if source.about), {})
    return {
        "model": model,
        "served_as": about.get("model"),
        "revision": about.get("revision"),
        "parameters": active_parameters(model),
        "sampling": about.get("sampling"),
        "style": about.get("style"),
        "system": about.get("system"),
    }
