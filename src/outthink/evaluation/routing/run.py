"""`outthink router train` and `outthink router eval` without their command line.

Knows: the order of reading, refusing, training, writing and measuring. Does not know flags.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from outthink import __version__
from outthink.controller.router.folder import load, prompt_hash, read_card, save, trained_on
from outthink.controller.router.model import TextModel
from outthink.core.errors import BadInput
from outthink.evaluation.routing.corpus import Corpus
from outthink.evaluation.routing.data import Floats, Ints, RoutingData, need_subjects, read_routing
from outthink.evaluation.routing.folds import fold_of, groups
from outthink.evaluation.routing.regrade import regraded
from outthink.evaluation.routing.report import Report, evaluate
from outthink.evaluation.routing.training import Recipe, fit

Progress = Callable[[int, int], None]
_HELD_OUT = ("apgr", "apgr_low", "apgr_high", "cpt50", "cpt80", "ece", "paired_low", "paired_high")


def train(path: Path, out: Path, recipe: Recipe) -> tuple[str, Report]:
    """Train on a file and write the router; its id, and what its held-out training prompts say of it.

    Raises BadInput for unusable data, a folder that holds something else, or where scikit-learn is missing.
    """
    if out.exists() and not out.is_dir():
        raise BadInput("--out", str(out), "is a file", "give a folder")
    data = read_routing(path)
    group = groups(data.prompts)
    every = np.arange(len(data))
    fitted = fit(data, Corpus(data.prompts), every, group, recipe)
    report = evaluate(data, fitted.held_out, group, router_ms=None)
    lengths = [len(prompt) for prompt in data.prompts]
    gains = np.quantile(fitted.held_out[:, 1] - fitted.held_out[:, 0], np.linspace(0, 1, 101))
    about: dict[str, Any] = {
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "outthink": __version__,
        "recipe": asdict(recipe),
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
        "regime": {"characters": [min(lengths), max(lengths)]},
        "gains": gains.tolist(),
    }
    return save(out, fitted.model, about, map(prompt_hash, data.prompts)), report


def held_out(path: Path, folder: Path, *, gold: Path | None = None) -> Report:
    """Evaluate a stored router on prompts that it was not trained on.

    Args:
        gold: problems with gold answers: figures on labels read from the responses stand beside.

    Raises BadInput where a prompt was trained on, for an unusable router or unusable data.
    """
    router = load(folder)
    data = read_routing(path)
    seen = trained_on(folder)
    again = [prompt for prompt in data.prompts if prompt_hash(prompt) in seen]
    if again:
        raise BadInput(
            f"data {path.name}",
            again[0],
            f"and {len(again) - 1} more of {len(data)} prompts were trained on by {folder}",
            "give other prompts, or --cross-fit",
        )
    if router.reads_subject:
        need_subjects(data)
    began = time.process_time()
    found = [router.believe(*asked) for asked in zip(data.prompts, data.subjects, strict=True)]
    seconds = time.process_time() - began
    beliefs = np.array([(belief.weak, belief.strong) for belief in found])
    flagged = sum(bool(belief.flags) for belief in found)
    report = _reported(path, data, beliefs, 1000 * seconds / len(data), gold)
    return {**report, "router": router.id, "trained_on": read_card(folder)["data"]["name"], "out_of_regime": flagged}


def cross_fitted(
    path: Path, recipe: Recipe, *, folds: int = 5, gold: Path | None = None, progress: Progress | None = None
) -> Report:
    """Evaluate the recipe: each fold's prompts by a router trained on the other folds, calibration included."""
    data = read_routing(path)
    group = groups(data.prompts)
    fold = fold_of(group, folds, recipe.seed)
    corpus = Corpus(data.prompts)
    beliefs = np.empty((len(data), 2))
    seconds = 0.0
    for part in range(folds):
        model = fit(data, corpus, np.flatnonzero(fold != part), group, recipe).model
        seconds += _apply(model, data, np.flatnonzero(fold == part), beliefs)
        if progress is not None:
            progress(part + 1, folds)
    report = _reported(path, data, beliefs, 1000 * seconds / len(data), gold)
    return {**report, "folds": folds, "seed": recipe.seed, "recipe": asdict(recipe)}


def recipe_of(folder: Path) -> Recipe:
    """How a stored router was trained."""
    return Recipe(**read_card(folder)["recipe"])


def _apply(model: TextModel, data: RoutingData, rows: Ints, beliefs: Floats) -> float:
    """Fill in beliefs as requests would get them, one by one; processor seconds that it took."""
    began = time.process_time()
    for row in rows:
        beliefs[row] = model.probabilities(data.prompts[row], data.subjects[row])
    return time.process_time() - began


def _reported(path: Path, data: RoutingData, beliefs: Floats, router_ms: float, gold: Path | None) -> Report:
    report = evaluate(data, beliefs, groups(data.prompts), router_ms=router_ms)
    if gold is not None:
        part, rows = regraded(data, path, gold)
        group = groups(part.prompts)
        report["regraded"] = evaluate(part, beliefs[rows], group, router_ms=router_ms)
        report["same_rows_as_given"] = evaluate(data.take(rows), beliefs[rows], group, router_ms=router_ms)
    return report
