"""`outthink ask`: one question, one answer, one receipt."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING

from outthink.cli.engine import chosen_engine, engine_arguments
from outthink.core.errors import BadInput
from outthink.core.request import ANSWER_KINDS

if TYPE_CHECKING:
    from outthink.controller.policy.plan import Plan
    from outthink.core.receipt import Result
    from outthink.session.session import Session
    from outthink.verifiers.protocol import Verifier


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    add = parser.add_argument
    add("prompt", nargs="?", help="the question; read from standard input if left out or -")
    engine_arguments(parser)
    add("--strategy", metavar="NAME[:k=v,...]", help="auto, or see `outthink strategies` (default by kind of answer)")
    add("--policy", metavar="FILE", help="what `outthink calibrate` made, for --strategy auto")
    add("--learn", metavar="LOG", help="with --strategy auto: draw by what came of earlier answers (outthink feedback)")
    add("--also", action="append", default=[], metavar="URL|PATH", help="a further model to draw from; repeatable")
    add("--explain", action="store_true", help="with --strategy auto: say what it believed, considered and chose")
    add("--budget", metavar="tokens=N,seconds=S,...", help="hard ceilings in tokens, seconds, usd, joules")
    add("--answer", choices=ANSWER_KINDS, default="text", help="kind of answer (default text)")
    add("--system", help="system prompt")
    add("--max-tokens", type=int, default=512, help="cap of one completion (default 512)")
    add("--temperature", type=float, default=0.8, help="default 0.8")
    add("--reasoning-effort", metavar="LEVEL", help="low, medium, high, ... for servers that have it")
    add("--thinking-tokens", type=int, metavar="N", help="cap of the thinking alone, for servers that have it")
    add("--verifier", metavar="NAME|PATH|URL", help="judges candidates; person asks at the terminal")
    add("--seed", type=int, help="sample i is drawn with seed + i")
    add("--ahead", type=int, default=4, help="calls in flight of stopping strategies (default 4)")
    add("--price", metavar="IN,OUT", help="dollars per million tokens; wins over published prices")
    add("--energy", metavar="PROMPT,COMPLETION", help="joules a token, bounds from above; needed for a joule budget")
    add("--cache", action="store_true", help="reuse samples of earlier runs")
    add("--json", action="store_true", help="print one JSON object")


def run(chosen: argparse.Namespace) -> int:
    """Ask, show, and answer with 0, 3 (nothing readable) or 130 (interrupted)."""
    result = asyncio.run(_ask(chosen))
    if chosen.json:
        print(json.dumps(result.json()))
    else:
        from outthink.cli.receipt import show

        show(result)
    if result.stopped == "interrupted":
        return 130
    if result.stopped == "error" and result.answer is None:
        return 1
    return 0 if result.answer is not None else 3


async def _ask(chosen: argparse.Namespace) -> Result:
    from outthink.api import ask
    from outthink.cli.live import LiveView
    from outthink.economics.price import Price
    from outthink.economics.tariff import Energy

    prompt = read_prompt(chosen.prompt)
    judge: Verifier | str | None = chosen.verifier
    if asked := judge == "person":
        from outthink.cli.terminal_judge import TerminalJudge

        judge = TerminalJudge.here()
    engine = chosen_engine(chosen)
    view = LiveView(sys.stderr, quiet=chosen.json or asked)  # a view that redraws would hide what a person is asked
    if chosen.explain and chosen.strategy != "auto":
        raise BadInput("--explain", chosen.strategy, "goes with --strategy auto", "leave it out, or ask for auto")

    unstated = [None] * len(chosen.also)

    def opened(session: Session) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, session.stop, "interrupted")
        view.watch(session)

    try:
        with view:
            return await ask(
                prompt,
                model=[engine, *chosen.also],
                strategy=chosen.strategy,
                budget=chosen.budget,
                answer=chosen.answer,
                system=chosen.system,
                max_tokens=chosen.max_tokens,
                temperature=chosen.temperature,
                seed=chosen.seed,
                ahead=chosen.ahead,
                price=[Price.parse(chosen.price) if chosen.price else None, *unstated],
                energy=[Energy.parse(chosen.energy) if chosen.energy else None, *unstated],
                cache=chosen.cache,
                observer=view,
                opened=opened,
                verifier=judge,
                reasoning_effort=chosen.reasoning_effort,
                thinking_tokens=chosen.thinking_tokens,
                policy=chosen.policy,
                learn=chosen.learn,
                planned=explain if chosen.explain else None,
            )
    finally:
        await engine.aclose()


def explain(plan: Plan) -> None:
    """Say on standard error what a policy decided, and why."""
    from outthink.controller.policy.plan import explained

    print("\n".join(explained(plan)), file=sys.stderr)


def read_prompt(given: str | None) -> str:
    """The prompt from the command line or standard input; BadInput if there is none."""
    if given not in (None, "-"):
        return str(given)
    if sys.stdin.isatty():
        raise BadInput("prompt", "", "is missing", "write a question or pipe one in")
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError:
        raise BadInput("prompt", "standard input", "is no UTF-8 text", "convert it first") from None
