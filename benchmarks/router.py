"""Routes GSM8K and MMLU prompts between a weak and a strong model and compares with the controls.

    python benchmarks/router.py

Five folds grouped by prompt, calibration inside of them; GSM8K also with labels read from the responses and
with answers at published prices, MMLU also with its subject, and each set judged by a router trained on the
other. Writes results/router.json and results/router.svg (accuracy over cost, reliability). Rows are read
from ../shared/data/routing (or OUTTHINK_ROUTING); without them the exit code is 77.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet

from common import RESULTS, ROOT, load_average, parser, save, show, skip, target
from line_panels import Line, Square, draw_lines
from outthink.controller.router.artefact import load
from outthink.economics.price import lookup
from outthink.evaluation.routing.data import CORE_HOUR, read_outcomes
from outthink.evaluation.routing.report import Report
from outthink.evaluation.routing.run import held_out, judge_recipe, train
from outthink.evaluation.routing.training import ONE_ANSWER

DATA = Path(os.environ.get("OUTTHINK_ROUTING") or ROOT.parent / "shared" / "data" / "routing")
GOLD = DATA.parent / "traces" / "problems-gsm8k.parquet"
SEEDS = 5
_KEYS = ("n", "weak", "strong", "apgr", "apgr_low", "apgr_high", "paired_low", "paired_high", "cpt50", "cpt80")
PRICED = {"weak": "open-mixtral-8x7b", "strong": "gpt-4-1106-preview"}
TOKEN = 4
"""Characters of a token, to put a price on recorded texts."""
_MEMORY = """
import json, resource, sys
from pathlib import Path
from outthink.controller.router.artefact import load
def kilobytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024
before = kilobytes()
router = load(Path(sys.argv[1]))
router.predict("How many legs do three cats have?")
print(kilobytes() - before)
"""


def row(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    figures = {key: report[key] for key in _KEYS}
    half = None if report["apgr"] is None else (report["apgr_high"] - report["apgr_low"]) / 2
    controls = report["controls"]
    control = {f"{one}_apgr": controls[one]["apgr"] for one in ("length", "oracle")}
    control |= {f"{one}_auc_cost": controls[one]["auc_cost"] for one in ("random", "length", "oracle")}
    cost = {"auc_cost": report["auc_cost"], "router_cost_share": report["router_cost_share"]}
    return {"set": name, **figures, "apgr_half_width": half, **cost, **control, "ece": report["ece"]}


def priced(data: Path, out: Path) -> Path:
    """The rows with `weak_cost` and `strong_cost`: dollars of prompt and response at published prices."""
    table = parquet.read_table(data)
    prompts = table["prompt"].to_pylist()
    for side, model in PRICED.items():
        price = lookup(model)
        assert price is not None
        texts = table[f"{side}_response"].to_pylist()
        costs = [
            price.cost(len(prompt) // TOKEN, 0, len(text) // TOKEN) for prompt, text in zip(prompts, texts, strict=True)
        ]
        table = table.append_column(f"{side}_cost", pyarrow.array(costs))
    parquet.write_table(table, out)
    return out


def picture(reports: dict[str, dict[str, Any]]) -> str:
    """Accuracy over the share of the extra cost beside the controls, and what the probabilities mean."""
    squares = []
    for name, report in reports.items():
        weak, strong = report["weak"], report["strong"]
        points = [(point["cost_share"], point["accuracy"]) for point in report["curve"]]
        low, high = 0.02 * int(50 * weak), 0.02 * (1 + int(50 * max(y for _, y in points)))
        lines = [Line("a random mix", [(0, weak), (1, strong)], reference=True), Line("router", points)]
        across = "share of the extra cost, the router's included"
        squares.append(Square(f"{name}: accuracy over cost", across, "accuracy", lines, up=(low, high)))
    for name, report in reports.items():
        lines = [Line("as predicted", [(0, 0), (1, 1)], reference=True)]
        for head, target_ in report["targets"].items():
            bins = [(row["predicted"], row["right"]) for row in target_["reliability"]]
            lines.append(Line(f"{head} model", bins))
        said = " and ".join(f"{one['ece']:.3f}" for one in report["targets"].values())
        squares.append(Square(f"{name}: ECE {said}", "predicted", "right", lines))
    return draw_lines(
        squares,
        title="Routing between Mixtral-8x7B and GPT-4, held out",
        subtitle="Five folds grouped by prompt. Dashed: a random mix of both models; perfect calibration.",
    )


def speed(folder: Path, data: Path, count: int = 1000) -> dict[str, float]:
    """Processor milliseconds a request of a stored router: mean, 99th percentile, and a prompt of 100,000 letters."""
    router, rows = load(folder), read_outcomes(data)
    prompts = rows.prompts[:: max(1, len(rows) // count)]
    taken = []
    for prompt in [*prompts, "many words " * 9000]:
        began = time.process_time()
        router.predict(prompt)
        taken.append(1000 * (time.process_time() - began))
    return {"mean_ms": float(np.mean(taken[:-1])), "p99_ms": float(np.quantile(taken[:-1], 0.99)), "long_ms": taken[-1]}


def weight(folder: Path) -> dict[str, float]:
    """Megabytes of a loaded router, and of its files."""
    done = subprocess.run([sys.executable, "-c", _MEMORY, str(folder)], capture_output=True, text=True, check=True)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    return {"resident_mb": json.loads(done.stdout) / 1024, "files_mb": size}


def targets(first: Report, repeated: list[float], alone: Report, told: Report, cost: dict[str, float]) -> list[Report]:
    """What was promised and what was found."""
    return [
        target("GSM8K APGR", ">= 0.65", round(first["apgr"], 4), first["apgr"] >= 0.65),
        target(
            "GSM8K APGR, mean of five fold seeds", ">= 0.65", round(np.mean(repeated), 4), np.mean(repeated) >= 0.65
        ),
        target("MMLU APGR, prompt alone", ">= 0.67", round(alone["apgr"], 4), alone["apgr"] >= 0.67),
        target("MMLU APGR minus length, lower", "> 0", round(alone["paired_low"], 4), alone["paired_low"] > 0),
        target("MMLU APGR, with subject", ">= 0.69", round(told["apgr"], 4), told["apgr"] >= 0.69),
        target("processor time a request, mean", "< 5 ms", round(cost["mean_ms"], 2), cost["mean_ms"] < 5),
        target("processor time a request, p99", "< 5 ms", round(cost["p99_ms"], 2), cost["p99_ms"] < 5),
        target("memory of a loaded router", "< 150 MB", round(cost["resident_mb"], 1), cost["resident_mb"] < 150),
    ]


def main() -> int:
    """Measure everything and write results/router.json."""
    parser(__doc__).parse_args()
    gsm8k, mmlu = DATA / "gsm8k.parquet", DATA / "mmlu.parquet"
    if not (gsm8k.is_file() and mmlu.is_file() and GOLD.is_file()):
        return skip("the routing sets are not in ../shared/data/routing; set OUTTHINK_ROUTING to their folder")
    busy = load_average()
    seeds = [judge_recipe(gsm8k, replace(ONE_ANSWER, seed=seed), gold=GOLD) for seed in range(SEEDS)]
    alone = judge_recipe(mmlu, ONE_ANSWER)
    told = judge_recipe(mmlu, replace(ONE_ANSWER, subject=True))
    with tempfile.TemporaryDirectory() as name:
        folders = {path.stem: Path(name) / path.stem for path in (gsm8k, mmlu)}
        for path in (gsm8k, mmlu):
            train(path, folders[path.stem], ONE_ANSWER)
        dollars = judge_recipe(priced(gsm8k, Path(name) / "priced.parquet"), ONE_ANSWER)
        across = {
            "GSM8K by MMLU's": held_out(gsm8k, folders["mmlu"]),
            "MMLU by GSM8K's": held_out(mmlu, folders["gsm8k"]),
        }
        cost = speed(folders["mmlu"], mmlu) | weight(folders["mmlu"])
    first = seeds[0]
    table = [
        row("GSM8K", first),
        row("GSM8K, rows with a gold answer", first["same_rows_as_given"]),
        row("GSM8K, the same regraded", first["regraded"]),
        row("GSM8K, costs in dollars", dollars),
        row("MMLU", alone),
        row("MMLU, subject given", told),
        *(row(f"{name} router", report) for name, report in across.items()),
    ]
    show("cross-fitted, five grouped folds", table)
    repeated = [report["apgr"] for report in seeds]
    save(
        "router",
        settings={"folds": 5, "seeds": SEEDS, "recipe": first["recipe"], "resamples": 2000},
        targets=targets(first, repeated, alone, told, cost),
        load_before=busy,
        prices={side: {"model": model, "characters_a_token": TOKEN} for side, model in PRICED.items()},
        core_hour_usd=CORE_HOUR,
        rows=table,
        gsm8k_apgr_by_seed=repeated,
        cost=cost,
        reliability={"GSM8K": first["targets"], "MMLU": alone["targets"]},
        curves={
            "GSM8K": first["curve"],
            "GSM8K, costs in dollars": dollars["curve"],
            "MMLU": alone["curve"],
            "MMLU, subject given": told["curve"],
        },
    )
    (RESULTS / "router.svg").write_text(picture({"GSM8K": dollars, "MMLU": alone, "MMLU, subject given": told}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
