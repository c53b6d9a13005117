"""Two models behind one request: what a cascade saves, and where a small model can replace a larger one.

Measures: the cost in active-parameter FLOPs at which two models keep the accuracy of 1.5B self-consistency@16
within 0.5 points, everything charged (prompts read by both models, cancelled tokens). Nested cross-fitting: in
each outer fold `outthink calibrate` has the other folds alone, its own cross-fitting and guarded choice included,
and what it chooses is replayed on the held-out problems through the real session. Beside it: the 1.5B model alone,
chosen in the same way; a cascade that must use the 0.5B model; the 1.5B model with a tuned threshold; random mix,
always-weak, always-strong, a prompt-length router (shares chosen in sample, in their favour), an oracle. And by
difficulty: where votes of the 0.5B model pass a single answer of the 1.5B model, and where even a perfect choice
among its samples cannot. Intervals: 95 %, paired, over problems; promise.py has those over fits. Does not measure
live engines. Needs the recorded sets in ../shared/data/traces or $OUTTHINK_TRACES; a quarter of an hour.
"""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet

from cascade_controls import (
    Passing,
    first_order,
    least_share,
    oracle,
    passing,
    quintiles,
    random_mix,
    risk,
    tuned_adaptive,
)
from common import (
    NO_TRACES,
    RESULTS,
    Table,
    interval,
    judged,
    load_average,
    parser,
    save_evidence,
    show,
    skip,
    traces,
)
from outthink.controller.cascade import Cascade, StageRule, least_threshold
from outthink.engines.traces import load
from outthink.evaluation.calibration.cascade import CascadeSettings, Fitter, baseline, cheapest, leaders
from outthink.evaluation.calibration.fit import Rung, orders_for
from outthink.evaluation.calibration.losses import Array, GuardedChoice, LossLimit
from outthink.evaluation.calibration.votes import Table as Samples
from outthink.evaluation.calibration.votes import deal, deal_one
from outthink.evaluation.report.plot import draw
from outthink.evaluation.rows import intervals, resampled_means
from pooled import POOLED, replay_pool

SETS = {"GSM8K": ("GSM8K 0.5B", "GSM8K 1.5B"), "MATH": ("MATH 0.5B", "MATH 1.5B")}
DEPTH, MARGIN, RISK = 16, 0.005, 0.1
ALLOWED = LossLimit(MARGIN, RISK, f"self-consistency@{DEPTH}")
LIMITS = {"GSM8K": (0.50, 0.42), "MATH": (0.78, 0.60)}
"""Shares of the FLOPs of 1.5B self-consistency@16: target and goal."""
FOLDS, INNER = 10, 5
WAYS = ("what calibrate chooses", "1.5B alone", "0.5B first", "1.5B, tuned threshold")
BINNED = 16
"""Samples of the first order that difficulty bins are made from; the others are measured."""


def short(rule: StageRule) -> str:
    """What was chosen, in words."""
    if not isinstance(rule, Cascade):
        return f"1.5B alone, {rule.kind}"
    stage = rule.stages[0]
    tau = "always on" if np.isinf(stage.tau) else f"{stage.signal} {stage.tau:.2f}"
    return f"{stage.n} x 0.5B, {tau}, votes {stage.keep:g}"


def fold_of(problems: int, partition: int) -> np.ndarray:
    """The outer fold of each problem."""
    return np.random.default_rng(1000 + partition).permutation(problems) % FOLDS


def held_out(paths: tuple[Path, Path], partition: int, fold: int) -> tuple[np.ndarray, Array, list[str]]:
    """One outer fold: its problems, values[way, measure, problem], and what was chosen."""
    weak, strong = (load(path) for path in paths)
    weak, orders = weak.take(list(strong.problems)), orders_for(len(strong.problems))
    table = deal([weak, strong], orders=orders, depth=DEPTH)
    out = fold_of(len(table.names), partition) == fold
    own = Rung(deal_one(strong, orders=orders, depth=DEPTH, by="flops"), DEPTH, ALLOWED, folds=INNER, seed=0)
    settings, part = CascadeSettings.beside(own), table.take(~out)
    fitter = Fitter(part, settings)
    place, _ = GuardedChoice(fitter.candidates, ALLOWED, None).promise()
    rules = [cheapest(part, settings, own, ~out)[0], own.choose(~out)[0]]
    rules.append(fitter.cascade(fitter.candidates.arms[place]))
    names = [name for name, taken in zip(table.names, out, strict=True) if taken]
    values = [replay_pool([strong, weak], lambda _, rule=rule: rule, names, orders=orders, n=DEPTH) for rule in rules]
    tuned = np.full((len(POOLED), len(names)), np.nan)
    tuned[0], tuned[1] = tuned_adaptive(table, settings, ~out)
    return np.flatnonzero(out), np.array([*values, tuned]), [short(rule) for rule in rules]


