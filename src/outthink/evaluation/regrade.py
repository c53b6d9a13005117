"""Extracts and grades recorded samples anew.

Knows: where the gold answers of a file lie and how equal completions are graded once. Does not
know how an answer is read.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from outthink.answers import grade_many, reader_for
from outthink.core.errors import BadInput
from outthink.core.request import ANSWER_KINDS, AnswerKind
from outthink.core.sample import Sample
from outthink.engines.traces import Recorded, Traces


def problem_file(traces: Traces, flag: str = "--regrade") -> Path:
    """The problems of a file of samples; BadInput, naming the flag that needs them, where there are none beside it."""
    folder = traces.path.parent
    for name in (f"problems-{traces.dataset}.parquet", "problems.parquet"):
        if (folder / name).exists():
            return folder / name
    raise BadInput(flag, str(traces.path), "has no problems file beside it", "put problems.parquet there")


def read_keys(path: Path) -> dict[str, str]:
    """Gold answers by problem_id; BadInput without the columns problem_id and answer."""
    import pyarrow.parquet as parquet

    try:
        rows = parquet.read_table(path, columns=["problem_id", "answer"]).to_pydict()
    except Exception as error:  # noqa: BLE001 - pyarrow raises many kinds for damaged files and missing columns
        line = str(error).splitlines()[0]
        raise BadInput("problems", str(path), f"cannot be read ({line})", "it needs problem_id and answer") from None
    return dict(zip(rows["problem_id"], rows["answer"], strict=True))


def regrade(traces: Traces, kind: str) -> Traces:
    """The same samples with answers read anew as `kind` and graded against the gold answers."""
    if kind not in ANSWER_KINDS:
        raise BadInput("--regrade", kind, "is no kind of answer", f"use one of {', '.join(ANSWER_KINDS)}")
    keys = read_keys(problem_file(traces))
    problems = {name: _regraded(problem, kind, keys[name]) for name, problem in traces.problems.items() if name in keys}
    if not problems:
        raise BadInput("--regrade", str(traces.path), "shares no problem_id with its problems", "check the files")
    return replace(traces, problems=problems)


def _regraded(problem: Recorded, kind: AnswerKind, key: str) -> Recorded:
    reader = reader_for(kind)  # one a problem: equivalent answers of its samples merge

    def read(sample: Sample) -> Sample:
        reading = reader.read_now(sample.text)
        return replace(sample, answer=reading.answer, rule=reading.rule)

    fresh = Recorded(problem.problem, [read(sample) for sample in problem.sampled])
    fresh.greedy = read(problem.greedy) if problem.greedy is not None else None
    answers = {sample.answer for sample in fresh.sampled if sample.answer is not None}
    if fresh.greedy is not None and fresh.greedy.answer is not None:
        answers.add(fresh.greedy.answer)
    ordered = sorted(answers)
    verdicts = grade_many(kind, [(answer, key) for answer in ordered])
    fresh.right = {answer for answer, right in zip(ordered, verdicts, strict=True) if right}
    return fresh
