"""How good a trained verifier is on problems it has not learnt from; chooses aggregation and temperature.

Knows: batches sorted by length, logits at step ends, and which tables say how good they are. Does not know how a model
is built, files or votes of strategies; single requests are scored by `verifiers/reward_model`, with a prefix cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from outthink.core.errors import EngineError
from outthink.evaluation.routing.figures import auc
from outthink.evaluation.rows import interval
from outthink.evaluation.sample_file import JsonObject
from outthink.training.base import Model, require
from outthink.training.examples import Collection, Examples, Floats
from outthink.training.loop import Dtype, autocast, device_of, micro_batches, micro_tokens, moved
from outthink.training.metrics import (
    METHODS,
    ScoredProblem,
    accuracies,
    auc_within,
    best_threshold,
    calibration,
    first_error_accuracy,
    number_answers,
)
from outthink.verifiers.protocol import AGGREGATIONS, Aggregation, aggregate


def step_logits(
    model: Model,
    examples: Examples,
    *,
    device: str | None = None,
    dtype: Dtype = "auto",
    micro: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Floats]:
    """The logit at each step end of each example, in the examples' order. EngineError for one that is NaN."""
    torch, _ = require()
    where = device_of(device)
    model = model.to(where).eval()
    by_example: list[Floats] = [np.zeros(0, np.float32)] * len(examples)
    batches = micro_batches(examples.lengths, 4 * micro_tokens(where, micro))
    began, tokens, reported = time.monotonic(), 0, time.monotonic()
    with torch.no_grad():
        for number, chosen in enumerate(batches):
            ids, _, _, lengths = examples.batch(chosen)
            with autocast(where, dtype):
                logits = model(input_ids=moved(ids, where), use_cache=False).logits
            values = logits[..., 0].float().cpu().numpy()
            for place, steps in zip(chosen.tolist(), examples.step_scores(values, chosen), strict=True):
                by_example[place] = steps
            tokens += int(lengths.sum())
            if time.monotonic() - reported > 10:
                reported = time.monotonic()
                say(f"scored {number + 1}/{len(batches)} batches, {tokens / (reported - began):,.0f} tokens/s")
    if not all(np.isfinite(steps).all() for steps in by_example):
        raise EngineError("the model gives scores that are no numbers", fatal=True)
    return by_example


