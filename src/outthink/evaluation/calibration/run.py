"""From files of samples to a policy: fitted, measured on held-out problems, described.

Knows: the order of the steps (fit rules, offer cascades, replay both on held-out problems, choose) and what the policy
file says. Does not know how rules are fitted or how a policy is applied.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import SupportsFloat

import numpy as np

from outthink.controller.policy.arms import HeldOut, prediction
from outthink.controller.policy.artefact import SCHEMA, Policy
from outthink.controller.policy.promise import Promise, weakest
from outthink.core.errors import BadInput
from outthink.core.plugins import need_extra
from outthink.economics.price import Price
from outthink.engines.protocol import Speed
from outthink.engines.traces import Traces, load
from outthink.evaluation.calibration.cascade import Offer, offers
from outthink.evaluation.calibration.contenders import AutoContender, fit_source, held_out, lineup
from outthink.evaluation.calibration.fit import FittedRules
from outthink.evaluation.calibration.losses import LossMatrix
from outthink.evaluation.calibration.regime import drift_values, fingerprint, refuse_unusable, regime_of
from outthink.evaluation.calibration.scored_votes import with_scores
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.dataset import SampleSet, open_source, replayable, weights_of
from outthink.evaluation.replay import Array, Contender, Lineup, Outcomes, ReplaySettings, replay
from outthink.evaluation.routing.samples import for_policy
from outthink.evaluation.rows import LADDER
from outthink.evaluation.sample_file import JsonObject
from outthink.strategies import Spec
from outthink.strategies.defaults import CONTROLS

_SPLITS = 200
_FEW = 50
_LASTS = datetime.timedelta(days=365)
"""Models on servers change without a word; after this time a policy should be checked or made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRecipe:
    """How to calibrate.

    Args:
        orders: random orders of each problem's samples that figures are means over.
        parameters: weights read per token by model, where its samples do not say them, or others are wanted.
        price: dollars a token, for costs in usd.
        verifier: NAME, PATH or URL of the one whose scores the samples carry, None to vote without.
    """

    target: Target
    folds: int = 5
    seed: int = 0
    orders: int = 5
    parameters: Mapping[str, int] = field(default_factory=dict)
    price: Price | None = None
    speed: Speed = field(default_factory=Speed)
    workers: int | None = None
    verifier: str | None = None

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
    problems: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Policy:
    """Fit a policy and measure it on held-out problems.

    Args:
        problems: file of the problems, None for the one beside each file of samples.
        progress: called with (parts replayed, parts in all).
        say: receives one line for each file that is skipped and each thing worth knowing.

    Raises BadInput for samples that nothing can be learned from, for a target that cannot be met, and without the
    `calibrate` extra.
    """
    need_extra("calibrate", "verb", "calibrate")  # difficulty heads are fitted last, minutes after the start
    sources = [_source(path, recipe, problems) for path in replayable(paths, say, "hold no usable samples")]
    refuse_unusable(sources)
    for source in sources:
        source.traces.parameters = recipe.parameters.get(source.traces.model, source.traces.parameters)
        if len(source.traces.problems) < recipe.folds:
            raise BadInput(
                "--folds", recipe.folds, f"is more than the problems of {source.traces.path}", "give fewer folds"
            )
    judged = recipe.verifier is not None
    fits = [fit_source(source, recipe.target, recipe.folds, recipe.seed, judged=judged) for source in sources]
    offered = offers(sources, fits, recipe.target, recipe.folds, recipe.seed, say)
    lineups = [
        Lineup(
            source.traces,
            _controls(source.traces.depth),
            [*lineup(source, fitted), *_judged_lineup(source, fitted), *([offer.auto] if offer and offer.auto else [])],
            (offer.pool,) if offer and offer.pool else (),
        )
        for source, fitted, offer in zip(sources, fits, offered, strict=True)
    ]
    settings = ReplaySettings(seeds=recipe.orders, speed=recipe.speed, workers=recipe.workers)
    # Controls and arms go through one replay: same orders, same ties, so that their differences are paired.
    results = replay(lineups, settings, progress)
    tasks = []
    for source, fitted, offer, outcomes in zip(sources, fits, offered, results, strict=True):
        alone = [outcome for outcome in outcomes if not _is_judged(outcome.spec)]
        losses = recipe.target.losses(alone, list(source.traces.problems), recipe.price)
        tasks.append(_task(source, fitted, offer, recipe, _measured(outcomes, recipe.price), losses, say))
    return Policy.of(_content(sources, recipe, tasks))


