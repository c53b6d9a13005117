"""`outthink train`: a verifier from recorded samples."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.core.errors import BadInput

if TYPE_CHECKING:
    from outthink.training.prm import TrainingPlan

_EPILOG = "needs pip install 'outthink[train]'; a killed run goes on from its checkpoint when started again"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _EPILOG
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


def run(chosen: argparse.Namespace) -> int:
    """Train, saying how it goes."""
    from outthink.training.prm import train_prm

    train_prm(plan_of(chosen, "outthink train " + shlex.join(_given())), say=lambda line: print(line, flush=True))
    return 0


def plan_of(chosen: argparse.Namespace, command: str) -> TrainingPlan:
    """The flags as a plan. BadInput for values that make no sense."""
    from outthink.training.base import BaseShape
    from outthink.training.examples import Targets
    from outthink.training.loop import TrainingSettings
    from outthink.training.prm import TrainingPlan, as_smoke_test

    for name in ("epochs", "batch_tokens", "micro_tokens", "max_context", "limit", "max_steps", "delta"):
        value = getattr(chosen, name)
        if value is not None and value < 1:
            raise BadInput(f"--{name.replace('_', '-')}", value, "is below 1", "give at least 1")
    for name in ("outcome_weight", "step_weight", "rank_weight", "weight_decay", "save_seconds"):
        if not getattr(chosen, name) >= 0:
            raise BadInput(f"--{name.replace('_', '-')}", getattr(chosen, name), "is below 0", "give 0 or more")
    if chosen.delta is not None and not chosen.full:
        raise BadInput("--delta", chosen.delta, "goes with --full only", "add --full, or use --lora")
    rank = None if chosen.full else chosen.lora
    rate = chosen.lr if chosen.lr is not None else (1e-4 if rank is None else 5e-4)
    plan = TrainingPlan(
        samples=chosen.samples,
        problems=chosen.problems,
        steps=chosen.steps,
        out=chosen.out,
        labels=chosen.labels,
        holdout=chosen.holdout,
        limit=chosen.limit,
        max_context=chosen.max_context,
        targets=Targets(chosen.outcome_at, chosen.outcome_weight, chosen.step_weight),
        shape=BaseShape(base=chosen.base, layers=chosen.layers, rank=rank, dropout=chosen.dropout, seed=chosen.seed),
        settings=TrainingSettings(
            epochs=chosen.epochs,
            lr=rate,
            batch_tokens=chosen.batch_tokens,
            micro_tokens=chosen.micro_tokens,
            rank_weight=chosen.rank_weight,
            weight_decay=chosen.weight_decay,
            device=chosen.device,
            dtype=chosen.dtype,
            compile=chosen.compile,
            seed=chosen.seed,
            save_seconds=chosen.save_seconds,
            max_steps=chosen.max_steps,
        ),
        base_name=chosen.base_name,
        delta=chosen.delta,
        command=command,
    )
    return as_smoke_test(plan) if chosen.tiny else plan


def _given() -> list[str]:
    """The arguments after the verb, as typed."""
    return sys.argv[2:]
