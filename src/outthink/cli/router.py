"""`outthink router`: train a router on recorded outcomes, and say what it is worth beside its controls.

A file with `weak_correct` and `strong_correct` makes a router between two models, one with NAME_correct and
NAME_cost of other names one over all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.core.errors import BadInput

if TYPE_CHECKING:
    from outthink.evaluation.routing.report import Report

_EPILOG = """outthink router train DATA.parquet --out DIR
outthink router eval DATA.parquet --router DIR --json
DATA: prompt, weak_correct, strong_correct; optional subject, contaminated, weak_cost and strong_cost;
or prompt, and NAME_correct and NAME_cost of two or more models"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of both steps."""
    parser.epilog = _EPILOG
    steps = parser.add_subparsers(dest="step", metavar="train|eval", required=True)
    train = steps.add_parser("train", help="learn from prompts with outcomes", description="Train a router.")
    train.add_argument("data", type=Path, metavar="DATA", help="Parquet file with prompts and outcomes")
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the router")
    train.add_argument("--subject", action="store_true", help="read the column `subject`, too")
    train.add_argument("--seed", type=int, default=0, help="of the folds that calibrate (default 0)")
    judge = steps.add_parser("eval", help="accuracy against calls and cost", description="Evaluate a router.")
    judge.add_argument("data", type=Path, metavar="DATA", help="Parquet file with prompts and outcomes")
    judge.add_argument("--router", type=Path, metavar="DIR", help="folder of `router train`")
    judge.add_argument("--cross-fit", action="store_true", help="train anew on DATA without each fold in turn")
    judge.add_argument("--folds", type=int, default=5, help="folds of --cross-fit (default 5)")
    judge.add_argument("--subject", action="store_true", help="with --cross-fit and no DIR: read `subject`, too")
    judge.add_argument("--seed", type=int, default=0, help="of the folds of --cross-fit (default 0)")
    judge.add_argument("--gold", type=Path, metavar="FILE", help="problems: figures on regraded responses beside")
    judge.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(chosen: argparse.Namespace) -> int:
    """Train or evaluate."""
    return _train(chosen) if chosen.step == "train" else _eval(chosen)


def _train(chosen: argparse.Namespace) -> int:
    from outthink.evaluation.routing.run import train
    from outthink.evaluation.routing.training import RouterRecipe

    if _several(chosen):
        from outthink.cli.router_many import train_several

        return train_several(chosen)
    identity, report = train(chosen.data, chosen.out, RouterRecipe(subject=chosen.subject, seed=chosen.seed))
    _show(report)
    print(f"wrote {chosen.out}, router {identity[:12]}; the figures are those of its held-out training prompts")
    return 0


def _eval(chosen: argparse.Namespace) -> int:
    from dataclasses import replace

    from rich.console import Console
    from rich.progress import Progress

    from outthink.evaluation.routing.run import cross_fitted, held_out, recipe_of
    from outthink.evaluation.routing.training import RouterRecipe

    if _several(chosen):
        from outthink.cli.router_many import judge_several

        return judge_several(chosen)
    if not chosen.cross_fit:
        if chosen.router is None:
            raise BadInput("--router", None, "is missing", "give the folder of `router train`, or --cross-fit")
        if chosen.subject:
            raise BadInput("--subject", True, "is decided when a router is trained", "leave it out, or --cross-fit")
        report = held_out(chosen.data, chosen.router, gold=chosen.gold)
    else:
        recipe = recipe_of(chosen.router) if chosen.router else RouterRecipe(subject=chosen.subject)
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("training", total=None)
            report = cross_fitted(
                chosen.data,
                replace(recipe, seed=chosen.seed),
                folds=chosen.folds,
                gold=chosen.gold,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    if chosen.json:
        print(json.dumps(report, allow_nan=False))
        return 0
    _show(report)
    return 0


def _several(chosen: argparse.Namespace) -> bool:
    """Whether DATA is about models by name rather than a weak and a strong one."""
    from outthink.evaluation.routing.data import LABELS, columns_of, models_of

    return not set(LABELS) & set(columns_of(chosen.data)) and bool(models_of(chosen.data))


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "APGR", "CPT50, %", "CPT80, %", "AUC over cost"):
        table.add_column(name, justify="right" if name else "left")
    for name, row in {"router": report, **report["controls"]}.items():
        table.add_row(
            name, _with(row, "apgr", 3), _with(row, "cpt50", 1), _with(row, "cpt80", 1), _cell(row["auc_cost"], 4)
        )
    Console().print(table)
    print(
        f"{report['n']} rows, {report['prompts']} prompts, {report['dropped_contaminated']} contaminated rows dropped; "
        f"weak {report['weak']:.1%}, strong {report['strong']:.1%}"
    )
    print(
        f"APGR minus the length control's: [{_cell(report['paired_low'], 3)}, {_cell(report['paired_high'], 3)}]; "
        f"ECE {report['ece']:.3f}; cost: {report['cost']}"
        + (f"; {report['router_ms']:.2f} ms a request" if report["router_ms"] is not None else "")
    )


def _with(row: Report, name: str, digits: int) -> str:
    text = _cell(row[name], digits)
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return text if low is None else f"{text} [{_cell(low, digits)}, {_cell(high, digits)}]"


def _cell(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
