"""`outthink router train` and `outthink router eval` without their command line, for two models and for several.

Knows: the order of reading, refusing, training, writing and measuring, the ways of routing with their parameters, and
labels read again from the responses (how much of a figure is noise of the grading). Does not know flags or solvers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from outthink.answers import canonical_key, grade_many
from outthink.controller.router.folder import ROUTERS, load, load_choice, prompt_hash
from outthink.controller.router.model import TextModel
from outthink.controller.routing_rules import Routing, Way
from outthink.core.errors import BadInput
from outthink.evaluation.routing.data import (
    CORE_HOUR,
    Floats,
    Ints,
    ManyData,
    RoutingData,
    fold_of,
    groups,
    names_models,
    need_subjects,
    provenance,
    read_columns,
    read_data,
    read_many,
    read_routing,
)
from outthink.evaluation.routing.figures import drawn, interval_columns
from outthink.evaluation.routing.report import Report, Routed, evaluate, route_row, routed, target_figures
from outthink.evaluation.routing.training import Corpus, RouterRecipe, fit
from outthink.evaluation.sample_file import JsonObject

PARAMETERS: dict[Way, tuple[float, ...]] = {
    "penalised": (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0001),
    # Above 1 no chance is enough: the dearest model alone, whose row it has to reproduce, cost included.
    "smallest-likely": (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0001),
}
"""What the table shows of each way."""
PRICES = (*np.linspace(0.0, 1.0, 41).tolist(), 2.0)
"""Of `penalised`, for the area over cost."""


_HELD_OUT = ("apgr", "apgr_low", "apgr_high", "cpt50", "cpt80", "ece", "paired_low", "paired_high")
_HELD_OUT_MANY = ("accuracy", "auc_cost", "paired_low", "paired_high", "ece")


def train(path: Path, out: Path, recipe: RouterRecipe) -> tuple[str, Report]:
    """Train on a file and write the router; its id, and what its held-out training prompts say of it.

    Raises BadInput for unusable data, a folder that holds something else, or where scikit-learn is missing.
    """
    if out.exists() and not out.is_dir():
        raise BadInput("--out", str(out), "is a file", "give a folder")
    data = read_data(path)
    group = groups(data.prompts)
    fitted = fit(data, Corpus(data.prompts), np.arange(len(data)), group, recipe)
    report = _report(data, fitted.held_out, None)
    lengths = [len(prompt) for prompt in data.prompts]
    regime = {"characters": [min(lengths), max(lengths)]}
    about: JsonObject
    if isinstance(data, ManyData):
        about = {
            "data": {"name": data.name, "n": len(data), "dropped_contaminated": data.dropped},
            "costs": data.costs.mean(axis=0).tolist(),
            "held_out": {key: report[key] for key in _HELD_OUT_MANY},
            "regime": regime,
        }
    else:
        gains = np.quantile(fitted.held_out[:, 1] - fitted.held_out[:, 0], np.linspace(0, 1, 101))
        about = {
            "data": {
                "name": data.name,
                "n": len(data),
                "prompts": report["prompts"],
                "dropped_contaminated": data.dropped,
                "weak": report["weak"],
                "strong": report["strong"],
            },
            "held_out": {
                **{key: report[key] for key in _HELD_OUT},
                "length_apgr": report["controls"]["length"]["apgr"],
                "random_apgr_sd": report["controls"]["random"]["apgr_sd"],
                "targets": report["targets"],
            },
            "regime": regime,
            "gains": gains.tolist(),
        }
    about = {**provenance(asdict(recipe)), **about}
    return ROUTERS.save(out, fitted.model, about, map(prompt_hash, data.prompts)), report


def held_out(path: Path, folder: Path, *, gold: Path | None = None) -> Report:
    """Evaluate a stored router on prompts that it was not trained on.

    Args:
        gold: problems with gold answers: figures on labels read from the responses stand beside.

    Raises BadInput where a prompt was trained on, for an unusable router, unusable data or other models.
    """
    if names_models(path):
        return _held_out_many(path, folder)
    router = load(folder)
    data = read_routing(path)
    _refuse_trained(path, data.prompts, folder)
    if router.reads_subject:
        need_subjects(data)
    began = time.process_time()
    believed = [router.believe(prompt, subject) for prompt, subject in zip(data.prompts, data.subjects, strict=True)]
    seconds = time.process_time() - began
    beliefs = np.array([(belief.weak, belief.strong) for belief in believed])
    flagged = sum(bool(belief.flags) for belief in believed)
    report = _with_regraded(path, data, beliefs, 1000 * seconds / len(data), gold)
    name = ROUTERS.read_card(folder)["data"]["name"]
    return {**report, "router": router.id, "trained_on": name, "out_of_regime": flagged}


def _held_out_many(path: Path, folder: Path) -> Report:
    router, data = load_choice(folder), read_many(path)
    if set(router.models) != set(data.models):
        raise BadInput("data", ", ".join(data.models), f"are not the router's {', '.join(router.models)}", "train anew")
    _refuse_trained(path, data.prompts, folder)
    chances, milliseconds = _applied(router.text, data.prompts, range(len(data)))
    order = [router.models.index(model) for model in data.models]
    return {**evaluate_many(data, chances[:, order], router_ms=milliseconds), "router": router.id}


def cross_fitted(
    path: Path,
    recipe: RouterRecipe,
    *,
    folds: int = 5,
    gold: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Evaluate the recipe: each fold's prompts by a router trained on the other folds, calibration included."""
    data = read_data(path)
    group, corpus = groups(data.prompts), Corpus(data.prompts)
    fold = fold_of(group, folds, recipe.seed)
    chances, spent = np.empty((len(data), len(data.models))), 0.0
    for part in range(folds):
        rows = np.flatnonzero(fold == part)
        model = fit(data, corpus, np.flatnonzero(fold != part), group, recipe).model
        chances[rows], milliseconds = _applied(model, data.prompts, rows, data.subjects)
        spent += milliseconds * len(rows)
        if progress is not None:
            progress(part + 1, folds)
    report = _with_regraded(path, data, chances, spent / len(data), gold)
    return {**report, "folds": folds, "seed": recipe.seed, "recipe": asdict(recipe)}


