"""`outthink compare`: what accuracy costs, from recorded samples or live on an engine."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from outthink.cli.compare_live import live_arguments, refuse_live_only, run_live
from outthink.cli.engine import chosen_engine
from outthink.cli.files import write_whole
from outthink.core.errors import BadInput
from outthink.core.request import ANSWER_KINDS

_EPILOG = """defaults of the time model: stream=50,total=2000,prefill=5000 tokens a second, concurrency 8
with --live, TRACES are data sets: JSONL or Parquet with question and answer, or reasoning-gym:TASK?size=20&seed=1"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("traces", nargs="+", metavar="TRACES", help="Parquet files of recorded samples; with --live, data sets")
    add("--strategy", action="append", default=[], metavar="NAME[:k=v,...]", help="repeatable; default: the usual ones")
    add("--policy", type=Path, metavar="FILE", help="what `outthink calibrate` made, for --strategy auto")
    add("--cross-fit", action="store_true", help="with auto: fit anew on TRACES without each fold in turn")
    add("--seeds", type=int, default=5, help="random orders of the samples (default 5)")
    add("--ahead", type=int, help="calls in flight of stopping strategies (default 1, live 4)")
    add("--concurrency", type=int, help="calls that the simulated server runs at once")
    add("--speed", metavar="FILE|k=v,...", help="time model of the simulated server")
    add("--regrade", metavar="KIND", help="extract answers again as number|math|choice|json|text")
    add("--verifier", metavar="NAME|PATH|URL", help="scores samples for strategies that need it, see `outthink verify`")
    add("--problems", type=Path, metavar="FILE", help="problems for --verifier (default: those beside the traces)")
    add("--answer", choices=ANSWER_KINDS, help="kind of answer (default: by the gold answers; with --live text)")
    add("--json", type=Path, metavar="FILE", help="write the rows")
    add("--html", type=Path, metavar="FILE", help="write an interactive report")
    add("--plot", action="store_true", help="draw accuracy against tokens in the terminal")
    live_arguments(parser)


def run(chosen: argparse.Namespace) -> int:
    """Replay, or run on an engine; print the table, write the files."""
    for name in ("seeds", "ahead", "concurrency"):
        value = getattr(chosen, name)
        if value is not None and value < 1:
            raise BadInput(f"--{name}", value, "is below 1", "give at least 1")
    _check_policy(chosen)
    if chosen.live:
        rows, about = run_live(chosen)
    else:
        rows, about = _replay(chosen)
    _print(chosen, rows, about)
    if chosen.json:
        write_whole(chosen.json, json.dumps(rows, indent=1))
    if chosen.html:
        from outthink.evaluation.report.html import render

        names = ", ".join(sorted({row["traces"] for row in rows}))
        write_whole(chosen.html, render(rows, {"title": "What accuracy costs", "traces": names} | about))
    return 0


def _check_policy(chosen: argparse.Namespace) -> None:
    """BadInput where `auto`, its policy and what goes with it are not given together."""
    auto = "auto" in chosen.strategy
    if auto and chosen.policy is None:
        raise BadInput("--policy", None, "is missing, and auto needs one", "make one with `outthink calibrate`")
    for name, given in (("--policy", chosen.policy), ("--cross-fit", chosen.cross_fit or None)):
        if given is not None and not auto:
            raise BadInput(name, str(given), "goes with --strategy auto", "add --strategy auto or leave it out")
    if auto and chosen.live:
        raise BadInput("--strategy", "auto", "is compared on recorded samples", "leave out --live")


def _replay(chosen: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, str]]:
    from rich.console import Console
    from rich.progress import Progress

    from outthink.controller.policy.artefact import Policy
    from outthink.engines.simulated import Speed
    from outthink.evaluation.auto import NAME
    from outthink.evaluation.compare import DEFAULT, CompareSettings, compare
    from outthink.evaluation.replay import Prescoring
    from outthink.strategies import Spec

    refuse_live_only(chosen)
    speed = Speed.parse(chosen.speed) if chosen.speed else Speed()
    if chosen.concurrency is not None:
        speed = replace(speed, concurrency=chosen.concurrency)
    specs = [Spec.parse(text) for text in chosen.strategy or DEFAULT if text != NAME]
    policy = Policy.load(chosen.policy) if chosen.policy else None
    notes = Console(stderr=True, highlight=False)
    with Progress(console=notes, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("replaying", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        def say(line: str) -> None:
            notes.print(line, markup=False, soft_wrap=True)

        scoring = None
        if chosen.verifier:
            engine = chosen_engine(chosen) if chosen.verifier == "judge" else None
            scoring = Prescoring(
                verifier=chosen.verifier,
                problems=chosen.problems,
                answer=chosen.answer,
                engine=engine,
                progress=progress,
                say=say,
            )
        settings = CompareSettings(
            seeds=chosen.seeds,
            ahead=chosen.ahead or 1,
            speed=speed,
            regrade=chosen.regrade,
            scoring=scoring,
            policy=policy,
            cross_fit=chosen.cross_fit,
        )
        rows = compare([Path(name) for name in chosen.traces], specs, settings, progress=progress, say=say)
    return rows, settings.about()


def _print(chosen: argparse.Namespace, rows: list[dict[str, Any]], about: dict[str, str]) -> None:
    from rich.console import Console

    from outthink.evaluation.report.table import show

    show(rows, Console())
    print("; ".join(f"{name}: {value}" for name, value in about.items()))
    if chosen.plot:
        from outthink.evaluation.report.terminal import terminal_plot

        print(terminal_plot(rows, color=sys.stdout.isatty()))
