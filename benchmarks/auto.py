"""When to stop buying samples of one model: what a learned rule saves against self-consistency@32.

Each recorded set is dealt in several random orders and judged by nested cross-fitting: an outer fold is held
out from everything, the fit, the vote weight, and the operating point (the cheapest whose cross-fitted
accuracy is within 0.5 points of self-consistency@32). Beside the linear gain, with several vote weights:
gradient-boosted trees; what `outthink calibrate` itself would ship; adaptive-consistency and ESC as they are;
adaptive-consistency with threshold and vote weight tuned on the same folds, the control; random stopping at
the same cost; an oracle. Intervals: 95 %, paired, over problems. Ratios are of generated tokens; prompts
(charged once a sample) decide the operating point and stand in a column of their own.

With --scores, a folder of log-odds kept by benchmarks/prm.py, votes weigh by a verifier's score, too; the
verifier is charged 2 x its active parameters for every token it reads; without it those rows are kept from
the last run that had one, with its date. Does not measure live engines. Needs
the recorded sets in ../shared/data/traces or $OUTTHINK_TRACES; some minutes on two cores.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from auto_ways import (
    BOOSTED,
    BOTH,
    CONTROL,
    DEPTH,
    LINEAR,
    MARGIN,
    PAID,
    SHIPPED,
    Comparison,
    Set,
    compare,
    compare_scored,
    weight,
)
from common import NO_TRACES, RESULTS, Table, interval, load_average, parser, save, show, skip, target, traces
from outthink.engines.traces import load
from outthink.evaluation.calibration.fit import orders_for
from outthink.evaluation.report.plot import draw
from outthink.evaluation.rows import intervals, resampled_means
from stopping import HeldOutRule

BASE = "self-consistency@32"
BEST = f"{LINEAR}, {weight(BOTH)}"
NO_SCORES = "no folder of verifier scores was given (--scores): votes weigh by confidence alone"
GOALS = {"GSM8K 1.5B": 0.25, "MATH 1.5B": 0.40}
KNOWN = {"GSM8K 1.5B": 0.31, "MATH 1.5B": 0.47}
"""Ratios that boosted trees were known to reach."""
PAID_GOALS = {"GSM8K 0.5B": 0.40, "GSM8K 1.5B": 0.25}
SHOWN = (f"{CONTROL}, votes exp(0.5 z)", BEST, "oracle")
Means = dict[str, HeldOutRule]
Judged = dict[tuple[str, int], Comparison]
Curves = dict[str, tuple[np.ndarray, np.ndarray]]


def together(parts: list[Comparison]) -> tuple[Means, Curves]:
    """Means over partitions; a way that only one of them has is taken as it is."""
    ways: Means = {}
    for name in dict.fromkeys(name for part in parts for name in part.ways):
        mine = [part.ways[name] for part in parts if name in part.ways]
        means = [np.mean([getattr(one, key) for one in mine], axis=0) for key in ("accuracy", "cost", "tokens")]
        ways[name] = HeldOutRule(*means, tuple(point for one in mine for point in one.chosen))
    curves: Curves = {}
    for name in dict.fromkeys(name for part in parts for name in part.curves):
        both = [part.curves[name] for part in parts if name in part.curves]
        curves[name] = np.mean([one[0] for one in both], axis=0), np.mean([one[1] for one in both], axis=0)
    return ways, curves


def rows_of(name: str, ways: Means, parts: list[Comparison], control: str) -> Table:
    """Every way against self-consistency@32 and against the control, paired over problems."""
    base, tuned = ways[BASE], ways[control]
    paid = control.endswith(PAID)
    rows = []
    for way, one in ways.items():
        tops = (one.cost, base.cost) if paid else (one.tokens, base.tokens)
        against = tuned.cost if paid else tuned.tokens
        means = resampled_means([one.accuracy - base.accuracy, *tops, tops[0] - against])
        low, high = np.quantile(means[1] / means[2], [0.025, 0.975])
        from_control = np.quantile(means[3] / means[2], [0.025, 0.975])
        each = [part.ways[way] for part in parts if way in part.ways]
        rows.append(
            {
                "set": name,
                "way": way,
                "accuracy": 100 * one.accuracy.mean(),
                "difference": interval((one.accuracy - base.accuracy).mean(), *np.quantile(means[0], [0.025, 0.975])),
                "ratio": tops[0].mean() / tops[1].mean(),
                "ratio_low": float(low),
                "ratio_high": float(high),
                "ratio of partitions": " ".join(
                    f"{(part.cost if paid else part.tokens).mean() / tops[1].mean():.3f}" for part in each
                ),
                "tokens ratio" if paid else "ratio with prompts": (one.tokens if paid else one.cost).mean()
                / (base.tokens if paid else base.cost).mean(),
                "to control": (tops[0] - against).mean() / tops[1].mean(),
                "to control low": float(from_control[0]),
                "to control high": float(from_control[1]),
                "chosen": dict(Counter(one.chosen).most_common(4)),
            }
        )
    return rows


def pairs_of(name: str, ways: Means, first: Means) -> Table:
    """Trees against the linear gain at equal vote weights, the gain against the control; and in the first
    partition alone what is shipped against the control and against the best trees."""
    duels = [(ways, way, way.replace(BOOSTED, LINEAR)) for way in ways if way.startswith(BOOSTED)]
    duels += [(ways, BEST, CONTROL), (first, SHIPPED, CONTROL)]
    duels += [(first, SHIPPED, BEST.replace(LINEAR, BOOSTED))]
    rows = []
    for among, one, other in duels:
        if one not in among or other not in among:
            continue
        left, right = among[one], among[other]
        means = resampled_means([left.accuracy - right.accuracy, left.tokens - right.tokens, among[BASE].tokens])
        low, high = np.quantile(means[1] / means[2], [0.025, 0.975])
        points = interval((left.accuracy - right.accuracy).mean(), *np.quantile(means[0], [0.025, 0.975]))
        ratio = (left.tokens - right.tokens).mean() / among[BASE].tokens.mean()
        rows.append({"set": name, "pair": f"{one} against {other}", "points": points, "ratio difference": ratio})
        rows[-1] |= {"low": float(low), "high": float(high)}
    return rows


def plot_rows(name: str, path: Path, orders: int, curves: Curves) -> Table:
    """Accuracy over tokens for the sweep of operating points, and self-consistency beside it."""
    data = Set(load(path), orders)
    rows = [
        _point(name, "self-consistency", n, data.size(n).accuracy, data.size(n).tokens) for n in (1, 2, 4, 8, 16, DEPTH)
    ]
    for way in SHOWN:
        accuracy, tokens = curves[way]
        mean = tokens.mean(axis=1)
        wanted = np.geomspace(mean.min(), mean.max(), 12)
        chosen = sorted({int(np.abs(np.log(mean / one)).argmin()) for one in wanted}, key=lambda i: mean[i])
        label = "oracle" if way == "oracle" else way
        rows += [_point(name, label, k, accuracy[i], tokens[i]) for k, i in enumerate(chosen, start=1)]
    return rows


def _point(name: str, way: str, n: int, accuracy: np.ndarray, tokens: np.ndarray) -> dict[str, Any]:
    low, high = intervals(accuracy[None])
    row = {"traces": name, "strategy": way, "n": n, "accuracy": accuracy.mean(), "tokens": tokens.mean()}
    return row | {"accuracy_low": low[0], "accuracy_high": high[0]}


def verifier(folder: Path, names: list[str]) -> dict[str, Any]:
    """Who gave the scores, by results/prm.json: aggregation, temperature, active parameters, tokens read; and for
    which sets there are some. Empty where there are none."""
    sets = [name for name in names if (folder / f"{name.replace(' ', '-')}.parquet").exists()]
    if not sets:
        return {}
    told = json.loads((RESULTS / "prm.json").read_text())
    read = {name: found["tokens"] for name, found in told["sets"].items()}
    return {**told["settings"]["verifier"], "tokens": read, "sets": sets}


def earlier() -> tuple[dict[str, Any], Table, str | None]:
    """What the last run with scores has measured with a verifier's votes, and when; nothing if there was none."""
    file = RESULTS / "auto.json"
    told = json.loads(file.read_text()) if file.exists() else {}
    settings = told.get("settings", {})
    if not told.get("verifier_votes") or not isinstance(settings.get("verifier"), dict):
        return {}, [], None
    return settings["verifier"], told["verifier_votes"], settings.get("verifier's rows measured", told["date"])


