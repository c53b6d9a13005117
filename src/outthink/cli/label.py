"""`outthink label`: process labels for recorded samples."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.cli.engine import chosen_engine, engine_arguments
from outthink.core.errors import BadInput
from outthink.core.request import ANSWER_KINDS

if TYPE_CHECKING:
    from outthink.training.label import Labelling

_EPILOG = "interrupted or killed, the same command goes on where it was"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("samples", type=Path, metavar="SAMPLES.parquet", help="recorded samples (outthink record)")
    add("--problems", type=Path, required=True, metavar="FILE", help="their questions and gold answers")
    engine_arguments(parser)
    add("--out", type=Path, required=True, metavar="STEPS.parquet", help="where the labels go")
    add("--completions", type=int, default=8, metavar="N", help="completions of each prefix (default 8)")
    add("--steps", type=int, default=24, metavar="N", help="only the first N steps of a solution (default 24)")
    add("--solutions", type=int, default=4, metavar="N", help="only the first N samples of a problem (default 4)")
    add("--limit", type=int, metavar="N", help="only the first N problems")
    add("--answer", choices=ANSWER_KINDS, default="number", help="kind of answer (default number)")
    add("--style", metavar="NAME", help="prompt style the samples were drawn with, see `outthink strategies`")
    add("--system", help="system prompt the samples were drawn with")
    add("--instruction", metavar="TEXT", help="line added to each question when the samples were drawn")
    add("--max-tokens", type=int, default=256, help="cap of one completion (default 256)")
    add("--temperature", type=float, default=0.8, help="default 0.8")
    add("--seed", type=int, default=0, help="default 0")


def run(chosen: argparse.Namespace) -> int:
    """Label, with a progress bar."""
    from outthink.core.request import Sampling
    from outthink.strategies.prompts import STYLES
    from outthink.training.label import Labelling

    for name in ("completions", "steps", "solutions", "limit"):
        value = getattr(chosen, name)
        if value is not None and value < 1:
            raise BadInput(f"--{name}", value, "is below 1", "give at least 1")
    if chosen.style is not None and chosen.style not in STYLES:
        raise BadInput("--style", chosen.style, "is not known", f"use one of {', '.join(STYLES)}")
    plan = Labelling(
        completions=chosen.completions,
        steps=chosen.steps,
        answer=chosen.answer,
        sampling=Sampling(temperature=chosen.temperature, max_tokens=chosen.max_tokens),
        seed=chosen.seed,
        style=chosen.style,
        system=chosen.system,
        instruction=chosen.instruction,
    )
    rows = asyncio.run(_label(chosen, plan))
    print(f"wrote {rows} rows to {chosen.out}")
    return 0


async def _label(chosen: argparse.Namespace, plan: Labelling) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from outthink.evaluation.dataset import open_dataset
    from outthink.training.label import label
    from outthink.training.solutions import read_samples

    dataset = open_dataset(str(chosen.problems), chosen.answer)
    questions = {problem.problem_id: problem.question for problem in dataset.problems}
    collection = read_samples(chosen.samples, questions, limit=chosen.limit, per_problem=chosen.solutions)
    engine = chosen_engine(chosen)
    columns = TextColumn("saved"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("saved", total=None)

            def progress(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)
                if not sys.stderr.isatty():
                    print(f"saved {done} of {total}", file=sys.stderr, flush=True)

            return await label(dataset, collection.solutions, engine, chosen.out, plan, progress=progress)
    finally:
        await engine.aclose()
