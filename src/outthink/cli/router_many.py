"""`outthink router` for files of several models by name: the same two steps, other figures."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from outthink.core.errors import BadInput

if TYPE_CHECKING:
    from outthink.evaluation.routing.report import Report

_TWO = "is for a weak and a strong model only"


def train_several(chosen: argparse.Namespace) -> int:
    """Train, write, and show what held-out training prompts say."""
    from outthink.evaluation.routing.run import train_many
    from outthink.evaluation.routing.training import RouterRecipe

    if chosen.subject:
        raise BadInput("--subject", True, _TWO, "leave it out")
    identity, report = train_many(chosen.data, chosen.out, RouterRecipe(seed=chosen.seed))
    _show(report)
    print(f"wrote {chosen.out}, router {identity[:12]}; the figures are those of its held-out training prompts")
    return 0


def judge_several(chosen: argparse.Namespace) -> int:
    """Evaluate a stored router, or the recipe by cross-fitting."""
    from outthink.evaluation.routing.run import cross_fitted_many, held_out_many
    from outthink.evaluation.routing.training import RouterRecipe

    for flag, given in (("--subject", chosen.subject or None), ("--gold", chosen.gold)):
        if given is not None:
            raise BadInput(flag, given, _TWO, "leave it out")
    if chosen.cross_fit:
        report = cross_fitted_many(chosen.data, RouterRecipe(seed=chosen.seed), folds=chosen.folds)
    elif chosen.router is None:
        raise BadInput("--router", None, "is missing", "give the folder of `router train`, or --cross-fit")
    else:
        report = held_out_many(chosen.data, chosen.router)
    if chosen.json:
        print(json.dumps(report, allow_nan=False))
    else:
        _show(report)
    return 0


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("way", "parameter", "accuracy", "cost", *report["models"], "over the best mix"):
        table.add_column(name, justify="right" if name != "way" else "left")
    for row in report["routes"]:
        shares = [f"{share:.0%}" for share in row["shares"]]
        gain = f"{100 * row['gain']:+.1f} [{100 * row['gain_low']:+.1f}, {100 * row['gain_high']:+.1f}]"
        accuracy, cost = f"{row['accuracy']:.1%}", f"{row['cost']:.4g}"
        table.add_row(row["way"], f"{row['parameter']:.2g}", accuracy, cost, *shares, gain)
    Console().print(table)
    alone = ", ".join(
        f"{name} {report['accuracy'][name]:.1%} at {report['cost'][name]:.4g}" for name in report["models"]
    )
    print(f"{report['n']} rows, {report['dropped_contaminated']} contaminated rows dropped; alone: {alone}")
    controls = report["controls"]
    print(
        f"accuracy over cost {report['auc_cost']:.4f} [{report['auc_cost_low']:.4f}, {report['auc_cost_high']:.4f}], "
        f"best random mixes {controls['random']['auc_cost']:.4f}, oracle {controls['oracle']['auc_cost']:.4f}; "
        f"minus the mixes' [{report['paired_low']:.4f}, {report['paired_high']:.4f}]; ECE {report['ece']:.3f}"
    )