def log_odds(folder: Path, name: str, about: dict[str, Any], out: Path) -> Path:
    """One number a sample from the kept logits of its steps, for the workers."""
    import pyarrow.parquet as parquet

    from outthink.training.judgement import solution_scores

    rows = parquet.read_table(folder / f"{name.replace(' ', '-')}.parquet").to_pylist()
    logits = [np.array(row["logits"], np.float32) for row in rows]
    share = np.clip(solution_scores(logits, about["aggregation"], about["temperature"]), 1e-6, 1 - 1e-6)
    found = out / f"{name.replace(' ', '-')}.npz"
    problem, index = (np.array([row[key] for row in rows]) for key in ("problem_id", "sample_idx"))
    np.savez(found, problem=problem, index=index, value=np.log(share / (1 - share)))
    return found


def share_read(path: Path, name: str, about: dict[str, Any]) -> float:
    """FLOPs of the verifier over those of the model, for the same samples."""
    from outthink.economics.tariff import active_parameters

    recorded = load(path)
    made = sum((s.tokens or 0) + (s.prompt_tokens or 0) for p in recorded.problems.values() for s in p.sampled[:DEPTH])
    read = about["tokens"].get(name, made) / made
    return read * float(about["parameters"]) / float(active_parameters(recorded.model) or np.nan)


