"""`outthink verify`: score recorded samples, so that any search or vote can be replayed on them."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.cli.engine import chosen_engine, engine_arguments
from outthink.core.errors import BadInput, EngineError
from outthink.core.request import ANSWER_KINDS

if TYPE_CHECKING:
    from outthink.core.request import AnswerKind
    from outthink.engines.protocol import Engine
    from outthink.evaluation.dataset import Problems
    from outthink.evaluation.sample_file import SampleFile
    from outthink.evaluation.verify import VerifyReport
    from outthink.verifiers.protocol import Verifier

_EPILOG = """SAMPLES: Parquet or JSONL with problem_id and text, as record writes them
PROBLEMS: Parquet or JSONL with problem_id, question and answer; for code: prompt, entry_point, test
--verifier: exact, code, schema:FILE, confidence, self-certainty, logprob, judge[:URL], a reward model's
folder or a reward model server's URL"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("samples", type=Path, metavar="SAMPLES", help="recorded samples")
    add("--problems", type=Path, required=True, metavar="PROBLEMS", help="the problems that they answer")
    add("--verifier", required=True, metavar="NAME|PATH|URL", help="what judges them")
    add("--out", type=Path, required=True, metavar="FILE", help="scored samples, .parquet or .jsonl")
    add("--answer", choices=ANSWER_KINDS, help="kind of answer for exact (default: number or math, by the keys)")
    engine_arguments(parser)


def run(chosen: argparse.Namespace) -> int:
    """Score, with a progress bar; interrupted or killed, the same command goes on where it was."""
    from outthink.controller.verifier import open_verifier
    from outthink.evaluation.dataset import Problems
    from outthink.evaluation.sample_file import JSONL, SampleFile

    if chosen.out.suffix.lower() not in (".parquet", *JSONL):
        raise BadInput("--out", str(chosen.out), "is neither Parquet nor JSONL", "name it .parquet or .jsonl")
    samples = SampleFile(chosen.samples)
    problems = Problems.read(chosen.problems)
    kind = chosen.answer or problems.kind
    engine = chosen_engine(chosen) if chosen.verifier == "judge" else None
    verifier = open_verifier(chosen.verifier, answer=kind, keys=problems.keys, code=problems.code, engine=engine)
    report = asyncio.run(_verify(chosen, samples, problems, verifier, kind, engine))
    for reason, count in report.unscored.items():
        print(f"{count} of {report.rows} samples have no score: {reason}", file=sys.stderr)
    if verifier.kind == "exact":
        _agreement(samples, report)
    print(f"wrote {report.rows} rows to {chosen.out}, scored by {verifier.id}")
    return 0


async def _verify(
    chosen: argparse.Namespace,
    samples: SampleFile,
    problems: Problems,
    verifier: Verifier,
    kind: AnswerKind,
    engine: Engine | None,
) -> VerifyReport:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from outthink.evaluation.verify import close, verify

    columns = TextColumn("scored"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("scored", total=None)
            tenth = -1

            def progress(done: int, total: int) -> None:
                nonlocal tenth
                bar.update(task, completed=done, total=total)
                if not sys.stderr.isatty() and 10 * done // total != tenth:
                    tenth = 10 * done // total
                    print(f"scored {done} of {total}", file=sys.stderr, flush=True)

            return await verify(samples, problems, verifier, chosen.out, kind=kind, progress=progress)
    except EngineError as error:
        raise EngineError(f"{error}; what is scored is kept: run the same command again to go on") from error
    finally:
        await close(verifier)
        if engine is not None:
            await engine.aclose()


def _agreement(samples: SampleFile, report: VerifyReport) -> None:
    """How often an exact check says what the file says of itself."""
    for name in ("correct", "passed"):
        if name not in samples.names:
            continue
        both = [
            (bool(told), one.score == 1)
            for told, one in zip(samples.column(name), report.judged, strict=True)
            if told is not None and one.score is not None
        ]
        if both:
            same = sum(told == found for told, found in both)
            print(f"agrees with `{name}` on {same:,} of {len(both):,} samples ({same / len(both):.2%})")
