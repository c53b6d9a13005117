"""A tree of steps whose values are known: an engine that writes it and a process verifier that judges it.

The step `[d] ...` leads to child d of the node that the prefix stands at. Sample i of a prefix goes to
child i (modulo the width), greedy samples to child 0; what follows goes to child 0 all the way down.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from outthink import Completion, Request, ScriptedEngine, Speed
from outthink.core.errors import EngineError
from outthink.core.sample import Candidate
from outthink.engines.protocol import Call
from outthink.verifiers import Score

Place = tuple[int, ...]
OPTIMUM: Place = (2, 1, 1)
STEP_TOKENS = 10
_DIGIT = re.compile(r"\[(\d+)\]")
WIDE = Speed(total=1e9, judge=1e12, concurrency=256)


def place(text: str) -> Place:
    """The node that a text has reached."""
    return tuple(int(digit) for digit in _DIGIT.findall(text))


def number(at: Place) -> str:
    """The answer of a leaf: 1 and its digits."""
    return "1" + "".join(map(str, at))


def value(at: Place) -> float:
    """0.1, and more for every step in common with the optimum: 0.9 there."""
    shared = 0
    for mine, best in zip(at, OPTIMUM, strict=False):
        if mine != best:
            break
        shared += 1
    return 0.1 + 0.8 * shared / len(OPTIMUM)


class ToyTree:
    """Writes the tree.

    Args:
        words: what a step says behind its number; `answer`: what a leaf says.
    """

    def __init__(
        self,
        *,
        width: int = 4,
        depth: int = 3,
        separator: str = "\n\n",
        answer: Callable[[Place], str] = number,
        words: str = "and so it goes on",
        tokens: int = STEP_TOKENS,
        **options: Any,
    ) -> None:
        self.width, self.depth, self.separator = width, depth, separator
        self.answer, self.words, self.tokens = answer, words, tokens
        self.engine = ScriptedEngine(self._write, **{"speed": WIDE, **options})

    def _write(self, call: Call) -> Completion:
        at = place(call.prefix or "")
        if len(at) >= self.depth:
            return Completion(text="", tokens=0)
        child = 0 if call.sampling.temperature == 0 else call.index % self.width
        steps = []
        for _ in range(self.depth - len(at)):
            at, child = (*at, child), 0
            steps.append(f"[{at[-1]}] {self.words} {len(at)}")
        steps[-1] = f"[{at[-1]}] The answer is {self.answer(at)}."
        half = call.prefix and self.separator == "\n\n" and not call.prefix.endswith(self.separator)
        return Completion(text="\n" * bool(half) + self.separator.join(steps), tokens=self.tokens * len(steps))


class ToyVerifier:
    """Gives every step the value of the node it leads to; a step it has read before is cached.

    Args:
        fails_after: batches that it judges before it dies, None for one that lives.
    """

    def __init__(
        self,
        worth: Callable[[Place], float] = value,
        *,
        kind: str = "process",
        separator: str = "\n\n",
        aggregation: str = "last",
        fails_after: int | None = None,
    ) -> None:
        self.worth, self.kind, self.separator, self.aggregation = worth, kind, separator, aggregation
        self.id, self.model, self.parameters = "toy@1", "toy", 100
        self.fails_after = fails_after
        self.seen: set[str] = set()
        self.texts: list[str] = []
        self.batches: list[int] = []

    def bound(self, request: Request, candidate: Candidate) -> int:
        """Ten tokens a step."""
        return STEP_TOKENS * len(candidate.steps)

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """The known values."""
        if self.fails_after is not None and len(self.batches) >= self.fails_after:
            raise EngineError("the toy has died")
        self.batches.append(len(candidates))
        return [self._score(candidate) for candidate in candidates]

    def _score(self, candidate: Candidate) -> Score:
        self.texts.append(candidate.text)
        texts = ["".join(candidate.steps[: at + 1]) for at in range(len(candidate.steps))]
        cached = sum(text in self.seen for text in texts)
        self.seen.update(texts)
        steps = tuple(self.worth(place(text)) for text in texts)
        steps = steps if self.kind == "process" else steps[-1:]
        return Score(steps, STEP_TOKENS * len(texts), 0, STEP_TOKENS * cached)