def probabilities(logits: Floats, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Scores between 0 and 1: the logistic function of logit / temperature."""
    return 1.0 / (1.0 + np.exp(-np.asarray(logits, np.float64) / temperature))


Array = npt.NDArray[np.float64]
TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0)
_THRESHOLDS = tuple(np.round(np.arange(0.01, 0.6, 0.01), 2).tolist())


def solution_scores(logits: Sequence[Floats], how: str, temperature: float) -> Array:
    """One score a solution (solutions,)."""
    return np.array([aggregate(probabilities(steps, temperature).tolist(), how) for steps in logits])


def scored(collection: Collection, examples: Examples, scores: Array) -> ScoredProblem:
    """Matrices of the problems, as many samples each as the problem with the fewest has.

    Solutions too long for the verifier score 0; they still vote by majority.
    """
    value = np.zeros(len(collection.solutions))
    read = np.zeros(len(collection.solutions))
    value[examples.source], read[examples.source] = scores, examples.lengths
    rows: dict[str, list[int]] = {}
    for place, solution in enumerate(collection.solutions):
        rows.setdefault(solution.problem_id, []).append(place)
    width = min(map(len, rows.values()))
    table = np.array([places[:width] for places in rows.values()])
    solutions = collection.solutions
    return ScoredProblem(
        number_answers([[solutions[i].answer for i in row] for row in table.tolist()]),
        np.array([[solutions[i].correct for i in row] for row in table.tolist()]),
        value[table],
        np.array([[solutions[i].tokens for i in row] for row in table.tolist()], np.float64),
        np.array([[solutions[i].prompt_tokens for i in row] for row in table.tolist()], np.float64),
        read[table],
    )


def choose(
    collection: Collection, examples: Examples, logits: Sequence[Floats]
) -> tuple[Aggregation, float, list[JsonObject]]:
    """Aggregation and temperature whose weighted vote over all samples is right most often, and all results.

    Among equals the earlier aggregation, and the temperature nearest to 1.
    """
    tried: list[JsonObject] = []
    for how in AGGREGATIONS:
        # Nearest to 1 first, since `max` takes the first of equals.
        for temperature in sorted(TEMPERATURES, key=lambda value: abs(np.log(value))):
            data = scored(collection, examples, solution_scores(logits, how, temperature))
            n = data.answers.shape[1]
            right = accuracies(data, n, methods=("weighted",))["weighted"].mean()
            area = auc_within(data.scores, data.correct, np.arange(len(data.scores))[:, None].repeat(n, 1).ravel())[0]
            tried.append({"aggregation": how, "temperature": temperature, "n": n, "weighted": right, "auc": area})
    best = max(tried, key=lambda row: row["weighted"])
    return best["aggregation"], best["temperature"], tried


def step_metrics(examples: Examples, logits: Sequence[Floats]) -> JsonObject:
    """Ranking, calibration and first wrong step where process labels are known; empty without any.

    `step_auc` counts a soft label by its share. The threshold of the first wrong step is chosen on half of
    the problems and used on the other half, both ways.
    """
    labels = [examples.labels[examples.firsts[i] : examples.firsts[i + 1]] for i in range(len(examples))]
    known = [i for i, marks in enumerate(labels) if not np.isnan(marks).all()]
    if not known:
        return {}
    scores = [probabilities(logits[i])[~np.isnan(labels[i])] for i in known]
    gold = [labels[i][~np.isnan(labels[i])].astype(np.float64) for i in known]
    flat, right = np.concatenate(scores), np.concatenate(gold)
    groups = np.concatenate([np.full(len(marks), examples.problem[i]) for i, marks in zip(known, gold, strict=True)])
    error, table = calibration(flat, right)
    half = np.array([examples.problem[i] % 2 == 0 for i in known])
    first_errors = []
    for side in (True, False):
        ours = [k for k in range(len(known)) if half[k] == side]
        others = [k for k in range(len(known)) if half[k] != side]
        if ours and others:
            limit = best_threshold(
                [scores[k].tolist() for k in others], [gold[k].tolist() for k in others], _THRESHOLDS
            )
            measured = first_error_accuracy([scores[k].tolist() for k in ours], [gold[k].tolist() for k in ours], limit)
            first_errors.append({"threshold": limit, **measured})
    return {
        "steps": len(flat),
        "step_auc": auc(flat, right),
        "step_auc_reachable": auc(flat, right > 0),
        "step_auc_within": auc_within(flat, right, groups)[0],
        "step_ece": error,
        "step_calibration": table,
        "first_error": first_errors,
    }


def solution_metrics(data: ScoredProblem) -> JsonObject:
    """Ranking and calibration of solutions, with intervals over problems."""
    groups = np.repeat(np.arange(len(data.scores)), data.scores.shape[1])
    within, each = auc_within(data.scores, data.correct, groups)
    error, table = calibration(data.scores, data.correct)
    return {
        "problems": len(data.scores),
        "samples": data.scores.size,
        "correct": float(data.correct.mean()),
        "auc": auc(data.scores, data.correct),
        "auc_within": within,
        "auc_within_interval": interval(each) if len(each) else None,
        "ece": error,
        "calibration": table,
    }


def curve(data: ScoredProblem, sizes: Sequence[int], seed: int = 0) -> list[JsonObject]:
    """Accuracy of every method with N samples, and the paired difference to majority with as many."""
    rows: list[JsonObject] = []
    for n in sizes:
        if n > data.answers.shape[1]:
            continue
        by_method = accuracies(data, n, seed=seed)
        for method in METHODS:
            rows.append(vote_row(method, n, by_method[method], by_method["majority"]))
    return rows


def vote_row(method: str, n: int, values: Array, majority: Array) -> JsonObject:
    difference = values - majority
    return {
        "method": method,
        "n": n,
        "accuracy": float(values.mean()),
        "interval": interval(values),
        "difference": float(difference.mean()),
        "difference_interval": interval(difference),
    }
