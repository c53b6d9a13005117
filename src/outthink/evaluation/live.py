"""A live comparison from data sets to rows and files of samples.

Knows: names of files, the order of work, and when a journal may go. Does not know how a request is
run or what a row says.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from outthink.core.request import Request
from outthink.engines.protocol import Call, Engine
from outthink.evaluation.arena import Arena, Plan
from outthink.evaluation.dataset import Dataset
from outthink.evaluation.live_rows import live_rows, write_samples
from outthink.evaluation.rows import Row
from outthink.evaluation.scores import remove_journal
from outthink.evaluation.verify import close
from outthink.strategies import Spec
from outthink.verifiers.protocol import Verifier

DEFAULT = ("self-consistency", "adaptive-consistency", "esc")
Judge = Callable[[Dataset], Verifier | None]


async def live(
    datasets: Sequence[Dataset],
    engine: Engine,
    specs: Sequence[Spec],
    plan: Plan,
    folder: Path,
    judge: Judge = lambda dataset: None,
    *,
    progress: Callable[[str], Callable[[int, int], None]] = lambda name: lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Compare live on every data set; one row for each strategy and budget.

    Args:
        folder: gets `<model>--<dataset>.parquet` with all whole samples, journals while the run lasts.
        judge: opens the verifier for a data set.
        progress: from a data set's name to a function called with (requests done, in all).
        say: receives one line for each file written.

    Raises BadInput if a file is there already or its journal is of another run, EngineError where the
    engine dies: what was run is kept, run again.
    """
    await engine.prepare(Call(_first(datasets, plan).messages, plan.sampling))
    model = re.sub(r"[^\w.+-]+", "-", engine.model)
    rows: list[Row] = []
    outs = []
    for dataset in datasets:
        out = folder / f"{model}--{dataset.name}.parquet"
        verifier = await asyncio.to_thread(judge, dataset)  # opening one may take long, or ask a server
        arena = Arena(dataset, engine, verifier, plan, out)
        try:
            fields = await arena.contest(specs, progress=progress(out.stem))
            written, parts = write_samples(out, arena.store, dataset, plan.describe(engine, dataset))
        finally:
            arena.close()
            if verifier is not None:
                await close(verifier)
        more = f" and {parts} unfinished or other texts to {out.stem}.parts.jsonl" if parts else ""
        say(f"wrote {written} samples to {out}{more}")
        rows += live_rows(out.stem, engine.model, dataset, fields, plan.ahead)
        outs.append(out)
    for out in outs:  # a data set that is done stays resumable until all are
        remove_journal(out)
    return rows


def _first(datasets: Sequence[Dataset], plan: Plan) -> Request:
    return Request.of(datasets[0].problems[0].question, answer=plan.answer)
