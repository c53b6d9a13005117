"""`outthink train` and `router`: a verifier from recorded samples, a router from recorded outcomes.

Knows flags, which values make no sense, and the tables of a router's figures. Does not know how anything is trained
or judged.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.cli.options import flags_of, passing_bar, print_table, refuse_below_one, refuse_unwritable
from outthink.controller.router.chooser import pairs_of
from outthink.core.errors import BadInput

if TYPE_CHECKING:
    from outthink.evaluation.routing.report import Report
    from outthink.training.prm import TrainingPlan


_TRAIN_EPILOG = """needs the extra `train`: pip install 'outthink[train]'
A killed run goes on from its checkpoint when started again."""


def train_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _TRAIN_EPILOG
    add = parser.add_argument
    add("what", choices=("prm",), help="a process reward model; without --steps an outcome reward model")
    add("--samples", type=Path, required=True, metavar="FILE.parquet", help="recorded samples to learn from")
    add("--problems", type=Path, required=True, metavar="FILE.parquet", help="their questions")
    add("--steps", type=Path, metavar="FILE.parquet", help="process labels (outthink label)")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where the verifier goes")
    add("--base", default="embedded", metavar="embedded|PATH|NAME", help="model to start from (default embedded)")
    add("--base-name", metavar="NAME", help="how the verifier names its base (default: as --base)")
    add("--layers", type=int, metavar="K", help="keep only the first K layers")
    add("--labels", choices=("soft", "hard"), default="soft", help="share of right completions, or any (soft)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--lora", type=int, default=16, metavar="RANK", help="rank of the adapter (default 16)")
    size.add_argument("--full", action="store_true", help="train all weights and store the whole model")
    add("--delta", type=int, metavar="RANK", help="with --full: store the difference to the base as an adapter")
    add("--epochs", type=int, default=2, help="default 2")
    add("--lr", type=float, help="highest learning rate (default 1e-4, with --lora 5e-4)")
    add("--batch-tokens", type=int, default=65_000, help="tokens of an optimiser step (default 65000)")
    add("--micro-tokens", type=int, help="tokens of one forward pass (default 32768 on a GPU, 4096 on a CPU)")
    add("--outcome-at", choices=("last", "steps", "tokens"), default="last", help="where the grade stands (last)")
    add("--outcome-weight", type=float, default=1.0, help="of the grade before the last token (default 1)")
    add("--step-weight", type=float, default=1.0, help="of process labels (default 1)")
    add("--rank-weight", type=float, default=0.0, help="of the loss over pairs of one problem (default 0)")
    add("--weight-decay", type=float, default=0.01, help="default 0.01")
    add("--dropout", type=float, default=0.0, help="before the output (default 0)")
    add("--max-context", type=int, default=2048, help="longer solutions are left out (default 2048 tokens)")
    add("--holdout", type=float, default=0.05, help="share of problems never learnt from (default 0.05)")
    add("--limit", type=int, metavar="N", help="only the first N problems")
    add("--max-steps", type=int, metavar="N", help="stop after N steps; the same command goes on later")
    add("--device", help="cuda or cpu (default: a GPU if there is one)")
    add("--dtype", choices=("auto", "fp32", "bf16"), default="auto", help="auto: bf16 on a GPU, else fp32")
    add("--compile", action="store_true", help="let torch compile the model")
    add("--seed", type=int, default=0, help="default 0")
    add("--save-seconds", type=float, default=120.0, help="between checkpoints (default 120)")
    add("--tiny", action="store_true", help="smoke test: a random model of two layers, 8 samples of 30 problems")


def run_train(chosen: argparse.Namespace) -> int:
    """Train, saying how it goes."""
    from outthink.training.prm import train_prm

    train_prm(plan_of(chosen, "outthink train " + shlex.join(sys.argv[2:])), say=lambda line: print(line, flush=True))
    return 0


def plan_of(chosen: argparse.Namespace, command: str) -> TrainingPlan:
    """The flags as a plan. BadInput for values that make no sense."""
    from outthink.training.base import BaseShape
    from outthink.training.examples import Targets
    from outthink.training.loop import TrainingSettings
    from outthink.training.prm import TrainingPlan, as_smoke_test

    refuse_below_one(chosen, "epochs", "batch_tokens", "micro_tokens", "max_context", "limit", "max_steps", "delta")
    for name in ("outcome_weight", "step_weight", "rank_weight", "weight_decay", "save_seconds"):
        if not (value := vars(chosen)[name]) >= 0:
            raise BadInput(f"--{name.replace('_', '-')}", value, "is below 0", "give 0 or more")
    if chosen.delta is not None and not chosen.full:
        raise BadInput("--delta", chosen.delta, "goes with --full only", "add --full, or use --lora")
    rank = None if chosen.full else chosen.lora
    rate = chosen.lr if chosen.lr is not None else (1e-4 if rank is None else 5e-4)
    plan = TrainingPlan(
        **flags_of(TrainingPlan, chosen),
        targets=Targets(chosen.outcome_at, chosen.outcome_weight, chosen.step_weight),
        shape=BaseShape(**flags_of(BaseShape, chosen), rank=rank),
        settings=TrainingSettings(**flags_of(TrainingSettings, chosen) | {"lr": rate}),
        command=command,
    )
    return as_smoke_test(plan) if chosen.tiny else plan


# `outthink router`: train a predictor on recorded outcomes, and say what it is worth beside its controls.
#
# A file with `weak_correct` and `strong_correct` makes a router between two models, one with NAME_correct and
# NAME_cost of other names one over all of them.

_ROUTER_EPILOG = """outthink router train DATA.parquet --models weak=NAME,strong=NAME --out DIR
outthink router eval DATA.parquet --router DIR --json
DATA: prompt, weak_correct, strong_correct; optional subject, contaminated, weak_cost and strong_cost;
or prompt, and NAME_correct and NAME_cost of two or more models; optional NAME_tokens
WAY=X: strong-share=S, strong-weak=GAIN, smallest-likely=CHANCE, penalised=PRICE (docs/router.md)"""


def router_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of both steps."""
    parser.epilog = _ROUTER_EPILOG
    steps = parser.add_subparsers(dest="step", metavar="train|eval", required=True)
    train = steps.add_parser("train", help="learn from prompts with outcomes", description="Train a router.")
    judge = steps.add_parser("eval", help="accuracy against calls and cost", description="Evaluate a router.")
    for step in (train, judge):
        step.add_argument("data", type=Path, metavar="DATA", help="Parquet file with prompts and outcomes")
        point = step.add_mutually_exclusive_group()
        point.add_argument(
            "--operating-point", metavar="WAY=X", help="how a model is chosen (default strong-share=0.5)"
        )
        point.add_argument("--strong-share", type=float, metavar="S", help="short for --operating-point strong-share=S")
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for predictor.json")
    train.add_argument("--models", metavar="COLUMN=NAME,...", help="what the models of the columns are called")
    train.add_argument(
        "--parameters", action="extend", nargs="+", default=[], metavar="NAME=N", help="weights read per token"
    )
    train.add_argument("--subject", action="store_true", help="read the column `subject`, too")
    train.add_argument("--seed", type=int, default=0, help="of the folds that calibrate (default 0)")
    judge.add_argument("--router", type=Path, metavar="FILE|DIR", help="predictor of `router train`")
    judge.add_argument(
        "--choices", type=Path, metavar="FILE", help="write the model chosen for each prompt (JSONL, Parquet)"
    )
    judge.add_argument("--cross-fit", action="store_true", help="train anew on DATA without each fold in turn")
    judge.add_argument("--folds", type=int, default=5, help="folds of --cross-fit (default 5)")
    judge.add_argument("--subject", action="store_true", help="with --cross-fit and no --router: read `subject`, too")
    judge.add_argument("--seed", type=int, default=0, help="of the folds of --cross-fit (default 0)")
    judge.add_argument("--gold", type=Path, metavar="FILE", help="problems: figures on regraded responses beside")
    judge.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run_router(chosen: argparse.Namespace) -> int:
    """Train or evaluate."""
    from outthink.controller.router.predictor import read_point

    point = chosen.operating_point
    if chosen.strong_share is not None:
        point = f"strong-share={chosen.strong_share}"
    if point is not None:
        read_point(point)
    if chosen.step == "train":
        return _train(chosen, point)
    report = _cross_fit(chosen, point) if chosen.cross_fit else _held_out(chosen, point)
    if chosen.json:
        print(json.dumps(report, allow_nan=False))
    else:
        _show(report)
    return 0


