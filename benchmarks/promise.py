"""Whether a calibrated policy keeps its promise, and what that costs: reliability and share of the compute.

Each recorded set is calibrated as `outthink calibrate` does: all rules in one matrix of paired losses, learned scores
cross-fitted, the level of the bound calibrated once. Then 2,000 bootstrap calibrations with fresh seeds choose at that
level: how often is the chosen arm's loss over all problems within half a point, at which mean share of the cost of
self-consistency@32? Beside it the point choice, every level, each family alone, gradient-boosted trees in the place of
the ridge, a constant threshold, adaptive-consistency and ESC as published, stopping at random, an oracle, and
everything fitted anew on 20 random splits 4/5 : 1/5 and replayed on the other fifth. One sample in flight, generated
tokens.
Then the same in FLOPs with the shipped verifier's kept scores (benchmarks/data), all judging charged, and with the
0.5B model before the 1.5B one.

    python benchmarks/promise.py [--quick] [--sets "MATH 1.5B"]

Needs the recorded sets in ../shared/data/traces or $OUTTHINK_TRACES; half an hour on two cores. --quick: two splits,
written to $OUTTHINK_RESULTS only.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from common import NO_TRACES, Table, judged, load_average, parser, save_evidence, show, skip, traces
from outthink.controller.policy.rules import Adaptive, Fixed
from outthink.engines.traces import load
from outthink.evaluation.calibration.fit import Rung, orders_for, reference_of
from outthink.evaluation.calibration.losses import LEVELS, LossLimit
from outthink.evaluation.calibration.votes import Table as Samples
from outthink.evaluation.calibration.votes import deal_one
from pooled import POOLED, replay_pool
from promise_more import needs_verifier, replayed, two_models, uses_both, with_verifier
from promised import Calibrations, TestedMatrix, diagram, guarded_row, spread
from stopping import unlearned, with_trees

DEPTH, MARGIN, RISK, FOLDS = 32, 0.005, 0.1, 5
ALLOWED = LossLimit(MARGIN, RISK, f"self-consistency@{DEPTH}")
LIMITS = {"GSM8K 1.5B": (0.38, 0.33), "MATH 1.5B": (0.62, 0.52), "GSM8K 0.5B": (0.70, 0.66), "MATH 0.5B": (0.80, 0.70)}
"""Shares of self-consistency's tokens: target and goal."""
PAID, BOTH = "verifier allowed, FLOPs", "two models, FLOPs"
PAID_LIMITS = {"GSM8K 1.5B": (0.24, 0.20), "GSM8K 0.5B": (0.33, 0.28)}
BOTH_LIMITS = {"GSM8K 1.5B": (0.50, 0.42), "MATH 1.5B": (0.78, 0.60)}
"""Shares of the FLOPs of self-consistency@32 and, of two models, of the larger one's self-consistency@16."""
PAIRS = {"GSM8K 1.5B": "GSM8K 0.5B", "MATH 1.5B": "MATH 0.5B"}
RELIABLE = 1 - RISK
CONSTANT = 0.88
SPLITS = 20
_ORDERS = 5  # of the held-out problems of a split


def rung_of(samples: Samples) -> Rung:
    """All candidates of a set, as `outthink calibrate` has them."""
    return Rung(samples, DEPTH, ALLOWED, folds=FOLDS, seed=0)


def judged_matrix(samples: Samples) -> TestedMatrix:
    """Losses and costs of all candidates; prompts are part of what decides, generated tokens are what is shown."""
    everyone = np.ones(len(samples.names), dtype=bool)
    matrix = rung_of(samples).matrix(everyone)
    unprompted = replace(samples, models=tuple(replace(one, prompt=0.0 * one.prompt) for one in samples.models))
    return TestedMatrix(matrix, reference_of(matrix), rung_of(unprompted).matrix(everyone).costs, ALLOWED)


def of_kind(*kinds: str) -> Callable[[Any], bool]:
    """Arms of these kinds."""
    return lambda arm: arm.kind in kinds


def constant(whole: TestedMatrix) -> dict[str, Any]:
    """Adaptive-consistency at one threshold, which nothing has chosen."""
    place = next(
        k for k, arm in enumerate(whole.matrix.arms) if isinstance(arm, Adaptive) and arm.threshold == CONSTANT
    )
    chosen = np.full(1, place)
    row = Calibrations(whole, 1).row(chosen)
    return {"way": f"constant {CONSTANT}", "level": None, "share": row["share"], "loss": row["loss"]}


def measured(path: Path) -> Table:
    """Every way to choose on one set."""
    recorded = load(path)
    samples = deal_one(recorded, orders=orders_for(len(recorded.problems)), depth=DEPTH)
    whole = judged_matrix(samples)
    rows = [guarded_row(whole, "all rules")]
    kinds = sorted({arm.kind for arm in whole.matrix.arms} - {"fixed"})
    rows += [guarded_row(whole.only(of_kind(kind)), f"{kind} alone") for kind in kinds]
    rows.append(guarded_row(with_trees(samples, whole, FOLDS), "boosted-trees alone"))
    return [*rows, *diagram(whole), constant(whole), *unlearned(samples, rows[0]["share"])]


