"""`outthink record`: sample a data set into a file that compare can replay."""

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
    from outthink.evaluation.dataset import Dataset
    from outthink.evaluation.record import Recording

_EPILOG = "DATASET: JSONL or Parquet with question and answer columns, or reasoning-gym:TASK?size=20&seed=1"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("dataset", metavar="DATASET", help="where the questions come from")
    engine_arguments(parser)
    add("--samples", type=int, default=8, metavar="N", help="sampled completions a problem (default 8)")
    add("--greedy", action="store_true", help="add one completion at temperature 0 (row 0)")
    add("--out", type=Path, required=True, metavar="FILE.parquet", help="<model>--<dataset>.parquet is a good name")
    add("--answer", choices=ANSWER_KINDS, default="text", help="kind of answer (default text)")
    add("--style", metavar="NAME", help="prompt style, see `outthink strategies`")
    add("--system", help="system prompt")
    add("--limit", type=int, metavar="N", help="only the first N problems")
    add("--max-tokens", type=int, default=512, help="cap of one completion (default 512)")
    add("--temperature", type=float, default=0.8, help="default 0.8")
    add("--seed", type=int, default=0, help="sample i is drawn with seed + i (default 0)")
    add("--top-logprobs", type=int, default=20, help="alternatives a token for confidences (default 20)")


def run(chosen: argparse.Namespace) -> int:
    """Record, with a progress bar; interrupted or killed, the same command goes on where it was."""
    from outthink.core.request import Sampling
    from outthink.evaluation.dataset import open_dataset
    from outthink.evaluation.record import Recording
    from outthink.strategies.prompts import STYLES

    if chosen.samples < 0 or chosen.samples + chosen.greedy < 1:
        raise BadInput("--samples", chosen.samples, "leaves nothing to record", "give at least 1")
    if chosen.limit is not None and chosen.limit < 1:
        raise BadInput("--limit", chosen.limit, "is below 1", "give at least 1")
    if chosen.style is not None and chosen.style not in STYLES:
        raise BadInput("--style", chosen.style, "is not known", f"use one of {', '.join(STYLES)}")
    plan = Recording(
        samples=chosen.samples,
        greedy=chosen.greedy,
        answer=chosen.answer,
        sampling=Sampling(temperature=chosen.temperature, max_tokens=chosen.max_tokens),
        seed=chosen.seed,
        top_logprobs=chosen.top_logprobs,
        style=chosen.style,
        system=chosen.system,
    )
    dataset = open_dataset(chosen.dataset, chosen.answer, limit=chosen.limit)
    rows = asyncio.run(_record(chosen, dataset, plan))
    print(f"wrote {rows} rows to {chosen.out}")
    return 0


async def _record(chosen: argparse.Namespace, dataset: Dataset, plan: Recording) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from outthink.evaluation.record import record

    engine = chosen_engine(chosen)
    columns = TextColumn("saved"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("saved", total=None)

            def progress(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)
                if not sys.stderr.isatty():
                    print(f"saved {done} of {total}", file=sys.stderr, flush=True)

            return await record(dataset, engine, chosen.out, plan, progress=progress)
    finally:
        await engine.aclose()
