"""What `ask` shows while it runs: samples, votes and spending.

Knows: a terminal and plain lines. Does not know strategies; it watches a session's calls.
"""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from outthink.core.sample import Sample
from outthink.session.running import Running

if TYPE_CHECKING:
    from outthink.session.session import Session

_ENDED = ("finished", "stopped", "cancelled", "failed", "cached")


class LiveView:
    """An observer of a session. On a terminal a view that redraws itself, else one line a sample.

    Args:
        stream: where to draw; standard error, so that standard output holds only the answer.
        quiet: draw nothing.
    """

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self.console = Console(file=stream, highlight=False)
        self.quiet = quiet
        self.votes: Counter[str] = Counter()
        self.unreadable = 0
        self.running: dict[Running, None] = {}
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: str, running: Running, sample: Sample | None) -> None:
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
                self.console.print(_line(event, running, sample), markup=False, soft_wrap=True)

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
            return "starting the engine"
        receipt = self.session.receipt()
        known = receipt.total("tokens").known + sum(running.seen for running in self.running)
        limit = self.session.desk.budget.tokens
        tokens = f"{known:,.0f} tokens" + (f" of {limit:,}" if limit else "")
        return f"{len(self.running)} in flight · {tokens} · {receipt.seconds:.1f} s"


def _line(event: str, running: Running, sample: Sample | None) -> str:
    number = f"sample {running.call.index + 1}"
    if sample is None:
        return f"{number}: {event}"
    tokens = "unknown tokens" if sample.tokens is None else f"{sample.tokens} tokens"
    answer = "no readable answer" if sample.answer is None else sample.answer.replace("\n", " ")[:80]
    return f"{number}: {answer} ({tokens}, {event})"


def _tail(running: Running) -> str:
    pieces = running.arrived.text[-24:] if running.arrived else []
    return "".join(pieces).replace("\n", " ")[-80:] or "waiting"
