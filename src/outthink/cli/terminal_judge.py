"""A person at the terminal as a verifier: sees the reasoning, answers y, n or w.

Knows: how to show and to ask. Does not know what a strategy does with the score.
"""

from __future__ import annotations

import asyncio
import select
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TextIO

from outthink.core.errors import BadInput
from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.verifiers.protocol import Aggregation, Kind, Score

_SHOWN = 1500  # characters of the reasoning, from its end
_TRIES = 3
_LOOK = 0.2  # seconds between two looks whether anybody still waits for the reply
_SCORES = {"y": 1.0, "n": 0.25, "w": 0.0}
_ASK = "complete and right (y), sound but not complete (n), wrong (w, then maybe why): "


class TerminalJudge:
    """Asks whoever sits at the terminal; y scores 1, n 0.25 and w 0. Costs no tokens.

    Args:
        read: one line of input; raises EOFError at the end of input. Default: the terminal's.
        out: where the reasoning and the question are written; standard error.

    After three replies that are none of these, or at the end of input, a candidate stays unscored.
    """

    id = "person"
    model = "person"
    kind: Kind = "generative"
    parameters = 0
    separator = "\n\n"
    aggregation: Aggregation = "last"

    def __init__(self, read: Callable[[], str] | None = None, out: TextIO | None = None) -> None:
        self.read, self.out = read, out or sys.stderr
        self._turn = asyncio.Lock()  # one question at a time, however many samples end together

    @classmethod
    def here(cls) -> TerminalJudge:
        """The person in front of this process; BadInput where standard input is no terminal."""
        if not sys.stdin.isatty():
            raise BadInput("--verifier", "person", "needs a terminal to ask at", "give the question as an argument")
        return cls()

    def bound(self, request: Request, candidate: Candidate) -> int:
        """No tokens."""
        return 0

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
                line = (_line(gone) if self.read is None else self.read()).strip()
            except EOFError:
                break
            verdict, _, note = line.partition(" ")
            if verdict.lower() in _SCORES:
                return Score((_SCORES[verdict.lower()],), message=note.strip())
        return Score(())


def _line(gone: threading.Event) -> str:
    """A line of standard input; EOFError at its end, or once nobody waits for it any more."""
    while not select.select([sys.stdin], [], [], _LOOK)[0]:
        if gone.is_set():
            raise EOFError
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line