def recipe_of(folder: Path) -> RouterRecipe:
    """How a stored router was trained."""
    return RouterRecipe(**ROUTERS.read_card(folder)["recipe"])


def _report(data: RoutingData | ManyData, chances: Floats, router_ms: float | None) -> Report:
    if isinstance(data, ManyData):
        return evaluate_many(data, chances, router_ms=router_ms)
    return evaluate(data, chances, groups(data.prompts), router_ms=router_ms)


def _with_regraded(
    path: Path, data: RoutingData | ManyData, chances: Floats, router_ms: float, gold: Path | None
) -> Report:
    report = _report(data, chances, router_ms)
    if gold is not None and isinstance(data, RoutingData):
        part, rows = _regraded(data, path, gold)
        report["regraded"] = _report(part, chances[rows], router_ms)
        report["same_rows_as_given"] = _report(data.take(rows), chances[rows], router_ms)
    return report


def evaluate_many(
    data: ManyData, chances: Floats, *, router_ms: float | None, resamples: int = 1000, seed: int = 0
) -> Report:
    """Figures of chances on rows that they were not fitted on.

    Args:
        chances: (rows, models).
        router_ms: processor time a request, charged at `data.CORE_HOUR`: costs are dollars.

    Returns:
        `n`, `models`, `accuracy` and `cost` of each model, `auc_cost` (mean accuracy over the span of costs from
        the cheapest to the dearest model, by the cost-penalised choice) with `_low` and `_high`,
        `paired_low`, `paired_high` (minus that of the best random mixes), `ece` (mean over models), `router_ms`,
        `controls` {`random`, `oracle`}, `routes` (a row for each way and parameter), `targets`.
    """
    counts = drawn(groups(data.prompts), resamples=resamples, seed=seed)
    router = (router_ms or 0.0) / 3.6e6 * CORE_HOUR
    mean = tuple(data.costs.mean(axis=0).tolist())
    if mean[0] >= mean[-1]:
        raise BadInput(f"data {data.name}", mean[0], "is the cost of every model: there is no trade", "check the costs")
    everyone = np.ones((1, len(data)))
    area, drawn_area = (_area(data, chances, router, weight) for weight in (everyone, counts))
    mix, drawn_mix = (_mixes(data, weight) for weight in (everyone, counts))
    targets = target_figures(data, chances)
    return {
        "n": len(data),
        "models": list(data.models),
        "accuracy": dict(zip(data.models, data.right.mean(axis=0).tolist(), strict=True)),
        "cost": dict(zip(data.models, mean, strict=True)),
        "auc_cost": float(area[0]),
        **interval_columns("auc_cost", drawn_area),
        **interval_columns("paired", drawn_area - drawn_mix),
        "ece": float(np.mean([target["ece"] for target in targets.values()])),
        "router_ms": router_ms,
        "dropped_contaminated": data.dropped,
        "controls": {
            "random": {"auc_cost": float(mix[0])},
            "oracle": {
                "auc_cost": float(_area(data, data.right, 0.0, everyone)[0]),
                "accuracy": float(data.right.max(axis=1).mean()),
            },
        },
        "routes": _routes(data, chances, router, counts),
        "targets": targets,
    }


def _routes(data: ManyData, chances: Floats, router: float, counts: Floats) -> list[JsonObject]:
    """A row for each way and parameter."""
    rows = []
    for way, parameters in PARAMETERS.items():
        for parameter in parameters:
            row = route_row(_routed(data, chances, way, parameter, router), data.right, data.costs, counts)
            rows.append({"way": way, "parameter": parameter, **row})
    return rows


def _routed(data: ManyData, chances: Floats, way: Way, parameter: float, router: float) -> Routed:
    mean = tuple(data.costs.mean(axis=0).tolist())
    return routed(Routing(way, parameter, data.models, mean), chances, data.right, data.costs, router=router)