def nested(paths: tuple[Path, Path], partitions: int, workers: int) -> tuple[Array, list[Counter[str]]]:
    """Held-out values[way, measure, problem], means over partitions, and how often what was chosen."""
    total: Array | None = None
    counts: list[Counter[str]] = [Counter() for _ in WAYS[:-1]]
    problems = len(load(paths[0]).problems)
    jobs = [(paths, partition, fold) for partition in range(partitions) for fold in range(FOLDS)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for places, values, chosen in pool.map(held_out, *zip(*jobs, strict=True)):
            if total is None:
                total = np.zeros((*values.shape[:2], problems))
            total[:, :, places] += values / partitions
            for counter, name in zip(counts, chosen, strict=True):
                counter[name] += 1
    assert total is not None
    return total, counts


def compared(name: str, way: str, values: tuple[Array, Array], strong: tuple[Array, Array]) -> dict[str, Any]:
    """A contender against 1.5B self-consistency@16, paired over problems."""
    accuracy, cost = values
    means = resampled_means([accuracy - strong[0], cost, strong[1]])
    ratios = means[1] / means[2]
    return {
        "set": name,
        "way": way,
        "accuracy": 100 * accuracy.mean(),
        "difference": interval((accuracy - strong[0]).mean(), *np.quantile(means[0], [0.025, 0.975])),
        "lost": float((strong[0] - accuracy).mean()),
        "lost_low": float(-np.quantile(means[0], 0.975)),
        "lost_high": float(-np.quantile(means[0], 0.025)),
        "TFLOPs": cost.mean() / 1e12,
        "ratio": cost.mean() / strong[1].mean(),
        "ratio_low": float(np.quantile(ratios, 0.025)),
        "ratio_high": float(np.quantile(ratios, 0.975)),
    }


def against(name: str, one: tuple[Array, Array], other: tuple[Array, Array], strong: Array) -> dict[str, Any]:
    """Two contenders: difference of their accuracies and of their ratios."""
    means = resampled_means([one[0] - other[0], one[1] - other[1], strong])
    low, high = np.quantile(means[1] / means[2], [0.025, 0.975])
    return {
        "set": name,
        "points": interval((one[0] - other[0]).mean(), *np.quantile(means[0], [0.025, 0.975])),
        "ratio difference": (one[1] - other[1]).mean() / strong.mean(),
        "low": float(low),
        "high": float(high),
    }


def controls(name: str, table: Samples, strong: tuple[Array, Array]) -> Table:
    """Routers that know little or everything."""
    weak = baseline(table, 0, 16)
    longest = least_share(table.models[1].prompt, weak, strong, MARGIN)
    mixed = random_mix(weak, strong, MARGIN)
    rows = [
        compared(name, "always 0.5B, 16 votes", weak, strong),
        compared(name, "always 1.5B, 16 votes", strong, strong),
        compared(name, "oracle over both models and sizes", oracle(table), strong),
    ]
    for way, found in (("random mix", mixed), ("longest prompts to 1.5B", longest)):
        rows.append(dict.fromkeys(rows[0]) | {"set": name, "way": f"{way}, {100 * found.share:.0f} % to 1.5B"})
        rows[-1] |= {"accuracy": 100 * found.accuracy, "ratio": found.ratio}
    return rows


def conformal(name: str, table: Samples, splits: int = 200) -> Table:
    """Thresholds of a 0.5B first stage by conformal calibration on one half: the risk on the other half.

    Lost is a problem that leaves with a wrong answer where 16 votes of the 1.5B model would be right.
    """
    one = Samples(table.names, table.right, tuple(first_order(model) for model in table.models))
    strong = baseline(one, 1, 16)[0] > 0
    rng, rows = np.random.default_rng(0), []
    for first in (4, 8):
        weak = baseline(one, 0, first)[0] > 0
        signals = leaders(one, 0, first)[:, 0, -1] / first
        losses = ~weak & strong
        for alpha in (0.02, 0.05, 0.1):
            taus, risks, shares = [], [], []
            for _ in range(splits):
                here = rng.permutation(len(signals)) % 2 == 0
                tau = least_threshold(signals[here].tolist(), losses[here].tolist(), alpha)
                taus.append(min(tau, 1.01))
                risks.append(risk(signals[~here].tolist(), losses[~here].tolist(), tau))
                shares.append(float((signals[~here] >= tau).mean()))
            row = {"set": name, "first stage": f"{first} x 0.5B", "alpha": alpha, "median tau": float(np.median(taus))}
            rows.append(row | {"mean risk on the other half": np.mean(risks), "leave": np.mean(shares)})
    return rows


def bins_of(name: str, table: Samples, path: Path) -> list[tuple[str, np.ndarray]]:
    """All problems, fifths by difficulty, and MATH's levels."""
    bins = [("all", np.ones(len(table.names), dtype=bool)), *quintiles(table, BINNED)]
    if name == "MATH":
        rows = parquet.read_table(path.parent / "problems-math500.parquet", columns=["problem_id", "level"])
        level_of = dict(zip(rows["problem_id"].to_pylist(), rows["level"].to_pylist(), strict=True))
        levels = np.array([level_of[problem] for problem in table.names])
        bins += [(f"level {level}", levels == level) for level in sorted(set(levels.tolist()))]
    return bins


def passing_rows(name: str, found: list[Passing]) -> Table:
    """Weak votes against one strong answer."""
    return [
        {
            "set": name,
            "bin": one.name,
            "problems": one.problems,
            "1.5B single": 100 * one.single,
            "0.5B single": 100 * one.weak[1],
            "0.5B 16 votes": 100 * one.weak[16],
            "0.5B best of 16, perfect choice": 100 * one.perfect[16],
            "votes to pass": one.votes,
            "their cost over one 1.5B answer": None if one.votes is None else one.cost[one.votes] / one.single_cost,
            "samples to pass, perfect choice": one.picks,
            "cost over one 1.5B answer": None if one.picks is None else one.cost[one.picks] / one.single_cost,
        }
        for one in found
    ]


def plot_rows(name: str, table: Samples, nested_values: dict[str, tuple[Array, Array]]) -> Table:
    """Points of the plot."""
    series = {("self-consistency", n): baseline(table, 1, n) for n in (1, 2, 4, 8, 16)}
    series |= {("0.5B self-consistency", n): baseline(table, 0, n) for n in (1, 2, 4, 8, 16)}
    series |= {(way, 16): values for way, values in nested_values.items()} | {("oracle", 16): oracle(table)}
    rows = []
    for (strategy, n), (accuracy, cost) in series.items():
        low, high = intervals(accuracy[None])
        row = {"traces": f"{name}, 0.5B and 1.5B", "strategy": strategy, "n": n, "accuracy": accuracy.mean()}
        rows.append(row | {"accuracy_low": low[0], "accuracy_high": high[0], "tokens": 1.0, "flops": cost.mean()})
    return rows


def conformal_target(risks: Table) -> dict[str, Any]:
    """The mean risk on new problems stays below the level."""
    worst = max(risks, key=lambda row: row["mean risk on the other half"] - row["alpha"])
    name = f"{worst['set']}: conformal thresholds, mean risk on the other half, nearest to its level"
    return judged(name, worst["mean risk on the other half"], worst["alpha"])


def targets(rows: Table) -> list[dict[str, Any]]:
    """Share of the FLOPs and points lost, on held-out problems."""
    lines = []
    for row in rows:
        if row["way"] != WAYS[0]:
            continue
        name = f"{row['set']}: two models, of the FLOPs of 1.5B self-consistency@16"
        for what, limit in zip(("target", "goal"), LIMITS[row["set"]], strict=True):
            ends = {"low": row["ratio_low"], "high": row["ratio_high"]}
            lines.append(judged(f"{name}, {what}", row["ratio"], limit, **ends))
        ends = {"low": row["lost_low"], "high": row["lost_high"]}
        lines.append(
            judged(f"{row['set']}: two models, accuracy lost on held-out problems", row["lost"], MARGIN, **ends)
        )
    return lines


def main() -> int:
    """Fit, replay, compare, print, write."""
    options = parser(__doc__)
    options.add_argument("--partitions", type=int, default=2, help="random partitions into outer folds (default 2)")
    options.add_argument("--workers", type=int, default=2)
    chosen = options.parse_args()
    files = traces()
    if any(file not in files for pair in SETS.values() for file in pair):
        return skip(NO_TRACES)
    before = load_average()
    rows, duels, picked, passed, points, risks = [], [], [], [], [], []
    for name, (weak_file, strong_file) in SETS.items():
        paths = files[weak_file], files[strong_file]
        values, counts = nested(paths, chosen.partitions, chosen.workers)
        orders = orders_for(len(load(paths[1]).problems))
        table = deal([load(path) for path in paths], orders=orders)
        strong = baseline(table, 1, DEPTH)
        found = {way: (one[0], one[1]) for way, one in zip(WAYS, values, strict=True)}
        rows += [compared(name, way, one, strong) for way, one in found.items()] + controls(name, table, strong)
        for one, other in ((0, 1), (1, 3), (2, 1)):
            duel = against(name, found[WAYS[one]], found[WAYS[other]], strong[1])
            duels.append({"pair": f"{WAYS[one]} against {WAYS[other]}"} | duel)
        for way, counter in zip(WAYS, counts, strict=False):
            picked += [
                {"set": name, "way": way, "chosen": what, "folds": times} for what, times in counter.most_common()
            ]
        passed += passing_rows(name, passing(table, bins_of(name, table, paths[0]), BINNED))
        points += plot_rows(name, table, found)
        risks += conformal(name, table)
    show("against 1.5B self-consistency@16, everything charged", rows)
    show("paired differences", duels)
    show("chosen in the outer folds", picked)
    show("conformal thresholds of a first stage, calibrated on half of the problems", risks)
    show("where 0.5B votes pass one 1.5B answer", passed)
    picture = draw(points, x="flops", title="Two models", subtitle="Fitted rules: held-out problems, nested folds.")
    (RESULTS / "cascade.svg").write_text(picture + "\n")
    tables = {"compared": rows, "paired": duels, "chosen": picked, "conformal": risks, "passing": passed}
    told = [{"table": table, **row} for table, found in tables.items() for row in found]
    save_evidence("cascade", rows=told, targets=[*targets(rows), conformal_target(risks)], load_before=before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
