"""`outthink record`, `label` and `verify`: files of samples, made, labelled and scored.

Each of them, interrupted or killed, goes on where it was when the same command runs again. Knows flags and progress;
does not know how samples are drawn, judged or kept.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.cli.options import (
    ANSWERS,
    Progress,
    chosen_model,
    chosen_sampling,
    engine_arguments,
    flags_of,
    progress_bars,
    refuse_below_one,
    sampling_arguments,
    say,
)
from outthink.core.errors import BadInput, EngineError

if TYPE_CHECKING:
    from outthink.configuration.models import ModelChoice
    from outthink.engines.protocol import Engine
    from outthink.evaluation.published.columns import Columns
    from outthink.evaluation.sample_file import SampleFile
    from outthink.evaluation.verify import VerifyReport

_DATASETS = """DATASET: GSM8K, MATH, MMLU, HumanEval or MBPP as they are published (JSONL, a JSON array, CSV or Parquet,
also .gz), any file with question and answer columns, or reasoning-gym:TASK?size=20&seed=1"""


def record_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _DATASETS
    add = parser.add_argument
    add("dataset", metavar="DATASET", help="where the questions come from")
    add("--check", action="store_true", help="say what would be taken from DATASET, and ask nothing")
    dataset_arguments(add)
    engine_arguments(parser)
    add("--samples", type=int, default=8, metavar="N", help="sampled completions a problem (default 8)")
    add("--greedy", action="store_true", help="add one completion at temperature 0 (row 0)")
    add("--out", type=Path, metavar="FILE.parquet", help="<model>--<dataset>.parquet is a good name")
    add("--answer", choices=ANSWERS, help="kind of answer (default: by the published form, else text; code has none)")
    add("--style", metavar="NAME", help="prompt style, see `outthink strategies`")
    add("--system", help="system prompt")
    add("--limit", type=int, metavar="N", help="only the first N problems")
    sampling_arguments(add)
    add("--seed", type=int, default=0, help="sample i is drawn with seed + i (default 0)")
    add("--top-logprobs", type=int, default=20, help="alternatives a token for confidences (default 20)")
    add("--parameters", type=int, metavar="N", help="weights read per token, kept with the samples, for FLOPs")


def column_arguments(add: Callable[..., argparse.Action]) -> None:
    """Flags of `chosen_columns`, for `add_argument` of a parser or of a group."""
    add("--question", metavar="COL", help="column of the question (default: by the published form)")
    add("--gold", metavar="COL", help="column of the gold answer (default: by the published form)")
    add("--choices", metavar="COL", help="column of the choices, or A,B,C,D: a column each (default: by the form)")


def chosen_columns(chosen: argparse.Namespace) -> Columns:
    """The columns of a data file that are named."""
    from outthink.evaluation.published.columns import Columns

    return Columns(chosen.question, chosen.gold, chosen.choices)


def dataset_arguments(add: Callable[..., argparse.Action]) -> None:
    """Flags by which a data set is read to be asked."""
    add("--skip-bad", action="store_true", help="go on without rows that cannot be used")
    column_arguments(add)


def run_record(chosen: argparse.Namespace) -> int:
    """Record, with a progress bar; interrupted or killed, the same command goes on where it was."""
    from outthink.evaluation.dataset import open_dataset
    from outthink.evaluation.record import Recording, record

    if chosen.samples < 0 or chosen.samples + chosen.greedy < 1:
        raise BadInput("--samples", chosen.samples, "leaves nothing to record", "give at least 1")
    refuse_below_one(chosen, "limit", "parameters")
    _check_style(chosen.style)
    if chosen.out is None and not chosen.check:
        raise BadInput("--out", None, "is missing", "name the file, e.g. --out model--dataset.parquet")
    dataset = open_dataset(
        chosen.dataset,
        chosen.answer,
        limit=chosen.limit,
        columns=chosen_columns(chosen),
        skip_bad=chosen.skip_bad or chosen.check,
        say=say,
    )
    if chosen.check:
        usable, unusable = len(dataset.problems), dataset.unusable
        print(f"{dataset.taken}\n{usable + unusable:,} rows: {usable:,} can be used, {unusable:,} cannot")
        return 0
    model = chosen_model(chosen)
    flags = flags_of(Recording, chosen) | {
        "answer": dataset.kind,
        "parameters": chosen.parameters or model.parameters,
    }
    plan = Recording(**flags, sampling=chosen_sampling(chosen))

    def work(engine: Engine, progress: Progress) -> Coroutine[None, None, int]:
        return record(dataset, engine, chosen.out, plan, progress=_saying(dataset.taken, progress))

    return _written(chosen, model, work)


def _saying(line: str, progress: Progress) -> Progress:
    """The same progress, with a line before its first step: what is refused before that is one line alone."""
    waiting = [line]

    def step(done: int, total: int) -> None:
        if waiting:
            say(waiting.pop())
        progress(done, total)

    return step


def _written(
    chosen: argparse.Namespace, model: ModelChoice, work: Callable[[Engine, Progress], Coroutine[None, None, int]]
) -> int:
    """Let an engine write OUT under a progress bar, and say how many rows it has."""

    async def run() -> int:
        async with aclosing(model.open()) as engine:
            with progress_bars() as bar:
                return await work(engine, bar("saved"))

    print(f"wrote {asyncio.run(run())} rows to {chosen.out}")
    return 0


def _check_style(style: str | None) -> None:
    from outthink.strategies.prompts import STYLES

    if style is not None and style not in STYLES:
        raise BadInput("--style", style, "is not known", f"use one of {', '.join(STYLES)}")


# `outthink label`: process labels for recorded samples.


def label_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = "interrupted or killed, the same command goes on where it was"
    add = parser.add_argument
    add("samples", type=Path, metavar="SAMPLES.parquet", help="recorded samples (outthink record)")
    add("--problems", type=Path, required=True, metavar="FILE", help="their questions and gold answers")
    engine_arguments(parser)
    add("--out", type=Path, required=True, metavar="STEPS.parquet", help="where the labels go")
    add("--completions", type=int, default=8, metavar="N", help="completions of each prefix (default 8)")
    add("--steps", type=int, default=24, metavar="N", help="only the first N steps of a solution (default 24)")
    add("--solutions", type=int, default=4, metavar="N", help="only the first N samples of a problem (default 4)")
    add("--limit", type=int, metavar="N", help="only the first N problems")
    column_arguments(add)
    add("--answer", choices=ANSWERS, help="kind of answer (default: as recorded, by the published form, else number)")
    add("--style", metavar="NAME", help="prompt style the samples were drawn with, see `outthink strategies`")
    add("--system", help="system prompt the samples were drawn with")
    add("--instruction", metavar="TEXT", help="line added to each question when the samples were drawn")
    sampling_arguments(add, max_tokens=256)
    add("--seed", type=int, default=0, help="default 0")


def run_label(chosen: argparse.Namespace) -> int:
    """Label, with a progress bar."""
    from outthink.evaluation.dataset import looked_up
    from outthink.evaluation.published.lookup import Problems
    from outthink.training.examples import read_samples
    from outthink.training.label import Labelling, label

    refuse_below_one(chosen, "completions", "steps", "solutions", "limit")
    _check_style(chosen.style)
    problems = Problems.read(chosen.problems, samples=chosen.samples, columns=chosen_columns(chosen))
    kind = chosen.answer or problems.read_as or problems.taken.kind or "number"
    dataset = looked_up(problems, kind)
    plan = Labelling(**flags_of(Labelling, chosen) | {"answer": kind}, sampling=chosen_sampling(chosen))
    questions = {problem.problem_id: problem.text for problem in dataset.problems}
    solutions = read_samples(chosen.samples, questions, limit=chosen.limit, per_problem=chosen.solutions).solutions
    model = chosen_model(chosen)
    return _written(
        chosen, model, lambda engine, saved: label(dataset, solutions, engine, chosen.out, plan, progress=saved)
    )


# `outthink verify`: score recorded samples, so that any search or vote can be replayed on them.

_VERIFY_EPILOG = """SAMPLES: Parquet or JSONL with problem_id and text, as record writes them, or task_id and completion
PROBLEMS: the file that was recorded, or any with problem_id, question and answer; for code: prompt, entry_point, test
--verifier: exact, code, schema:FILE, confidence, self-certainty, logprob, judge[:URL], a reward model's
folder or a reward model server's URL"""


