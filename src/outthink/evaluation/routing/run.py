"""`outthink router train` and `outthink router eval` without their command line, for two models and for several.

Knows: the order of reading, refusing, training, writing and measuring, and labels read again from the responses (how
much of a figure is noise of the grading). Does not know flags or solvers.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from outthink.answers import canonical_key, grade_many
from outthink.controller.router.artefact import load, prompt_hash, save
from outthink.controller.router.predictor import Predictor, RoutedModel
from outthink.core.errors import BadInput
from outthink.core.paths import write_file
from outthink.economics.tariff import active_parameters
from outthink.evaluation.routing.corpus import Corpus
from outthink.evaluation.routing.data import Floats, Ints, ModelOutcomes, read_columns, read_outcomes
from outthink.evaluation.routing.report import Report, evaluate
from outthink.evaluation.routing.training import PredictorRecipe, cross_fitted, fit
from outthink.evaluation.sample_file import JsonObject

_HELD_OUT = (
    *("n", "accuracy", "apgr", "apgr_low", "apgr_high", "cpt50", "cpt80", "auc_cost", "ece", "paired_low"),
    *("paired_high", "targets", "operating_point"),
)
"""Figures that the artefact keeps: none that another training would not repeat."""


def train(
    path: Path,
    out: Path,
    recipe: PredictorRecipe,
    *,
    names: Mapping[str, str] | None = None,
    parameters: Mapping[str, int] | None = None,
) -> tuple[str, Report]:
    """Train on a file and write the predictor; its id, and what its held-out training prompts say of it.

    Args:
        names: what models are called, by their columns.
        parameters: weights read for a token, by model; those of known models need not be given.

    Raises BadInput for unusable data, a folder that holds something else, or where scikit-learn is missing.
    """
    if out.exists() and not out.is_dir():
        raise BadInput("--out", str(out), "is a file", "give a folder")
    data = read_outcomes(path, names)
    for name in parameters or {}:
        if name not in data.models:
            raise BadInput("--parameters", name, "is no model of the data", f"use {', '.join(data.models)}")
    predictor, predicted = fit(data, Corpus(data.prompts), np.arange(len(data)), recipe)
    sizes = tuple((parameters or {}).get(model) or active_parameters(model) for model in data.models)
    predictor = replace(predictor, parameters=sizes)
    chosen = np.array([predictor.routing.place(row) for row in predicted.right.tolist()])
    report = evaluate(data, predicted.right, router_ms=None, point=(*_point_of(predictor), chosen))
    held_out = {key: report[key] for key in _HELD_OUT if key in report}
    for control in ("length", "random"):
        held_out |= {f"{control}_apgr": report["controls"][control].get("apgr")} if data.is_pair else {}
    return write(out, data, predictor, recipe, held_out), report


def write(
    out: Path,
    data: ModelOutcomes,
    predictor: Predictor,
    recipe: PredictorRecipe,
    held_out: JsonObject | list[JsonObject],
) -> str:
    """Write a predictor with where it comes from; returns its id."""
    whole = replace(
        predictor,
        outthink=version("outthink"),
        recipe=asdict(recipe),
        data={
            "name": data.name,
            "n": len(data),
            "prompts": int(data.group.max()) + 1,
            "dropped": data.dropped,
            "accuracy": data.right.mean(axis=0).tolist(),
        },
        held_out=held_out,
        prompts=tuple(map(prompt_hash, data.prompts)),
    )
    return save(out, whole)


def _point_of(predictor: Predictor) -> tuple[str, float]:
    routing = predictor.routing
    return routing.way, routing.parameter


def held_out(
    path: Path, router: Path, *, gold: Path | None = None, point: str | None = None, choices: Path | None = None
) -> Report:
    """Evaluate a stored predictor on prompts that it was not trained on, at its operating point.

    Args:
        gold: problems with gold answers: figures on labels read from the responses stand beside.
        point: another operating point, as `Predictor.at` has it.
        choices: file that gets a row a prompt with the model that is chosen and the chances of all.

    Raises BadInput where a prompt was trained on, for an unusable predictor, unusable data or other models.
    """
    predictor = load(router) if point is None else load(router).at(point)
    data = read_outcomes(path, dict(zip(predictor.columns, predictor.models, strict=True)))
    if set(predictor.models) != set(data.models):
        known = ", ".join(predictor.models)
        raise BadInput("data", ", ".join(data.models), f"are not the router's {known}", "train anew")
    # In the router's order: the costs of other prompts may say another one.
    data = data.ordered([data.models.index(model) for model in predictor.models])
    _refuse_trained(path, data, router, predictor)
    if predictor.model.subjects:
        data.need_subjects()
    began = time.process_time()
    # One by one, not in a batch: the time that is charged is what a single request pays.
    routed = [predictor.choose(prompt, data.subject(row)) for row, prompt in enumerate(data.prompts)]
    milliseconds = 1000 * (time.process_time() - began) / len(data)
    if choices is not None:
        write_choices(choices, data, routed)
    chances = np.array([one.prediction.chances for one in routed])
    chosen = np.array([data.models.index(one.model) for one in routed])
    report = _with_regraded(path, data, chances, milliseconds, gold, (*_point_of(predictor), chosen))
    flagged = sum(bool(one.prediction.flags) for one in routed)
    return {**report, "router": predictor.id, "trained_on": predictor.data.get("name"), "out_of_regime": flagged}


def write_choices(file: Path, data: ModelOutcomes, routed: list[RoutedModel]) -> None:
    """A row a prompt: `row` of the data from 0, `prompt`, `model`, `chances` by model; Parquet or JSON lines."""
    rows = [
        {
            "row": number,
            "prompt": prompt,
            "model": one.model,
            "chances": {expected.model: expected.chance for expected in one.prediction.models},
        }
        for number, prompt, one in zip(data.rows, data.prompts, routed, strict=True)
    ]
    if file.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet as parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        write_file(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def judge_recipe(
    path: Path,
    recipe: PredictorRecipe,
    *,
    folds: int = 5,
    gold: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Evaluate the recipe: each fold's prompts by a predictor trained on the other folds, its point included."""
    data = read_outcomes(path)
    predicted = cross_fitted(data, recipe, folds=folds, progress=progress)
    assert predicted.model is not None
    way = (recipe.point or ("strong-weak" if data.is_pair else "penalised")).partition("=")[0]
    point = way, None, predicted.model  # each fold has a parameter of its own
    report = _with_regraded(path, data, predicted.right, predicted.milliseconds or 0.0, gold, point)
    return {**report, "folds": folds, "seed": recipe.seed, "recipe": asdict(recipe)}


