"""`outthink batch` and `feedback`: many questions under one budget, and what came of single answers.

Knows files of questions and results, and the table of a log. Does not know who gets the next sample, or how a log
learns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outthink.cli.options import (
    ANSWERS,
    choosing_arguments,
    choosing_options,
    engine_arguments,
    flags_of,
    print_table,
    sampling_arguments,
    write_whole,
)
from outthink.core.errors import BadInput
from outthink.core.text import writable

if TYPE_CHECKING:
    from outthink.client import BatchResult
    from outthink.controller.online import Learner
    from outthink.session.session import Session


_BATCH_EPILOG = """FILE: JSON lines, a JSON array, CSV or Parquet
with question, prompt or messages; optional id or problem_id
Results are JSON lines {id, answer, text, stopped, receipt}. With --out an interrupted or killed
run goes on where it was, and what it has spent counts against the budget."""
_QUESTIONS = ("question", "prompt", "messages")
_NAMES = ("id", "problem_id", "task_id", "unique_id")


def batch_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _BATCH_EPILOG
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="the questions")
    engine_arguments(parser)
    choosing_arguments(add)
    add("--budget", metavar="tokens=N,seconds=S,...", help="ceilings for the whole batch")
    add("--answer", choices=ANSWERS, default="number", help="kind of answer (default number)")
    add(
        "--traces",
        type=Path,
        nargs="+",
        default=[],
        metavar="TRACES",
        help="recorded samples of this model to learn from",
    )
    add("--n", type=int, default=32, help="samples a question at most (default 32)")
    add(
        "--worth",
        type=float,
        metavar="X",
        help="the most that one more right answer may cost, in the budget's currency",
    )
    add("--verifier", metavar="NAME", help="an exact check (schema:FILE); the first sample that passes is the answer")
    add("--system", help="system prompt")
    sampling_arguments(add)
    add("--seed", type=int, help="sample i is drawn with seed + i")
    add("--price", metavar="IN,OUT", help="dollars per million tokens; wins over published prices")
    add("--energy", metavar="PROMPT,COMPLETION", help="joules a token, bounds from above; needed for a joule budget")
    add("--parameters", type=int, metavar="N", help="weights read per token, for FLOPs; wins over what is known of it")
    add("--out", type=Path, metavar="FILE.jsonl", help="where the results go (default standard output)")


def run_batch(chosen: argparse.Namespace) -> int:
    """Answer them all; 0, or 130 where interrupted (with what there is)."""
    from outthink.evaluation.sample_file import journal_of, remove_journal

    names, prompts = _questions(chosen.file)
    out: Path | None = chosen.out
    if out is not None and out.exists():
        raise BadInput("--out", str(out), "exists already", "give another name or remove it")
    journal = None if out is None else journal_of(out)
    batch = asyncio.run(_ask(chosen, names, prompts, journal))
    interrupted = any(result.stopped == "interrupted" for result in batch.results)
    lines = [
        writable(json.dumps({"id": name, **result.json()}, ensure_ascii=False))
        for name, result in zip(names, batch.results, strict=True)
    ]
    if out is None:
        print("\n".join(lines))
    elif not interrupted:
        # In this order: until the results stand in their file, the journal alone holds what was paid for.
        write_whole(out, "\n".join(lines) + "\n")
        remove_journal(out)
    for line in (_summary(batch), *(f"note: {note}" for note in batch.receipt.notes)):
        print(line, file=sys.stderr)
    return 130 if interrupted else 0


async def _ask(chosen: argparse.Namespace, names: list[str], prompts: list[Any], journal: Path | None) -> BatchResult:
    from outthink.client import BatchOptions, ask_batch
    from outthink.engines.traces import load
    from outthink.evaluation.gains import measure_gains

    gains = measure_gains([load(path) for path in chosen.traces], at_most=chosen.n) if chosen.traces else None

    def opened(session: Session) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, session.stop, "interrupted")

    flags: BatchOptions = flags_of(BatchOptions, chosen) | choosing_options(chosen)
    options: BatchOptions = {
        **flags,
        "ids": names,
        "gains": gains,
        "at_most": chosen.n,
        "journal": journal,
        "opened": opened,
    }
    return await ask_batch(prompts, **options)


def _questions(path: Path) -> tuple[list[str], list[Any]]:
    """Names and prompts of all rows."""
    from outthink.engines.cells import BadCell, name_of
    from outthink.evaluation.published.rows import BadRow, open_rows

    names, prompts = [], []
    for number, row in enumerate(open_rows("file", path, _QUESTIONS).rows(None), start=1):
        if isinstance(row, BadRow):
            raise BadInput("file", str(path), row.problem, "mend the line")
        asked = next((row[key] for key in _QUESTIONS if row.get(key)), None)
        if not isinstance(asked, str | list):
            raise BadInput("file", str(path), f"row {number} asks nothing", f"give it {' or '.join(_QUESTIONS)}")
        named = next((key for key in _NAMES if row.get(key) is not None), None)
        try:
            names.append((name_of(row[named]) if named else None) or str(number))
        except BadCell as error:
            raise BadInput("file", str(path), f"row {number}: {named} {error}", "mend the row") from None
        prompts.append(asked)
    if not names:
        raise BadInput("file", str(path), "holds no question", 'write lines like {"question": "..."}')
    return names, prompts


def _summary(batch: BatchResult) -> str:
    receipt = batch.receipt
    answered = sum(result.answer is not None for result in batch.results)
    calls = sorted(sum(entry.role != "router" for entry in result.receipt.entries) for result in batch.results)
    tokens = "unknown" if receipt.tokens is None else f"{receipt.tokens:,}"
    return (
        f"{answered} of {len(batch.results)} answered; {tokens} tokens, {receipt.seconds:.1f} s; "
        f"calls a question: {calls[0]} to {calls[-1]}, median {calls[len(calls) // 2]}"
    )


# `outthink feedback`: tell a log of choices what was right, see what it has learned, take it back.

_FEEDBACK_EPILOG = """outthink feedback LOG REQUEST_ID right|wrong   learn from one verdict
outthink feedback LOG                          replay the log and show what it has learned
outthink feedback LOG --undo LINE              forget the outcomes after line LINE (the log only grows)"""


def feedback_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _FEEDBACK_EPILOG
    add = parser.add_argument
    add("log", type=Path, metavar="LOG", help="file of `--learn`")
    add("request", nargs="?", metavar="REQUEST_ID", help="which request")
    add("verdict", nargs="?", choices=("right", "wrong"), help="what its answer was")
    add("--undo", type=int, metavar="LINE", help="forget the outcomes after this line")
    add("--json", action="store_true", help="print the whole state as one JSON object")


def run_feedback(chosen: argparse.Namespace) -> int:
    """Learn, undo or show."""
    from outthink.controller.online import Learner

    if (chosen.request is None) != (chosen.verdict is None):
        raise BadInput("verdict", chosen.verdict, "is missing", "give REQUEST_ID and right or wrong")
    if chosen.undo is not None and chosen.request is not None:
        raise BadInput("--undo", chosen.undo, "does not go with a verdict", "do one after the other")
    learner = Learner(chosen.log)
    try:
        if chosen.undo is not None:
            learner.revert(chosen.undo)
        elif chosen.request is not None and not learner.learn(chosen.request, chosen.verdict == "right"):
            print(
                f"outthink feedback: {chosen.request} was not drawn by this policy: noted, not learned", file=sys.stderr
            )
        for note in learner.notes:
            print(f"outthink feedback: {note}", file=sys.stderr)
        if chosen.json:
            print(json.dumps(learner.state()))
        else:
            _show(learner)
    finally:
        learner.close()
    return 0


def _show(learner: Learner) -> None:
    from rich.markup import escape

    right = dict.fromkeys((arm.name for arm in learner.arms), 0)
    wrong = dict(right)
    for line in learner.outcomes.values():
        counts = right if line.outcome else wrong
        counts[line.arm or ""] += 1
    rows = [
        (
            escape(row.arm.name),
            str(right[row.arm.name]),
            str(wrong[row.arm.name]),
            f"{row.mean:.1%}",
            f"{row.arm.mean:.1%} [{row.arm.low:.1%}, {row.arm.high:.1%}]",
            f"{row.cost:.4g}",
            f"{row.propensity:.1%}",
        )
        for row in learner.beliefs()
    ]
    print_table(("arm", "right", "wrong", "mean", "calibrated", "cost", "next"), rows)
    print(
        f"policy {learner.policy}; {learner.count} lines, {len(learner.choices)} requests, "
        f"{len(learner.outcomes)} outcomes; `next` is the probability that the next request gets the arm"
    )