def verify_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _VERIFY_EPILOG
    add = parser.add_argument
    add("samples", type=Path, metavar="SAMPLES", help="recorded samples")
    add("--problems", type=Path, required=True, metavar="PROBLEMS", help="the problems that they answer")
    add("--verifier", required=True, metavar="NAME|PATH|URL", help="what judges them")
    add("--out", type=Path, required=True, metavar="FILE", help="scored samples, .parquet or .jsonl")
    column_arguments(add)
    add(
        "--answer",
        choices=ANSWERS,
        help="kind of answer for exact (default: as recorded, by the published form, else by the keys)",
    )
    engine_arguments(parser)


def run_verify(chosen: argparse.Namespace) -> int:
    """Score, with a progress bar; interrupted or killed, the same command goes on where it was."""
    from outthink.controller.verifier import open_verifier
    from outthink.evaluation.published.lookup import Problems
    from outthink.evaluation.sample_file import JSONL, SampleFile
    from outthink.evaluation.verify import verify

    if chosen.out.suffix.lower() not in (".parquet", *JSONL):
        raise BadInput("--out", str(chosen.out), "is neither Parquet nor JSONL", "name it .parquet or .jsonl")
    samples = SampleFile(chosen.samples)
    problems = Problems.read(chosen.problems, samples=chosen.samples, columns=chosen_columns(chosen))
    kind = chosen.answer or problems.kind
    engine = chosen_model(chosen).open() if chosen.verifier == "judge" else None
    verifier = open_verifier(chosen.verifier, answer=kind, keys=problems.keys, code=problems.code, engine=engine)

    async def judged() -> VerifyReport:
        try:
            with progress_bars() as bar:
                progress = bar("scored", tenths=True)
                return await verify(samples, problems, verifier, chosen.out, kind=kind, progress=progress)
        except EngineError as error:
            raise EngineError(f"{error}; what is scored is kept: run the same command again to go on") from error
        finally:
            await verifier.aclose()
            if engine is not None:
                await engine.aclose()

    report = asyncio.run(judged())
    for reason, count in report.unscored.items():
        print(f"{count} of {report.rows} samples have no score: {reason}", file=sys.stderr)
    if verifier.kind == "exact":
        _agreement(samples, report)
    print(f"wrote {report.rows} rows to {chosen.out}, scored by {verifier.id}")
    return 0


def _agreement(samples: SampleFile, report: VerifyReport) -> None:
    """How often an exact check says what the file says of itself."""
    for name in ("correct", "passed"):
        if name not in samples.names:
            continue
        both = [
            (recorded, sample.score == 1)
            for recorded, sample in zip(samples.truths(name), report.judged, strict=True)
            if recorded is not None and sample.score is not None
        ]
        if both:
            same = sum(recorded == judged for recorded, judged in both)
            print(f"agrees with `{name}` on {same:,} of {len(both):,} samples ({same / len(both):.2%})")