def _train(chosen: argparse.Namespace, point: str | None) -> int:
    from outthink.evaluation.routing.run import train
    from outthink.evaluation.routing.training import ONE_ANSWER

    names = pairs_of("--models", chosen.models.split(",") if chosen.models else [])
    sizes = pairs_of("--parameters", chosen.parameters)
    for name, size in sizes.items():
        if not size.isdigit() or int(size) < 1:
            raise BadInput("--parameters", f"{name}={size}", "is no number of weights", "give a whole number above 0")
    recipe = replace(ONE_ANSWER, subject=chosen.subject, seed=chosen.seed, point=point)
    parameters = {name: int(size) for name, size in sizes.items()}
    identity, report = train(chosen.data, chosen.out, recipe, names=names, parameters=parameters)
    _show(report)
    print(f"wrote {chosen.out}, router {identity[:12]}; the figures are those of its held-out training prompts")
    return 0


def _held_out(chosen: argparse.Namespace, point: str | None) -> Report:
    from outthink.evaluation.routing.run import held_out

    if chosen.router is None:
        raise BadInput("--router", None, "is missing", "give the predictor of `router train`, or --cross-fit")
    if chosen.subject:
        raise BadInput("--subject", True, "is decided when a router is trained", "leave it out, or --cross-fit")
    refuse_unwritable(chosen, "choices")
    return held_out(chosen.data, chosen.router, gold=chosen.gold, point=point, choices=chosen.choices)


