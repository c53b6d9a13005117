"""`outthink compare`: what accuracy costs, from recorded samples or live on an engine.

Knows flags, which of them go together, and where rows are shown or written. Does not know how strategies are replayed
or run, nor what a row means.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.cli.options import (
    ANSWERS,
    Progress,
    chosen_model,
    chosen_parameters,
    chosen_sampling,
    engine_arguments,
    parameters_argument,
    passing_bar,
    print_plot,
    progress_bars,
    refuse_below_one,
    refuse_unwritable,
    sampling_arguments,
    say,
    write_whole,
)
from outthink.cli.samples import chosen_columns, dataset_arguments
from outthink.core.errors import BadInput, EngineError
from outthink.core.plugins import need_extra

if TYPE_CHECKING:
    from outthink.configuration.models import ModelChoice
    from outthink.core.request import AnswerKind
    from outthink.economics.step_profile import StepProfile
    from outthink.engines.protocol import Speed
    from outthink.evaluation.arena import ArenaPlan
    from outthink.evaluation.dataset import Dataset
    from outthink.evaluation.rows import Row
    from outthink.verifiers.protocol import Verifier

# `outthink compare --live`: the flags of a live comparison and how it is carried out.

_ONLY = {"live": False, "budgets": None, "out": None, "limit": None, "jobs": 1, "skip_bad": False}
_ONLY |= dict.fromkeys(("question", "gold", "choices"))


def _live_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags that go with --live."""
    engine_arguments(parser)
    add = parser.add_argument_group("live comparison").add_argument
    add("--live", action="store_true", help="run the strategies on an engine, at equal total token budgets")
    add("--budgets", metavar="N,N,...", help="total tokens of a request (default: 2, 4, 8 and 16 times a sample)")
    add("--out", type=Path, metavar="FOLDER", help="where every drawn sample is kept (default: here)")
    add("--limit", type=int, metavar="N", help="only the first N problems")
    dataset_arguments(add)
    add(
        "--jobs", type=int, default=1, metavar="N", help="requests at once (default 1, so that seconds are a request's)"
    )
    sampling_arguments(add)
    add("--seed", type=int, default=0, help="every request has seeds of its own, derived from it (default 0)")


def _refuse_live_only(chosen: argparse.Namespace) -> None:
    """BadInput for flags that mean nothing in a replay."""
    for name, default in _ONLY.items():
        if (value := vars(chosen)[name]) != default:
            raise BadInput(f"--{name.replace('_', '-')}", value, "goes with --live", "add --live or leave it out")


def _run_live(chosen: argparse.Namespace) -> tuple[list[Row], dict[str, str]]:
    """Rows of all data sets, and what a report must say about the run."""
    from outthink.evaluation.arena import ArenaPlan
    from outthink.evaluation.dataset import open_dataset

    refuse_below_one(chosen, "limit", "jobs")
    model = chosen_model(chosen)
    for name in ("regrade", "speed", "concurrency", "problems"):
        if (value := vars(chosen)[name]) is not None:
            raise BadInput(f"--{name}", str(value), "is for recorded samples", "leave out --live or it")
    columns = chosen_columns(chosen)
    datasets = [
        open_dataset(source, chosen.answer, limit=chosen.limit, columns=columns, skip_bad=chosen.skip_bad, say=say)
        for source in chosen.traces
    ]
    plan = ArenaPlan(
        answer=_live_kind(datasets),
        sampling=chosen_sampling(chosen),
        budgets=budgets(chosen.budgets),
        seed=chosen.seed,
        ahead=chosen.ahead or 4,  # docs/contracts.md: 4 live, 1 in a replay
        jobs=chosen.jobs,
        parameters=chosen_parameters(chosen, [model.where]).get(model.where, model.parameters),
    )
    rows = asyncio.run(_run(chosen, model, datasets, plan))
    return rows, {"live": rows[0]["model"], "ahead of stopping strategies": str(plan.ahead), "jobs": str(plan.jobs)}


