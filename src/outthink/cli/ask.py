"""`outthink ask`: one question, one answer, one receipt.

Knows flags, a view of what runs, how an answer is printed, and a person at the terminal as a verifier. Does not know
how a strategy is chosen or run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import select
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from outthink.answers import visible
from outthink.cli.options import (
    ANSWERS,
    choosing_arguments,
    choosing_options,
    engine_arguments,
    flags_of,
    sampling_arguments,
    say,
)
from outthink.core.errors import BadInput, EngineError
from outthink.core.receipt import Result
from outthink.core.request import Request
from outthink.core.sample import Candidate, Sample
from outthink.core.text import writable_json
from outthink.session.calls import RunningCall
from outthink.strategies import strategies
from outthink.verifiers.checks import WithoutTokens
from outthink.verifiers.protocol import Kind, Score

if TYPE_CHECKING:
    from outthink.client import Options
    from outthink.controller.policy.plan import Plan
    from outthink.session.session import Session


def ask_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    add = parser.add_argument
    add("prompt", nargs="?", help="the question; read from standard input if left out, one a line with -")
    engine_arguments(parser)
    add(
        "--strategy",
        metavar="NAME[:k=v,...]",
        help="auto, python:MODULE:FUNCTION, or see `outthink strategies` (default by kind)",
    )
    add("--policy", metavar="FILE", help="what `outthink calibrate` made, for --strategy auto")
    add("--learn", metavar="LOG", help="with --strategy auto: draw by what came of earlier answers (outthink feedback)")
    choosing_arguments(add)
    add("--explain", action="store_true", help="say what a policy or a router believed, considered and chose")
    add("--budget", metavar="tokens=N,seconds=S,...", help="hard ceilings in tokens, seconds, usd, joules")
    add("--answer", choices=ANSWERS, default="text", help="kind of answer (default text)")
    add("--system", help="system prompt")
    sampling_arguments(add)
    add("--reasoning-effort", metavar="LEVEL", help="low, medium, high, ... for servers that have it")
    add("--thinking-tokens", type=int, metavar="N", help="cap of the thinking alone, for servers that have it")
    add("--verifier", metavar="NAME|PATH|URL", help="judges candidates; person asks at the terminal")
    add("--seed", type=int, help="sample i is drawn with seed + i")
    add("--ahead", type=int, default=4, help="calls in flight of stopping strategies (default 4)")
    add("--price", metavar="IN,OUT", help="dollars per million tokens; wins over published prices")
    add("--energy", metavar="PROMPT,COMPLETION", help="joules a token, bounds from above; needed for a joule budget")
    add("--parameters", type=int, metavar="N", help="weights read per token, for FLOPs; wins over what is known of it")
    add("--cache", action="store_true", help="reuse samples of earlier runs")
    add("--json", action="store_true", help="print one JSON object a question")


def run_ask(chosen: argparse.Namespace) -> int:
    """Ask, show, and answer with 0, 3 (nothing readable) or 130 (interrupted); the worst of several questions."""
    if chosen.explain and chosen.strategy != "auto" and chosen.router is None:
        raise BadInput("--explain", chosen.strategy, "goes with --strategy auto", "leave it out, or ask for auto")
    return _ask_lines(chosen) if chosen.prompt == "-" else _print_result(chosen, asyncio.run(_ask(chosen)))


def _print_result(chosen: argparse.Namespace, result: Result) -> int:
    if chosen.json:
        print(writable_json(json.dumps(result.json())), flush=True)
    else:
        show(result)
    if result.stopped == "interrupted":
        return 130
    if result.stopped == "error" and result.answer is None:
        return 1
    return 0 if result.answer is not None else 3


async def _ask(chosen: argparse.Namespace) -> Result:
    from outthink.client import ask

    prompt = read_prompt(chosen.prompt)
    options = _options(chosen)
    # A view that redraws itself would hide what a person is asked.
    first = f"starting the engine, reading the verifier {chosen.verifier}" if chosen.verifier else "starting the engine"
    view = LiveView(sys.stderr, quiet=chosen.json or chosen.verifier == "person", first=first)

    def opened(session: Session) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, session.stop, "interrupted")
        view.watch(session)

    options["observer"], options["opened"] = view, opened
    with view:
        return await ask(prompt, **options)


def _ask_lines(chosen: argparse.Namespace) -> int:
    """A question a line of standard input, on a model that is kept warm; one that fails does not end the others."""
    from outthink.client import SyncClient

    codes = {0}
    running: list[tuple[asyncio.AbstractEventLoop, Session]] = []

    def interrupt(*_: object) -> None:
        if not running:
            raise KeyboardInterrupt
        loop, session = running[-1]
        # The session belongs to the client's loop, which runs in another thread.
        loop.call_soon_threadsafe(session.stop, "interrupted")

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with SyncClient(**_options(chosen)) as client:
            for question in filter(None, map(str.strip, _lines())):
                view = LiveView(sys.stderr, quiet=chosen.json)

                def opened(session: Session, view: LiveView = view) -> None:
                    running.append((asyncio.get_running_loop(), session))
                    view.watch(session)

                try:
                    with view:
                        result = client.ask(question, observer=view, opened=opened)
                except EngineError as error:
                    print(f"outthink ask: {error}", file=sys.stderr)
                    if chosen.json:
                        print(writable_json(json.dumps({"error": str(error)})), flush=True)
                    codes.add(1)
                else:
                    codes.add(_print_result(chosen, result))
                running.clear()
                if 130 in codes:
                    break
    finally:
        signal.signal(signal.SIGINT, before)
    return next(code for code in (130, 1, 3, 0) if code in codes)


def _lines() -> Iterator[str]:
    try:
        yield from sys.stdin
    except UnicodeDecodeError:
        raise BadInput("prompt", "standard input", "is no UTF-8 text", "convert it first") from None


def _options(chosen: argparse.Namespace) -> Options:
    """The flags as what a client takes."""
    from outthink.client import Options

    flags: Options = flags_of(Options, chosen) | choosing_options(chosen)
    return {
        **flags,
        "verifier": TerminalJudge.here() if chosen.verifier == "person" else chosen.verifier,
        "planned": explain if chosen.explain else None,
        "routed": (lambda choice: say("\n".join(choice.lines()))) if chosen.explain else None,
    }


def explain(plan: Plan) -> None:
    """Say on standard error what a policy decided, and why."""
    from outthink.controller.policy.plan import explained

    print("\n".join(explained(plan)), file=sys.stderr)


def read_prompt(given: str | None) -> str:
    """The prompt from the command line, or all of standard input; BadInput if there is none."""
    if given is not None:
        return given
    if sys.stdin.isatty():
        raise BadInput("prompt", "", "is missing", "write a question or pipe one in")
    return "".join(_lines()).strip()


# How an answer and its receipt are printed. Knows columns and units; derives nothing new.


def show(result: Result) -> None:
    """The answer on standard output, the receipt on standard error."""
    answer = result.answer
    known = strategies().get(result.strategy.partition(":")[0])
    plain = known is not None and known.streams == "tokens"  # one sample: its text is what was asked for
    # What was only thought is no part of the answer; a thought that was cut is all there is to see.
    text = (visible(result.text) or result.text).strip()
    if text and (answer is None or plain):
        print(text)
    if answer is None:
        print("no readable answer", file=sys.stderr)
    elif answer not in text.casefold() or not plain:
        print(answer)
    sys.stdout.flush()  # whoever reads standard error may have gone, which must not cost the answer
    print_receipt(result, Console(stderr=True, highlight=False))


def print_receipt(result: Result, console: Console) -> None:
    """The receipt as a small table, each of its notes a line; what is unknown says so."""
    console.print(f"receipt · {result.strategy} · {result.model}", style="italic", markup=False, soft_wrap=True)
    table = Table(show_header=False, box=None)
    table.add_column(style="dim")
    table.add_column()
    table.add_row("stopped", result.stopped)
    for name, value in result.receipt.display()[1]:
        if name != "note":
            table.add_row(name, escape(value))
    console.print(table)
    for note in result.receipt.notes:
        console.print(f"note: {note}", style="dim", markup=False, soft_wrap=True)


# What `ask` shows while it runs: samples, votes and spending.
#
# Knows: a terminal and plain lines. Does not know strategies; it watches a session's calls.

_ENDED = ("finished", "stopped", "cancelled", "failed", "cached")


class LiveView:
    """An observer of a session. On a terminal a view that redraws itself, else one line a sample.

    Args:
        stream: where to draw; standard error, so that standard output holds only the answer.
        quiet: draw nothing.
        first: what is waited for before there is a session.
    """

    def __init__(self, stream: TextIO, *, quiet: bool = False, first: str = "starting the engine") -> None:
        self.console = Console(file=stream, highlight=False)
        self.quiet, self._first = quiet, first
        self.votes: Counter[str] = Counter()
        self.unreadable = 0
        self.running: dict[RunningCall, None] = {}
        self.session: Session | None = None
        self._live: Live | None = None

    def watch(self, session: Session) -> None:
        """The session whose spending is shown."""
        self.session = session

    def __enter__(self) -> LiveView:
        if not self.quiet and self.console.is_terminal:
            self._live = Live(get_renderable=self._draw, console=self.console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: str, running: RunningCall, sample: Sample | None) -> None:
        """Take in one event of the session."""
        if event == "launched":
            self.running[running] = None
        elif event in _ENDED:
            self.running.pop(running, None)
            if sample is not None and sample.answer is not None:
                self.votes[sample.answer] += 1
            elif sample is not None:
                self.unreadable += 1
            if not self.quiet and self._live is None and event != "failed":  # the error itself follows
                from outthink.client.progress import event_of

                self.console.print(str(event_of(event, running, sample)), markup=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        lines = [Text(self._spending(), style="dim")]
        for answer, count in self.votes.most_common(5):
            lines.append(
                Text.assemble((f"{count:4d} ", "bold green"), ("█" * min(count, 40), "green"), f" {answer}"[:90])
            )
        if self.unreadable:
            lines.append(Text(f"{self.unreadable:4d} unreadable", style="yellow"))
        for running in list(self.running)[:6]:
            lines.append(Text(f"   … {_tail(running)}", style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)

    def _spending(self) -> str:
        if self.session is None:
            return self._first
        receipt = self.session.receipt()
        known = receipt.total("tokens").known + sum(running.seen for running in self.running)
        limit = self.session.account.budget.tokens
        tokens = f"{known:,.0f} tokens" + (f" of {limit:,}" if limit else "")
        return f"{len(self.running)} in flight · {tokens} · {receipt.seconds:.1f} s"


def _tail(running: RunningCall) -> str:
    pieces = running.arrived.text[-24:] if running.arrived else []
    return "".join(pieces).replace("\n", " ")[-80:] or "waiting"


# A person at the terminal as a verifier: sees the reasoning, answers y, n or w.
#
# Knows: how to show and to ask. Does not know what a strategy does with the score.

_SHOWN = 1500  # characters of the reasoning, from its end
_TRIES = 3
_LOOK = 0.2  # seconds between two looks whether anybody still waits for the reply
_SCORES = {"y": 1.0, "n": 0.25, "w": 0.0}
_ASK = "complete and right (y), sound but not complete (n), wrong (w, then maybe why): "


class TerminalJudge(WithoutTokens):
    """Asks whoever sits at the terminal; y scores 1, n 0.25 and w 0. Costs no tokens.

    Args:
        read: one line of input; raises EOFError at the end of input. Default: the terminal's.
        out: where the reasoning and the question are written; standard error.

    After three replies that are none of these, or at the end of input, a candidate stays unscored.
    """

    id = "person"
    model = "person"
    kind: Kind = "generative"

    def __init__(self, read: Callable[[], str] | None = None, out: TextIO | None = None) -> None:
        self.read, self.out = read, out or sys.stderr
        self._turn = asyncio.Lock()  # one question at a time, however many samples end together

    @classmethod
    def here(cls) -> TerminalJudge:
        """The person in front of this process; BadInput where standard input is no terminal."""
        if not sys.stdin.isatty():
            raise BadInput("--verifier", "person", "needs a terminal to ask at", "give the question as an argument")
        return cls()

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """Ask for one candidate after the other, without holding up the event loop; cancelled, stop waiting."""
        gone = threading.Event()
        try:
            async with self._turn:
                return [await asyncio.to_thread(self._ask, candidate.text, gone) for candidate in candidates]
        finally:
            gone.set()

    def _ask(self, text: str, gone: threading.Event) -> Score:
        print(f"\n--- reasoning so far\n{text[-_SHOWN:]}\n---", file=self.out)
        for _ in range(_TRIES):
            print(_ASK, end="", file=self.out, flush=True)
            try:
                line = (_read_line(gone) if self.read is None else self.read()).strip()
            except EOFError:
                break
            verdict, _, note = line.partition(" ")
            if verdict.lower() in _SCORES:
                return Score((_SCORES[verdict.lower()],), message=note.strip())
        return Score(())


def _read_line(gone: threading.Event) -> str:
    """A line of standard input; EOFError at its end, or once nobody waits for it any more."""
    # A thread that waits in readline could not be ended when the request is.
    while not select.select([sys.stdin], [], [], _LOOK)[0]:
        if gone.is_set():
            raise EOFError
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line
