"""`outthink batch`: many questions under one budget, the next sample where it gains most."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outthink.cli.engine import chosen_engine, engine_arguments
from outthink.core.errors import BadInput
from outthink.core.request import ANSWER_KINDS

if TYPE_CHECKING:
    from outthink.batch import BatchResult
    from outthink.session.session import Session

_EPILOG = """FILE: JSON lines with question, prompt or messages; optional id or problem_id
Results are JSON lines {id, answer, text, stopped, receipt}. With --out an interrupted or killed
run goes on where it was, and what it has spent counts against the budget."""
_QUESTIONS = ("question", "prompt", "messages")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("file", type=Path, metavar="FILE.jsonl", help="the questions")
    engine_arguments(parser)
    add("--budget", metavar="tokens=N,seconds=S,...", help="ceilings for the whole batch")
    add("--answer", choices=ANSWER_KINDS, default="number", help="kind of answer (default number)")
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
    add("--max-tokens", type=int, default=512, help="cap of one completion (default 512)")
    add("--temperature", type=float, default=0.8, help="default 0.8")
    add("--seed", type=int, help="sample i is drawn with seed + i")
    add("--price", metavar="IN,OUT", help="dollars per million tokens; wins over published prices")
    add("--energy", metavar="PROMPT,COMPLETION", help="joules a token, bounds from above; needed for a joule budget")
    add("--out", type=Path, metavar="FILE.jsonl", help="where the results go (default standard output)")


def run(chosen: argparse.Namespace) -> int:
    """Answer them all; 0, or 130 where interrupted (with what there is)."""
    from outthink.cli.files import write_whole

    names, prompts = _questions(chosen.file)
    out: Path | None = chosen.out
    if out is not None and out.exists():
        raise BadInput("--out", str(out), "exists already", "give another name or remove it")
    journal = None if out is None else out.with_name(out.name + ".journal")
    batch = asyncio.run(_ask(chosen, names, prompts, journal))
    interrupted = any(result.stopped == "interrupted" for result in batch.results)
    lines = [
        json.dumps({"id": name, **result.json()}, ensure_ascii=False)
        for name, result in zip(names, batch.results, strict=True)
    ]
    if out is None:
        print("\n".join(lines))
    elif not interrupted:
        write_whole(out, "\n".join(lines) + "\n")
        for suffix in ("", "-wal", "-shm"):
            out.with_name(f"{out.name}.journal{suffix}").unlink(missing_ok=True)
    print(_summary(batch), file=sys.stderr)
    return 130 if interrupted else 0


async def _ask(chosen: argparse.Namespace, names: list[str], prompts: list[Any], journal: Path | None) -> BatchResult:
    from outthink.batch import ask_batch
    from outthink.economics.price import Price
    from outthink.economics.tariff import Energy
    from outthink.engines.traces import load
    from outthink.evaluation.gains import measure_gains

    gains = measure_gains([load(path) for path in chosen.traces], at_most=chosen.n) if chosen.traces else None
    engine = chosen_engine(chosen)

    def opened(session: Session) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, session.stop, "interrupted")

    try:
        return await ask_batch(
            prompts,
            ids=names,
            model=engine,
            budget=chosen.budget,
            answer=chosen.answer,
            gains=gains,
            verifier=chosen.verifier,
            at_most=chosen.n,
            worth=chosen.worth,
            system=chosen.system,
            max_tokens=chosen.max_tokens,
            temperature=chosen.temperature,
            seed=chosen.seed,
            price=Price.parse(chosen.price) if chosen.price else None,
            energy=Energy.parse(chosen.energy) if chosen.energy else None,
            journal=journal,
            opened=opened,
        )
    finally:
        await engine.aclose()


def _questions(path: Path) -> tuple[list[str], list[Any]]:
    """Names and prompts of all rows."""
    from outthink.evaluation.sample_file import read_rows

    names, prompts = [], []
    for number, row in enumerate(read_rows("file", path), start=1):
        asked = next((row[key] for key in _QUESTIONS if row.get(key)), None)
        if not isinstance(asked, str | list):
            raise BadInput("file", str(path), f"row {number} asks nothing", f"give it {' or '.join(_QUESTIONS)}")
        names.append(str(row.get("id", row.get("problem_id", number))))
        prompts.append(asked)
    if not names:
        raise BadInput("file", str(path), "holds no question", 'write lines like {"question": "..."}')
    return names, prompts


def _summary(batch: BatchResult) -> str:
    receipt = batch.receipt
    answered = sum(result.answer is not None for result in batch.results)
    calls = sorted(len(result.receipt.entries) for result in batch.results)
    tokens = "unknown" if receipt.tokens is None else f"{receipt.tokens:,}"
    return (
        f"{answered} of {len(batch.results)} answered; {tokens} tokens, {receipt.seconds:.1f} s; "
        f"calls a question: {calls[0]} to {calls[-1]}, median {calls[len(calls) // 2]}"
    )