def recipe_of(router: Path) -> PredictorRecipe:
    """How a stored predictor was trained."""
    recipe = load(router).recipe
    return PredictorRecipe(**{**recipe, "strengths": tuple(recipe["strengths"])})


def _with_regraded(
    path: Path,
    data: ModelOutcomes,
    chances: Floats,
    router_ms: float,
    gold: Path | None,
    point: tuple[str, float | None, Ints],
) -> Report:
    report = evaluate(data, chances, router_ms=router_ms, point=point)
    if gold is not None:
        part, rows = _regraded(data, path, gold)
        for name, judged in (("regraded", part), ("same_rows_as_given", data.take(rows))):
            report[name] = evaluate(judged, chances[rows], router_ms=router_ms, point=(*point[:2], point[2][rows]))
    return report


# Labels read again from the responses; the last number of a response counts as its answer.

# GSM8K's published labels compare strings: a quarter of the strong model's errors are only another format.
_RESPONSES = ("weak_response", "strong_response")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def _regraded(data: ModelOutcomes, source: Path, gold: Path) -> tuple[ModelOutcomes, Ints]:
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
    """Canonical form of the last number in a text, None without one that can be read."""
    with suppress(BadInput):  # 88,00 is none
        return canonical_key("number", numbers[-1]) if (numbers := _NUMBER.findall(text)) else None
    return None


def _refuse_trained(path: Path, data: ModelOutcomes, router: Path, predictor: Predictor) -> None:
    """BadInput where a predictor was trained on one of the prompts of a file."""
    seen = frozenset(predictor.prompts)
    again = [prompt for prompt in data.prompts if prompt_hash(prompt) in seen]
    if again:
        raise BadInput(
            f"data {path.name}",
            again[0],
            f"and {len(again) - 1} more of {len(data)} prompts were trained on by {router}",
            "give other prompts, or --cross-fit",
        )