def _source(path: Path, recipe: CalibrationRecipe, problems: Path | None) -> SampleSet:
    """The samples of a file, with the verifier's scores where there is to be one."""
    traces = None if recipe.verifier is None else with_scores(load(path), recipe.verifier, problems)
    return open_source(path, traces, problems=problems)


def _judged_lineup(source: SampleSet, fitted: FittedRules) -> list[AutoContender]:
    """The arm whose votes a verifier weighs, on held-out problems; none where there is none."""
    if fitted.judged is None:
        return []
    return [replace(auto, judged=True) for auto in lineup(source, fitted.judged)]


def _is_judged(spec: Contender) -> bool:
    return isinstance(spec, AutoContender) and spec.judged


def _controls(depth: int) -> list[Spec]:
    sizes = [n for n in LADDER if n <= depth]
    return [Spec.parse(name).sized(n) for name in CONTROLS for n in sizes]


_Figures = tuple[Contender, Array, HeldOut]
"""What was replayed, values[measure, problem], and their means on held-out problems."""


def _measured(outcomes: Sequence[Outcomes], price: Price | None) -> list[_Figures]:
    dollars = None if price is None else lambda prompt, made: round(price.cost(round(prompt), 0, round(made)), 12)
    return [(outcome.spec, outcome.values, held_out(outcome.values, dollars)) for outcome in outcomes]


def _task(
    source: SampleSet,
    fitted: FittedRules,
    offer: Offer | None,
    recipe: CalibrationRecipe,
    measured: Sequence[_Figures],
    losses: LossMatrix[int],
    say: Callable[[str], None],
) -> JsonObject:
    """One task of the policy: rules, what they did on held-out problems, and what they were fitted on."""
    rules, promises = dict(fitted.rules), dict(fitted.promises)
    arms = {
        spec.n: (values, held) for spec, values, held in measured if isinstance(spec, AutoContender) and not spec.judged
    }
    controls = [(spec, held) for spec, _, held in measured if isinstance(spec, Spec)]
    alone = [place for place, n in enumerate(losses.arms) if n in rules]
    chosen, promise = recipe.target.choose(losses.only(alone), promises)
    notes = [*fitted.notes, *_notes(source)]
    if offer is not None:
        notes.append(offer.note)
        if offer.rule is not None and offer.auto is not None and offer.promise is not None:
            chosen, promise = offer.auto.n, offer.promise
            rules[chosen] = offer.rule
    if promise is not None:
        promises[chosen] = promise
    for note in [*notes, *(promise.words() if promise is not None and not promise.kept else ())]:
        say(f"{source.traces.path.name}: {note}")
    traces = source.traces
    return {
        "model": traces.model,
        "dataset": traces.dataset,
        "answer": source.answer,
        "traces": _made_of(traces),
        "chosen": chosen,
        "promise": None if promise is None else promise.json(),
        "frontier": _frontier(fitted, recipe.target),
        "arms": [
            {
                "n": n,
                "rule": rules[n].json(),
                "promise": promises[n].json() if n in promises else None,
                "held_out": arms[n][1].json(),
                "coverage": _coverage(arms[n][0], recipe),
            }
            for n in sorted(rules)
        ],
        "controls": [{"strategy": spec.canonical, "n": spec.n, "held_out": held.json()} for spec, held in controls],
        "coverage": _coverage(arms[chosen][0], recipe),
        "verifier": _verifier(source, fitted, measured, recipe),
        "regime": regime_of(source).json(),
        "difficulty": for_policy(source, folds=recipe.folds, seed=recipe.seed),
        "drift": _drift(source, arms[max(fitted.rules)][1]),
        "problems": sorted(source.problem_marks.values()),
        "questions": sorted(source.question_marks.values()),
        "notes": notes,
    }


def _made_of(traces: Traces) -> JsonObject:
    """Which samples a task was fitted on."""
    return {
        "file": traces.path.name,
        "fingerprint": fingerprint(traces),
        "samples": traces.depth,
        "answers": "as recorded",
    }