def _applied(
    model: TextModel, prompts: Sequence[str], rows: Iterable[int], subjects: Sequence[str] = ()
) -> tuple[Floats, float]:
    """Chances as requests would get them, one by one, and processor milliseconds a request."""
    began = time.process_time()
    # Not in one batch: the time that is charged is what a single request pays.
    chances = np.array([model.probabilities(prompts[row], subjects[row] if subjects else "") for row in rows])
    return chances, 1000 * (time.process_time() - began) / max(1, len(chances))


def _area(data: ManyData, chances: Floats, router: float, weight: Floats) -> Floats:
    """Area under accuracy over cost, from the cheapest model alone to the dearest alone, for each row of weights."""
    outcomes = [_routed(data, chances, "penalised", price, router) for price in PRICES]
    right = np.stack([data.right[:, 0], data.right[:, -1], *(outcome.right for outcome in outcomes)])
    costs = np.stack([data.costs[:, 0], data.costs[:, -1], *(outcome.cost for outcome in outcomes)])
    total = weight.sum(axis=1)
    accuracy, cost = weight @ right.T / total[:, None], weight @ costs.T / total[:, None]
    low, span = cost[:, :1], cost[:, 1:2] - cost[:, :1]
    share = (cost - low) / span
    # What costs more than the dearest model alone gives way to that.
    late = share > 1
    share, accuracy = np.where(late, 1.0, share), np.where(late, accuracy[:, 1:2], accuracy)
    order = np.argsort(share, axis=1, kind="stable")  # the ends come first, and cost falls as the price rises
    return np.asarray(np.trapezoid(np.take_along_axis(accuracy, order, 1), np.take_along_axis(share, order, 1), axis=1))


def _mixes(data: ManyData, weight: Floats) -> Floats:
    """The same area of the best random mixes of single models, for each row of weights."""
    total = weight.sum(axis=1)[:, None]
    accuracy, cost = weight @ data.right / total, weight @ data.costs / total
    return np.array([_hull_area(c, a) for c, a in zip(cost, accuracy, strict=True)])


def _hull_area(cost: Floats, accuracy: Floats) -> float:
    """Area under the upper hull of single models, costs scaled to 0 .. 1 from the first to the last."""
    share = (cost - cost[0]) / (cost[-1] - cost[0])
    grid = np.linspace(0.0, 1.0, 201)
    best = np.interp(grid, share[[0, -1]], accuracy[[0, -1]])
    for low in range(len(share)):
        for high in range(len(share)):
            if share[low] < share[high]:
                inside = (grid >= share[low]) & (grid <= share[high])
                line = np.interp(grid, share[[low, high]], accuracy[[low, high]])
                best = np.where(inside, np.maximum(best, line), best)
    return float(np.trapezoid(best, grid))


# Labels read again from the responses; the last number of a response counts as its answer.

# GSM8K's published labels compare strings: a quarter of the strong model's errors are only another format.
_RESPONSES = ("weak_response", "strong_response")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def _regraded(data: RoutingData, source: Path, gold: Path) -> tuple[RoutingData, Ints]:
    """Rows of `data` whose gold answer is known, with labels from the text, and their places in `data`.

    Args:
        source: the file that `data` was read from; it needs `weak_response` and `strong_response`.
        gold: Parquet with `question` and `answer`.

    Raises BadInput for missing columns or where no question is in both.
    """
    responses = {row["prompt"]: row for row in read_columns(source, ("prompt", *_RESPONSES), ())}
    keys = {row["question"]: row["answer"] for row in read_columns(gold, ("question", "answer"), ())}
    rows = np.array([row for row, prompt in enumerate(data.prompts) if prompt in keys], dtype=np.int64)
    if not len(rows):
        raise BadInput("--gold", str(gold), "holds none of the prompts as `question`", "give the problems of this data")
    part = data.take(rows)
    labels = []
    for side in _RESPONSES:
        pairs = [(_last_number(responses[prompt][side]), keys[prompt]) for prompt in part.prompts]
        labels.append(np.array(grade_many("number", pairs), dtype=np.float64))
    return replace(part, right=np.stack(labels, axis=1)), rows


def _last_number(text: str) -> str | None:
    """Canonical form of the last number in a text, None without one."""
    numbers = _NUMBER.findall(text)
    return canonical_key("number", numbers[-1]) if numbers else None


def _refuse_trained(path: Path, prompts: Sequence[str], folder: Path) -> None:
    """BadInput where a router in a folder was trained on one of the prompts of a file."""
    seen = ROUTERS.trained_on(folder)
    again = [prompt for prompt in prompts if prompt_hash(prompt) in seen]
    if again:
        raise BadInput(
            f"data {path.name}",
            again[0],
            f"and {len(again) - 1} more of {len(prompts)} prompts were trained on by {folder}",
            "give other prompts, or --cross-fit",
        )
