"""The two further things that a calibration may draw on: a verifier's scores, and a smaller model.

Knows: recorded samples with the kept scores of the shipped verifier, their matrices in FLOPs with all judging charged,
and that of a cascade before a model's own rules. Does not know how reliable a choice is (`promised`), or tables.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kept_scores import kept_scores, read_columns, scores_file
from outthink.engines.recorded import Recorded
from outthink.engines.traces import ReplayEngine, Scoring, Traces, load
from outthink.evaluation.calibration.cascade import CascadeChoice, CascadeSettings, Fitter
from outthink.evaluation.calibration.contenders import fit_source, lineup
from outthink.evaluation.calibration.fit import Rung, orders_for, reference_of
from outthink.evaluation.calibration.losses import LossLimit, LossMatrix
from outthink.evaluation.calibration.scored_votes import scored_votes
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.calibration.votes import deal, deal_one
from outthink.evaluation.dataset import open_source
from outthink.evaluation.replay import MEASURES, rerun
from outthink.strategies import Spec
from promised import TestedMatrix

_SEEDS = 3


def scored(path: Path, name: str, recorded: Traces | None = None) -> Traces:
    """The samples of a set, those given or the file's, with the verifier's scores as `outthink verify` writes them."""
    recorded = recorded or load(path)
    kept, about = kept_scores(name), read_columns(scores_file(name)).about
    temperature = float(about["temperature"])
    problems = {}
    for problem, one in recorded.problems.items():
        samples = []
        for sample in one.sampled:
            logit, tokens = kept.get((problem, sample.index), (None, None))
            score = () if logit is None else (1 / (1 + math.exp(-logit / temperature)),)
            samples.append(replace(sample, scores=score, verifier_tokens=tokens))
        problems[problem] = Recorded(problem, samples, one.greedy, one.right)
    scoring = Scoring(about["verifier"], "process", "smollm2-135m-gsm8k", about["parameters"], about["aggregation"])
    return replace(recorded, problems=problems, scoring=scoring)


def with_verifier(path: Path, name: str, allowed: LossLimit, depth: int, folds: int) -> TestedMatrix:
    """All rules, with and without the verifier's scores, in FLOPs."""
    traces = scored(path, name)
    table = deal_one(traces, orders=orders_for(len(traces.problems)), depth=depth, by="flops")
    rung = Rung(table, depth, allowed, folds=folds, seed=0, judged=scored_votes(table, traces))
    matrix = rung.matrix(np.ones(len(table.names), dtype=bool), judged=True)
    return TestedMatrix(matrix, reference_of(matrix), matrix.costs, allowed)


def needs_verifier(arm: Any) -> bool:
    """Whether a verifier's scores weigh its votes."""
    return bool(arm.judges)


def replayed(path: Path, name: str, ahead: int) -> dict[str, Any]:
    """The judged rule on held-out folds, really replayed: share of FLOPs, loss, samples and seconds."""
    traces = scored(path, name)
    source = open_source(path, traces)
    target = Target.parse("match=self-consistency@32", by="flops")
    fitted = fit_source(source, target, 5, 0, (32,), judged=True)
    if fitted.judged is None:
        return {"way": f"judged rule replayed, {ahead} in flight", "share": None}
    (auto,) = lineup(source, fitted.judged)
    runs = [auto, Spec.parse("self-consistency:n=32")]
    mine, base = rerun(ReplayEngine(traces), runs, list(traces.problems), _SEEDS, ahead)
    flops, seconds = MEASURES.index("flops"), MEASURES.index("seconds")
    return {
        "way": f"judged rule replayed, {ahead} in flight",
        "share": mine.values[flops].mean() / base.values[flops].mean(),
        "loss": float((base.values[0] - mine.values[0]).mean()),
        "samples": float(mine.values[MEASURES.index("samples")].mean()),
        "seconds": float(mine.values[seconds].mean()),
    }


def two_models(weak: Path, strong: Path, allowed: LossLimit, depth: int, folds: int) -> TestedMatrix:
    """The larger model's own rules and cascades from the smaller one before it, in FLOPs."""
    large = load(strong)
    small = load(weak).take(list(large.problems))
    orders = orders_for(len(large.problems))
    own = Rung(deal_one(large, orders=orders, depth=depth, by="flops"), depth, allowed, folds=folds, seed=0)
    alone = own.matrix(np.ones(len(large.problems), dtype=bool))
    settings = CascadeSettings.beside(own)
    cascades = Fitter(deal([small, large], orders=orders, depth=depth), settings).candidates
    both: LossMatrix[Any] = LossMatrix.joined([alone, cascades])
    return TestedMatrix(both, reference_of(alone), both.costs, allowed)


def uses_both(arm: Any) -> bool:
    """Whether it draws from the smaller model first."""
    return isinstance(arm, CascadeChoice)
