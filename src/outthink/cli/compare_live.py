"""`outthink compare --live`: the flags of a live comparison and how it is carried out."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outthink.cli.engine import chosen_engine, engine_arguments
from outthink.core.errors import BadInput, EngineError

if TYPE_CHECKING:
    from outthink.engines.protocol import Engine
    from outthink.evaluation.arena import ArenaPlan
    from outthink.evaluation.dataset import Dataset

_ONLY = {"live": False, "budgets": None, "out": None, "limit": None, "jobs": 1}


def live_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags that go with --live."""
    engine_arguments(parser)
    add = parser.add_argument_group("live comparison").add_argument
    add("--live", action="store_true", help="run the strategies on an engine, at equal total token budgets")
    add("--budgets", metavar="N,N,...", help="total tokens of a request (default: 2, 4, 8 and 16 times a sample)")
    add("--out", type=Path, metavar="FOLDER", help="where every drawn sample is kept (default: here)")
    add("--limit", type=int, metavar="N", help="only the first N problems")
    add(
        "--jobs", type=int, default=1, metavar="N", help="requests at once (default 1, so that seconds are a request's)"
    )
    add("--max-tokens", type=int, default=512, help="cap of one completion (default 512)")
    add("--temperature", type=float, default=0.8, help="default 0.8")
    add("--seed", type=int, default=0, help="every request has seeds of its own, derived from it (default 0)")


def refuse_live_only(chosen: argparse.Namespace) -> None:
    """BadInput for flags that mean nothing in a replay."""
    for name, default in _ONLY.items():
        if getattr(chosen, name) != default:
            raise BadInput(f"--{name}", getattr(chosen, name), "goes with --live", "add --live or leave it out")


def run_live(chosen: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of all data sets, and what a report must say about the run."""
    from outthink.core.request import Sampling
    from outthink.evaluation.arena import ArenaPlan
    from outthink.evaluation.dataset import open_dataset

    for name in ("limit", "jobs"):
        value = getattr(chosen, name)
        if value is not None and value < 1:
            raise BadInput(f"--{name}", value, "is below 1", "give at least 1")
    for name in ("regrade", "speed", "concurrency", "problems"):
        if getattr(chosen, name) is not None:
            raise BadInput(f"--{name}", str(getattr(chosen, name)), "is for recorded samples", "leave out --live or it")
    plan = ArenaPlan(
        answer=chosen.answer or "text",
        sampling=Sampling(temperature=chosen.temperature, max_tokens=chosen.max_tokens),
        budgets=budgets(chosen.budgets),
        seed=chosen.seed,
        ahead=chosen.ahead or 4,
        jobs=chosen.jobs,
    )
    datasets = [open_dataset(source, plan.answer, limit=chosen.limit) for source in chosen.traces]
    rows = asyncio.run(_run(chosen, datasets, plan))
    return rows, {"live": rows[0]["model"], "ahead of stopping strategies": str(plan.ahead), "jobs": str(plan.jobs)}


def budgets(text: str | None) -> tuple[int, ...]:
    """Read `1000,2000`; BadInput for anything but whole numbers above 0."""
    found = []
    for part in filter(None, (text or "").split(",")):
        if not part.strip().isdecimal() or int(part) < 1:
            raise BadInput("--budgets", text, f"{part!r} is no number of tokens", "give for example 1000,2000,4000")
        found.append(int(part))
    return tuple(sorted(set(found)))


async def _run(chosen: argparse.Namespace, datasets: list[Dataset], plan: ArenaPlan) -> list[dict[str, Any]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bars = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    engine = chosen_engine(chosen)
    try:
        with Progress(*bars, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:

            def progress(name: str) -> Callable[[int, int], None]:
                task = bar.add_task(name, total=None)

                def tell(done: int, total: int) -> None:
                    bar.update(task, completed=done, total=total)
                    if not sys.stderr.isatty():
                        print(f"{name}: {done} of {total} requests", file=sys.stderr, flush=True)

                return tell

            return await _contests(chosen, datasets, plan, engine, progress)
    except EngineError as error:
        raise EngineError(f"{error}; what was run is kept: run the same command again to go on") from error
    finally:
        await engine.aclose()


async def _contests(
    chosen: argparse.Namespace,
    datasets: list[Dataset],
    plan: ArenaPlan,
    engine: Engine,
    progress: Callable[[str], Callable[[int, int], None]],
) -> list[dict[str, Any]]:
    from outthink.controller.verifier import open_verifier
    from outthink.evaluation.live import DEFAULT, live
    from outthink.strategies import Spec

    specs = [Spec.parse(text) for text in chosen.strategy or DEFAULT]

    def judge(dataset: Dataset) -> Any:
        if not chosen.verifier:
            return None
        keys = {problem.problem_id: problem.answer for problem in dataset.problems}
        return open_verifier(chosen.verifier, answer=plan.answer, keys=keys, engine=engine)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return await live(datasets, engine, specs, plan, chosen.out or Path(), judge, progress=progress, say=say)