def targets(rows: Table, paid: Table) -> list[dict[str, Any]]:
    """Tokens for the accuracy of self-consistency@32 less 0.5 points, against goals and against the control."""
    found = {(row["set"], row["way"]): row for row in rows + paid}
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        mine, ours = found[name, BEST], found[name, SHIPPED]
        others = [found[name, way]["ratio"] for way in ("adaptive-consistency", "esc")]
        title = f"{name}: tokens for the accuracy of {BASE} - 0.5 points"
        for limit in (KNOWN.get(name), GOALS.get(name)):
            for way, row in (("linear gain", mine), (SHIPPED, ours)):
                if limit is not None:
                    lines.append(_line(f"{title}, {way}", f"<= {limit}", row, row["ratio"] <= limit))
        limit = f"below adaptive-consistency and ESC: {others[0]:.2f}, {others[1]:.2f}"
        lines.append(_line(f"{title}, {SHIPPED}", limit, ours, ours["ratio"] < min(others)))
        shown = f"{mine['to control']:+.3f} [{mine['to control low']:+.3f}, {mine['to control high']:+.3f}]"
        title = f"{name}: share of the linear gain less that of the tuned control"
        lines.append(target(title, "below 0", shown, mine["to control high"] < 0))
    for name, limit in PAID_GOALS.items():
        if (name, f"{LINEAR}, {PAID}") in found:
            row = found[name, f"{LINEAR}, {PAID}"]
            lines.append(
                _line(f"{name}: FLOPs with a verifier's votes, charged", f"<= {limit}", row, row["ratio"] <= limit)
            )
    return lines


def _line(title: str, limit: str, row: dict[str, Any], met: bool) -> dict[str, Any]:
    measured = f"{row['ratio']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}], {row['difference']} points"
    return target(title, limit, measured, met and float(row["difference"].split()[0]) >= -0.5)


def judged(chosen: Any, files: dict[str, Path], orders: dict[str, int], about: dict[str, Any]) -> tuple[Judged, Judged]:
    """Every set under every partition, on all workers: without a verifier, and with one where there are scores."""
    found: dict[tuple[str, int], Any] = {}
    paid: dict[tuple[str, int], Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(chosen.workers, mp_context=get_context("spawn")) as pool,
    ):
        for partition in range(chosen.partitions):
            for name, path in files.items():
                where = path, orders[name], chosen.folds, partition
                found[name, partition] = pool.submit(compare, *where, trees=not chosen.quick, shipped=partition == 0)
        for name in about.get("sets", ()):
            kept = log_odds(chosen.scores, name, about, Path(folder))
            read = share_read(files[name], name, about)
            for partition in range(chosen.partitions):
                where = files[name], kept, read, orders[name], chosen.folds, partition
                paid[name, partition] = pool.submit(compare_scored, *where)
        results = [{key: job.result() for key, job in jobs.items()} for jobs in (found, paid)]
    return results[0], results[1]


def flags() -> Any:
    """The command line."""
    options = parser(__doc__)
    options.add_argument("--partitions", type=int, default=2, help="random partitions into outer folds (default 2)")
    options.add_argument("--folds", type=int, default=5, help="outer folds (default 5)")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--scores", type=Path, metavar="FOLDER", help="logits kept by benchmarks/prm.py --scores")
    quick = "2 orders, 1 partition, no trees; writes to $OUTTHINK_RESULTS only"
    options.add_argument("--quick", action="store_true", help=quick)
    chosen = options.parse_args()
    chosen.partitions = 1 if chosen.quick else chosen.partitions
    return chosen


def main() -> int:
    """Fit, judge, compare, print, write."""
    chosen, files = flags(), traces()
    if len(files) < 4:
        return skip(NO_TRACES)
    before = load_average()
    orders = {name: 2 if chosen.quick else orders_for(len(load(path).problems)) for name, path in files.items()}
    about = verifier(chosen.scores, list(files)) if chosen.scores else {}
    found, paid = judged(chosen, files, orders, about)
    rows, points, weighed, duels = [], [], [], []
    for name, path in files.items():
        parts = [found[name, partition] for partition in range(chosen.partitions)]
        ways, curves = together(parts)
        rows += rows_of(name, ways, parts, CONTROL)
        duels += pairs_of(name, ways, parts[0].ways)
        points += plot_rows(name, path, orders[name], curves)
    for name in about.get("sets", ()):
        parts = [paid[name, partition] for partition in range(chosen.partitions)]
        weighed += rows_of(name, together(parts)[0], parts, f"{CONTROL}, {PAID}")
    show(
        f"against {BASE}, held-out problems",
        [{key: value for key, value in row.items() if key != "chosen"} for row in rows],
    )
    show("votes weighed by a verifier's score, charged", weighed)
    show("paired differences", duels)
    if chosen.quick and not os.environ.get("OUTTHINK_RESULTS"):
        return 0
    when = None
    if not about:
        about, weighed, when = earlier()
    note = "Held-out problems, nested folds; self-consistency at 1 to 32 samples."
    (RESULTS / "auto.svg").write_text(draw(points, title="When to stop", subtitle=note) + "\n")
    settings = {"orders": orders, "folds": chosen.folds, "partitions": chosen.partitions, "margin": MARGIN}
    settings |= {"verifier": about or NO_SCORES, "first partition only": SHIPPED}
    if when is not None:
        settings["verifier's rows measured"] = when
    tables = {"compared": rows, "paired": duels, "verifier_votes": weighed, "curves": points}
    save("auto", settings=settings, targets=targets(rows, weighed), load_before=before, **tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