def _live_kind(datasets: list[Dataset]) -> AnswerKind:
    """The one kind of answer of all data sets; BadInput where there is none, or more than one."""
    kinds = {dataset.kind for dataset in datasets if dataset.grade is not None}
    ungraded = next((dataset.name for dataset in datasets if dataset.grade is None), None)
    if ungraded is not None:
        raise BadInput("--live", ungraded, "has no gold answers", "record it and verify the samples")
    if len(kinds) > 1 or (kind := kinds.pop()) is None:
        names = ", ".join(sorted(map(str, kinds)))
        raise BadInput("--answer", None, f"is needed for data sets of several kinds ({names})", "name one")
    return kind


def budgets(text: str | None) -> tuple[int, ...]:
    """Read `1000,2000`; BadInput for anything but whole numbers above 0."""
    sizes = []
    for part in filter(None, (text or "").split(",")):
        if not part.strip().isdecimal() or int(part) < 1:
            raise BadInput("--budgets", text, f"{part!r} is no number of tokens", "give for example 1000,2000,4000")
        sizes.append(int(part))
    return tuple(sorted(set(sizes)))


async def _run(chosen: argparse.Namespace, model: ModelChoice, datasets: list[Dataset], plan: ArenaPlan) -> list[Row]:
    from outthink.controller.verifier import open_verifier
    from outthink.evaluation.live import live
    from outthink.strategies import Spec
    from outthink.strategies.defaults import COMPARED_LIVE

    specs = [Spec.parse(text, importing=True) for text in chosen.strategy or COMPARED_LIVE]
    folder = chosen.out or Path()
    async with aclosing(model.open()) as engine:

        def judge(dataset: Dataset) -> Verifier | None:
            if not chosen.verifier:
                return None
            return open_verifier(chosen.verifier, answer=plan.answer, keys=dataset.keys, engine=engine)

        try:
            with progress_bars() as bar:

                def progress(name: str) -> Progress:
                    return bar(name, f"{name}:", " requests")

                return await live(datasets, engine, specs, plan, folder, judge, progress=progress, say=say)
        except EngineError as error:
            raise EngineError(f"{error}; what was run is kept: run the same command again to go on") from error


_TERMINAL = Path("-")
_PICTURES = (".svg", ".png", ".pdf")
_EPILOG = """defaults of the time model: stream=50,total=2000,prefill=5000,judge=5000 tokens a second,
concurrency 8; judge: what a verifier reads
with --live, TRACES are data sets, as `outthink record` takes them"""


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("traces", nargs="+", metavar="TRACES", help="Parquet files of recorded samples; with --live, data sets")
    add(
        "--strategy",
        action="append",
        default=[],
        metavar="NAME[:k=v,...]",
        help="repeatable, also python:MODULE:FUNCTION; default: the usual ones",
    )
    add("--policy", type=Path, metavar="FILE", help="what `outthink calibrate` made, for --strategy auto")
    add("--cross-fit", action="store_true", help="with auto: fit anew on TRACES without each fold in turn")
    add("--seeds", type=int, default=5, help="random orders of the samples (default 5)")
    add("--ahead", type=int, help="calls in flight of stopping strategies (default 1, live 4)")
    add("--concurrency", type=int, help="calls that the simulated server runs at once")
    add("--speed", metavar="FILE|k=v,...", help="time model of the simulated server: rates, or a step profile")
    add("--regrade", metavar="KIND", help="extract answers again as number|math|choice|json|text")
    add("--verifier", metavar="NAME|PATH|URL", help="scores samples for strategies that need it, see `outthink verify`")
    add("--problems", type=Path, metavar="FILE", help="their problems (default: a problems file beside the traces)")
    parameters_argument(add)
    add("--answer", choices=ANSWERS, help="kind of answer (default: by the problems; with --live as record)")
    add("--json", type=Path, metavar="FILE", help="write the rows")
    add("--html", type=Path, metavar="FILE", help="write an interactive report")
    add(
        "--plot",
        nargs="?",
        type=Path,
        const=_TERMINAL,
        metavar="FILE",
        help="draw accuracy against tokens: to a .svg, .png or .pdf file, or in the terminal",
    )
    _live_arguments(parser)