def split(path: Path, number: int) -> tuple[float, float]:
    """Share and loss on a fifth of the problems of what the other four fifths have chosen; replayed, not looked up."""
    recorded = load(path)
    names = np.array(list(recorded.problems))
    order = np.random.default_rng(1000 + number).permutation(len(names))
    test = names[order[: len(names) // 5]].tolist()
    held = set(test)
    rest = recorded.take([name for name in names.tolist() if name not in held])
    samples = deal_one(rest, orders=orders_for(len(rest.problems)), depth=DEPTH)
    rule, _ = rung_of(samples).choose(np.ones(len(samples.names), dtype=bool))
    mine, base = (
        dict(
            zip(POOLED, replay_pool([recorded], lambda name, one=one: one, test, orders=_ORDERS, n=DEPTH), strict=True)
        )
        for one in (rule, Fixed())
    )
    return mine["tokens"].mean() / base["tokens"].mean(), float((base["accuracy"] - mine["accuracy"]).mean())


def with_scores(path: Path, name: str) -> Table:
    """The same in FLOPs with a verifier's scores, and without; and the judged rule in real replay."""
    whole = with_verifier(path, name, ALLOWED, DEPTH, FOLDS)
    rows = [guarded_row(whole, PAID)]
    rows.append(guarded_row(whole.only(lambda arm: not needs_verifier(arm)), "no verifier, FLOPs"))
    return [*rows, *(replayed(path, name, ahead) for ahead in (1, 4))]


def cascaded(files: dict[str, Path], name: str) -> Table:
    """Two models against the larger one's self-consistency@16, and whether the smaller one is used at all."""
    depth = 16
    allowed = LossLimit(MARGIN, RISK, f"self-consistency@{depth}")
    whole = two_models(files[PAIRS[name]], files[name], allowed, depth, FOLDS)
    rows = [guarded_row(whole, BOTH)]
    calibrations = Calibrations(whole)
    chosen = calibrations.guarded(rows[0]["level"] or LEVELS[-1])
    used = np.array([uses_both(arm) for arm in whole.matrix.arms])
    rows[0]["smaller model used"] = float(used[chosen].mean())
    return [*rows, guarded_row(whole.only(lambda arm: not uses_both(arm)), "larger model alone, FLOPs")]


def targets(rows: Table) -> Table:
    """Reliability and share of each set against target and goal, and the held-out loss."""
    found = {(row["set"], row["way"]): row for row in rows}
    lines = []
    for name, limits in LIMITS.items():
        if (row := found.get((name, "all rules"))) is None:
            continue
        ends = {"low": row["reliability_low"], "high": row["reliability_high"]}
        lines.append(judged(f"{name}: reliability", row["reliability"], RELIABLE, better="higher", **ends))
        for what, limit in zip(("target", "goal"), limits, strict=True):
            title = f"{name}: mean share of self-consistency's tokens, {what}"
            lines.append(judged(title, row["share"], limit, low=row["share_low"], high=row["share_high"]))
        if (apart := found.get((name, f"{SPLITS} splits"))) is not None:
            high, low = apart["loss"] + 1.96 * apart["loss_se"], apart["loss"] - 1.96 * apart["loss_se"]
            lines.append(judged(f"{name}: mean held-out loss over splits", apart["loss"], MARGIN, low=low, high=high))
        for way, limits in ((PAID, PAID_LIMITS), (BOTH, BOTH_LIMITS)):
            if name in limits and (row := found.get((name, way))) is not None:
                ends = {"low": row["reliability_low"], "high": row["reliability_high"]}
                lines.append(
                    judged(f"{name}, {way}: reliability", row["reliability"], RELIABLE, better="higher", **ends)
                )
                for what, limit in zip(("target", "goal"), limits[name], strict=True):
                    title = f"{name}, {way}: mean share of self-consistency's FLOPs, {what}"
                    lines.append(judged(title, row["share"], limit, low=row["share_low"], high=row["share_high"]))
    return lines


def flags() -> argparse.Namespace:
    """The command line."""
    options = parser(__doc__)
    options.add_argument("--sets", nargs="+", metavar="SET", default=list(LIMITS), help="what to measure on")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--quick", action="store_true", help="two splits; writes to $OUTTHINK_RESULTS only")
    return options.parse_args()


def main() -> int:
    """Calibrate, resample, refit, print, write."""
    chosen, files = flags(), traces()
    if len(files) < len(LIMITS):
        return skip(NO_TRACES)
    before, splits = load_average(), 2 if chosen.quick else SPLITS
    rows: Table = []
    with ProcessPoolExecutor(chosen.workers, mp_context=get_context("spawn")) as pool:
        wholes = {name: pool.submit(measured, files[name]) for name in chosen.sets}
        parts = {name: [pool.submit(split, files[name], k) for k in range(splits)] for name in chosen.sets}
        paid = {name: pool.submit(with_scores, files[name], name) for name in chosen.sets}
        pairs = {name: pool.submit(cascaded, files, name) for name in chosen.sets if name in PAIRS}
        for name in chosen.sets:
            rows += [{"set": name, **row} for row in wholes[name].result()]
            shares, losses = zip(*(part.result() for part in parts[name]), strict=True)
            (share, share_se), (loss, loss_se) = spread(shares), spread(losses)
            rows.append({"set": name, "way": f"{splits} splits", "share": share, "share_se": share_se})
            rows[-1] |= {"loss": loss, "loss_se": loss_se}
            rows += [{"set": name, **row} for row in paid[name].result()]
            rows += [{"set": name, **row} for row in (pairs[name].result() if name in pairs else ())]
            keys = ("way", "reliability", "share", "share_low", "share_high", "loss", "level")
            show(name, [{key: row.get(key) for key in keys} for row in rows if row["set"] == name])
    if chosen.quick and not os.environ.get("OUTTHINK_RESULTS"):
        return 0
    save_evidence("promise", rows=rows, targets=targets(rows), load_before=before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
