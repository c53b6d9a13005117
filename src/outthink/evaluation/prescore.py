"""Scores samples before they are replayed, once for each file and verifier.

Knows: where scored files are kept and what makes one usable again. Does not know replay or strategies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from outthink.controller.verifier import open_verifier
from outthink.core.paths import cache_dir
from outthink.core.request import AnswerKind
from outthink.engines.protocol import Engine
from outthink.engines.traces import Traces, load
from outthink.evaluation.problem_file import Problems
from outthink.evaluation.regrade import problem_file
from outthink.evaluation.sample_file import SampleFile
from outthink.evaluation.scores import remove_journal
from outthink.evaluation.verify import Report, close, fingerprint, verify
from outthink.verifiers.protocol import Verifier

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prescoring:
    """How samples without scores get them.

    Args:
        verifier: NAME, PATH or URL.
        problems: file of the problems, None for the one beside the traces.
        answer: kind of answer, None to tell from the gold answers.
        engine: where a judge gets its tokens from.
        progress: called with (samples scored, samples in all).
        say: receives one line about samples without a score.
    """

    verifier: str
    problems: Path | None = None
    answer: AnswerKind | None = None
    engine: Engine | None = None
    progress: Progress = lambda done, total: None
    say: Callable[[str], None] = lambda line: None


def prescored(traces: Traces, scoring: Prescoring) -> Traces:
    """The same samples with the scores of this verifier: recorded, kept from an earlier run, or new.

    Raises BadInput and EngineError like `verify`; what is scored before a failure is kept.
    """
    problems = Problems.read(scoring.problems or problem_file(traces, "--verifier"))
    kind = scoring.answer or problems.kind
    verifier = open_verifier(
        scoring.verifier, answer=kind, keys=problems.keys, code=problems.code, engine=scoring.engine
    )
    if traces.verifier == verifier.id:
        return traces
    samples = SampleFile(traces.path, rescore=True)
    run = fingerprint(samples, problems, verifier, kind)
    out = cache_dir() / "scored" / run[:32] / traces.path.name
    if out.exists():
        remove_journal(out)  # of a run that was killed after it had written the file
    else:
        report = asyncio.run(_closing(verifier, samples, problems, out, kind, scoring.progress))
        for reason, count in report.unscored.items():
            scoring.say(f"{traces.path.name}: {count} samples have no score: {reason}")
    kept_text = any(sample.text for problem in traces.problems.values() for sample in problem.sampled[:1])
    return replace(load(out, text=kept_text), path=traces.path)


async def _closing(
    verifier: Verifier, samples: SampleFile, problems: Problems, out: Path, kind: AnswerKind, progress: Progress
) -> Report:
    try:
        return await verify(samples, problems, verifier, out, kind=kind, progress=progress)
    finally:
        await close(verifier)