def run_compare(chosen: argparse.Namespace) -> int:
    """Replay, or run on an engine; print the table, write the files."""
    refuse_below_one(chosen, "seeds", "ahead", "concurrency")
    refuse_unwritable(chosen, "json", "html")
    picture = None if chosen.plot == _TERMINAL else chosen.plot
    if picture is not None:
        _check_picture(chosen)
    if drawn := chosen.html or picture:
        need_extra("report", "--html" if chosen.html else "--plot", str(drawn), load=False)
    _check_policy(chosen)
    if chosen.live:
        rows, about = _run_live(chosen)
    else:
        rows, about = _replay(chosen)
    _print(chosen, rows, about)
    if chosen.json:
        write_whole(chosen.json, json.dumps(rows, indent=1))
    if chosen.html:
        from outthink.evaluation.report.html import render

        names = ", ".join(sorted({row["traces"] for row in rows}))
        write_whole(chosen.html, render(rows, {"title": "What accuracy costs", "traces": names} | about))
    if picture is not None:
        from outthink.evaluation.report.plot import write

        write_whole(picture, write(rows, picture.suffix[1:], title="What accuracy costs"))
    return 0


def _check_picture(chosen: argparse.Namespace) -> None:
    """BadInput for a file of --plot that could not be written, or whose suffix says nothing."""
    if chosen.plot.suffix not in _PICTURES:
        remedy = f"name a file with one of {', '.join(_PICTURES)}; to draw in the terminal, put --plot after TRACES"
        raise BadInput("--plot", str(chosen.plot), "has no suffix of a figure", remedy)
    refuse_unwritable(chosen, "plot")


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


def _chosen_speed(given: str | None) -> Speed | StepProfile:
    """The time model; a file with a schema is a step profile, one without holds rates."""
    from outthink.economics.step_profile import StepProfile
    from outthink.engines.protocol import Speed

    if given is None:
        return Speed()
    try:
        values = json.loads(Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or "schema" not in values:
        return Speed.parse(given)
    profile = StepProfile.of(values, given)
    if profile.unit != "seconds":
        raise BadInput("--speed", given, f"is a step profile in {profile.unit}", "give one in seconds")
    return profile


def _replay(chosen: argparse.Namespace) -> tuple[list[Row], dict[str, str]]:
    from outthink.controller.policy.artefact import Policy
    from outthink.engines.traces import model_of
    from outthink.evaluation.calibration.contenders import NAME
    from outthink.evaluation.compare import CompareSettings, compare
    from outthink.evaluation.verify import Prescoring
    from outthink.strategies import Spec
    from outthink.strategies.defaults import COMPARED

    _refuse_live_only(chosen)
    if chosen.problems is not None and not chosen.problems.is_file():
        raise BadInput("--problems", str(chosen.problems), "is no file", "check the path")
    speed = _chosen_speed(chosen.speed)
    if chosen.concurrency is not None:
        speed = replace(speed, concurrency=chosen.concurrency)
    specs = [Spec.parse(text, importing=True) for text in chosen.strategy or COMPARED if text != NAME]
    policy = Policy.load(chosen.policy) if chosen.policy else None
    with passing_bar("replaying") as (progress, say):
        scoring = None
        if chosen.verifier:
            engine = chosen_model(chosen).open() if chosen.verifier == "judge" else None
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
            problems=chosen.problems,
            scoring=scoring,
            policy=policy,
            parameters=chosen_parameters(chosen, [model_of(name) for name in chosen.traces]),
            cross_fit=chosen.cross_fit,
            # Who names a strategy wants it; of the usual ones those are shown that the samples can serve.
            unserved="refused" if chosen.strategy else "left out",
        )
        rows = compare([Path(name) for name in chosen.traces], specs, settings, progress=progress, say=say)
    return rows, settings.about()


def _print(chosen: argparse.Namespace, rows: list[Row], about: dict[str, str]) -> None:
    from rich.console import Console

    from outthink.evaluation.report.table import show

    show(rows, Console())
    print("; ".join(f"{name}: {value}" for name, value in about.items()))
    if chosen.plot == _TERMINAL:
        print_plot(rows)
