"""A person at the terminal as a verifier: sees the reasoning, answers y, n or w.

Knows: how to show and to ask. Does not know what a strategy does with the score.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from outthink.core.candidate import Candidate
from outthink.core.request import Request
from outthink.verifiers.protocol import Aggregation, Kind, Score

_SHOWN = 1500  # characters of the reasoning, from its end
_TRIES = 3
_SCORES = {"y": 1.0, "n": 0.25, "w": 0.0}
_ASK = "complete and right (y), sound but not complete (n), wrong (w, then maybe why): "


class TerminalJudge:
    """Asks whoever sits at the terminal; y scores 1, n 0.25 and w 0. Costs no tokens.

    Args:
        read: one line of input without its end; raises EOFError at the end of input.
        out: where the reasoning and the question are written; standard error.

    After three replies that are none of these, or at the end of input, a candidate stays unscored.
    """

    id = "person"
    model = "person"
    kind: Kind = "generative"
    parameters = 0
    separator = "\n\n"
    aggregation: Aggregation = "last"

    def __init__(self, read: Callable[[], str] = input, out: TextIO | None = None) -> None:
        self.read, self.out = read, out or sys.stderr

    def bound(self, request: Request, candidate: Candidate) -> int:
        """No tokens."""
        return 0

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """Ask for one candidate after the other, without holding up the event loop."""
        return [await asyncio.to_thread(self._ask, candidate.text) for candidate in candidates]

    def _ask(self, text: str) -> Score:
        print(f"\n--- reasoning so far\n{text[-_SHOWN:]}\n---", file=self.out)
        for _ in range(_TRIES):
            print(_ASK, end="", file=self.out, flush=True)
            try:
                line = self.read().strip()
            except EOFError:
                break
            verdict, _, note = line.partition(" ")
            if verdict.lower() in _SCORES:
                return Score((_SCORES[verdict.lower()],), message=note.strip())
        return Score(())