def _verifier(
    source: SampleSet, fitted: FittedRules, measured: Sequence[_Figures], recipe: CalibrationRecipe
) -> JsonObject | None:
    """The arm that is chosen where the verifier is at hand, and that verifier; None where it is left out."""
    scoring = source.traces.scoring
    if fitted.judged is None or scoring is None:
        return None
    ((n, rule),) = fitted.judged.rules.items()
    values, held = next((values, held) for spec, values, held in measured if _is_judged(spec))
    plain = dict(rule.json())
    about = {"id": scoring.id, "model": scoring.model or scoring.id, "parameters": scoring.parameters}
    about |= plain.pop("judging")
    arm = {"n": n, "rule": plain, "promise": fitted.judged.promises[n].json(), "held_out": held.json()}
    return {**about, "arm": {**arm, "coverage": _coverage(values, recipe)}}


def _frontier(fitted: FittedRules, target: Target) -> list[dict[str, float | None]]:
    """What other margins would buy, where self-consistency is to be matched."""
    if target.kind != "match":
        return []
    return fitted.rungs[int(target.value)].frontier()


def _notes(source: SampleSet) -> list[str]:
    notes = []
    if source.questions is None:
        notes.append("no problems file beside the samples, so only lengths and votes decide")
    if source.sampling is None:
        notes.append("how the samples were drawn is not recorded in the file")
    if len(source.traces.problems) < _FEW:
        notes.append(f"fewer than {_FEW} problems: too few to tell rules apart, and intervals are wide")
    return notes


def _coverage(values: Array, recipe: CalibrationRecipe) -> JsonObject:
    """How often the mean of one random half lies in the interval that the other half predicts."""
    rng = np.random.default_rng(recipe.seed)
    accuracy = values[0]
    half = len(accuracy) // 2
    covered = 0
    for _ in range(_SPLITS):
        order = rng.permutation(len(accuracy))
        here, there = accuracy[order[:half]], accuracy[order[half:]]
        # A confidence interval of the mean would cover the other half only 83 % of the time: that half errs, too.
        low, high = prediction(float(here.mean()), float(here.std()), len(here), len(there))
        covered += bool(low <= there.mean() <= high)
    return {"splits": _SPLITS, "covered": covered, "stated": 0.95}


def _drift(source: SampleSet, widest: HeldOut) -> JsonObject:
    """What new samples should look like: means over problems with their spreads, and when to raise an alarm."""
    return {
        **{name: _expected(np.mean(values), np.std(values)) for name, values in drift_values(source).items()},
        "accuracy": _expected(widest.accuracy, widest.spread),
        "alarm": "a mean over m problems further away than 4 spreads / sqrt(m) + 0.25 spreads",
    }


def _expected(mean: SupportsFloat, spread: SupportsFloat) -> dict[str, float]:
    return {"mean": round(float(mean), 6), "spread": round(float(spread), 6)}


def _content(sources: Sequence[SampleSet], recipe: CalibrationRecipe, tasks: list[JsonObject]) -> JsonObject:
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
        "promise": _whole(tasks),
        "models": len(models),
        "pool": [_model(model, [source for source in sources if source.traces.model == model]) for model in models],
        "speed": asdict(recipe.speed),
        "prices": None if price is None else {"date": today.isoformat(), "text": f"{price.input:g},{price.output:g}"},
        "tasks": tasks,
    }


def _whole(tasks: Sequence[JsonObject]) -> JsonObject | None:
    """What the policy promises of any of its tasks: what the weakest one does; None where one promises nothing."""
    promises = [Promise(**task["promise"]) for task in tasks if task["promise"] is not None]
    weak = weakest(promises)
    return dict(weak.json()) if weak is not None and len(promises) == len(tasks) else None


def _model(model: str, sources: Sequence[SampleSet]) -> JsonObject:
    about = next((source.about for source in sources if source.about), {})
    return {
        "model": model,
        "served_as": about.get("model"),
        "revision": about.get("revision"),
        "parameters": weights_of(sources[0].traces),
        "sampling": about.get("sampling"),
        "style": about.get("style"),
        "system": about.get("system"),
    }