def _cross_fit(chosen: argparse.Namespace, point: str | None) -> Report:
    from outthink.evaluation.routing.run import judge_recipe, recipe_of
    from outthink.evaluation.routing.training import ONE_ANSWER

    if chosen.choices is not None:
        raise BadInput(
            "--choices", str(chosen.choices), "is of one router, and --cross-fit trains several", "give --router"
        )
    recipe = recipe_of(chosen.router) if chosen.router else replace(ONE_ANSWER, subject=chosen.subject)
    recipe = replace(recipe, seed=chosen.seed, point=point or recipe.point)
    with passing_bar("training") as (progress, _):
        return judge_recipe(chosen.data, recipe, folds=chosen.folds, gold=chosen.gold, progress=progress)


def _show(report: Report) -> None:
    if "apgr" in report:
        _show_pair(report)
    else:
        _show_several(report)
    point = report["operating_point"]
    shares = ", ".join(f"{share:.1%} to {model}" for model, share in point["shares"].items())
    parameter = "of each fold" if point["parameter"] is None else f"{point['parameter']:.4g}"
    cost = "" if point["cost"] is None else f", cost {point['cost']:.4g}"
    print(f"operating point {point['way']} {parameter}: {shares}; accuracy {point['accuracy']:.1%}{cost}")


def _show_pair(report: Report) -> None:
    rows = [
        (name, _with(row, "apgr", 3), _with(row, "cpt50", 1), _with(row, "cpt80", 1), _cell(row["auc_cost"], 4))
        for name, row in {"router": report, **report["controls"]}.items()
    ]
    print_table(("", "APGR", "CPT50, %", "CPT80, %", "AUC over cost"), rows)
    alone = " ".join(f"{name} {accuracy:.1%}" for name, accuracy in report["accuracy"].items())
    print(
        f"{report['n']} rows, {report['prompts']} prompts, {report['dropped_contaminated']} contaminated rows dropped; "
        f"{alone}"
    )
    print(
        f"APGR minus the length control's: [{_cell(report['paired_low'], 3)}, {_cell(report['paired_high'], 3)}]; "
        f"ECE {report['ece']:.3f}; cost: {report['cost_source']}"
        + (f"; {report['router_ms']:.2f} ms a request" if report["router_ms"] is not None else "")
    )


def _with(row: Report, name: str, digits: int) -> str:
    text = _cell(row[name], digits)
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return text if low is None else f"{text} [{_cell(low, digits)}, {_cell(high, digits)}]"


def _cell(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _show_several(report: Report) -> None:
    rows = []
    for row in report["routes"]:
        shares = [f"{share:.0%}" for share in row["shares"]]
        gain = f"{100 * row['gain']:+.1f} [{100 * row['gain_low']:+.1f}, {100 * row['gain_high']:+.1f}]"
        accuracy, cost = f"{row['accuracy']:.1%}", f"{row['cost']:.4g}"
        rows.append((row["way"], f"{row['parameter']:.2g}", accuracy, cost, *shares, gain))
    print_table(("way", "parameter", "accuracy", "cost", *report["models"], "over the best mix"), rows)
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
