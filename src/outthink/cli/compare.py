"""`outthink compare`: what accuracy costs, from recorded samples."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outthink.cli.files import write_whole
from outthink.core.errors import BadInput

if TYPE_CHECKING:
    from outthink.evaluation.compare import Settings

_EPILOG = "defaults of the time model: stream=50,total=2000,prefill=5000 tokens a second, concurrency 8"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _EPILOG
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACES", help="Parquet files of recorded samples")
    parser.add_argument(
        "--strategy", action="append", default=[], metavar="NAME[:k=v,...]", help="repeatable; default: the usual eight"
    )
    parser.add_argument("--seeds", type=int, default=5, help="random orders of the samples (default 5)")
    parser.add_argument("--ahead", type=int, default=1, help="calls in flight of stopping strategies (default 1)")
    parser.add_argument("--concurrency", type=int, help="calls that the simulated server runs at once")
    parser.add_argument("--speed", metavar="FILE|k=v,...", help="time model of the simulated server")
    parser.add_argument("--regrade", metavar="KIND", help="extract answers again as number|math|choice|json|text")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write an interactive report")
    parser.add_argument("--plot", action="store_true", help="draw accuracy against tokens in the terminal")


def run(chosen: argparse.Namespace) -> int:
    """Replay, print the table, write the files."""
    from dataclasses import replace

    from rich.console import Console
    from rich.progress import Progress

    from outthink.engines.speed import Speed
    from outthink.evaluation.compare import DEFAULT, Settings, compare
    from outthink.evaluation.report.table import show
    from outthink.strategies import Spec

    for name in ("seeds", "ahead", "concurrency"):
        value = getattr(chosen, name)
        if value is not None and value < 1:
            raise BadInput(f"--{name}", value, "is below 1", "give at least 1")
    speed = Speed.parse(chosen.speed) if chosen.speed else Speed()
    if chosen.concurrency is not None:
        speed = replace(speed, concurrency=chosen.concurrency)
    specs = [Spec.parse(text) for text in chosen.strategy or DEFAULT]
    settings = Settings(seeds=chosen.seeds, ahead=chosen.ahead, speed=speed, regrade=chosen.regrade)
    notes = Console(stderr=True, highlight=False)
    with Progress(console=notes, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("replaying", total=None)
        rows = compare(
            chosen.traces,
            specs,
            settings,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            say=lambda line: notes.print(line, markup=False, soft_wrap=True),
        )
    console = Console()
    show(rows, console)
    print("; ".join(f"{name}: {value}" for name, value in settings.about().items()))
    if chosen.plot:
        from outthink.evaluation.report.terminal import terminal_plot

        print(terminal_plot(rows, color=sys.stdout.isatty()))
    _write(chosen, rows, settings)
    return 0


def _write(chosen: argparse.Namespace, rows: list[dict[str, Any]], settings: Settings) -> None:
    if chosen.json:
        write_whole(chosen.json, json.dumps(rows, indent=1))
    if chosen.html:
        from outthink.evaluation.report.html import render

        names = ", ".join(sorted({row["traces"] for row in rows}))
        write_whole(chosen.html, render(rows, {"title": "What accuracy costs", "traces": names} | settings.about()))
