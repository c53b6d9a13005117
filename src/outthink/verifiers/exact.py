"""A check that decides right or wrong: a number, mathematical equivalence, a user's own comparison.

Knows: that a truth value is a score of 1 or 0 and costs no tokens. Does not know what is compared; the
check is passed in, and may wait for a process of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence

from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.verifiers.protocol import Aggregation, Kind, Score

Check = Callable[[Request, str], bool | Awaitable[bool]]
"""The request and a completion's text -> whether it is right, at once or to be awaited."""


class ExactVerifier:
    """Asks a check about each completion: 1 is right, 0 is wrong, and the first 1 may end a search.

    Args:
        check: called with the request and a completion's text; what it raises is not caught here.
        id: names the check; scores of different ids are never mixed.
    """

    kind: Kind = "exact"
    model = "exact"
    parameters = 0
    separator = "\n\n"
    aggregation: Aggregation = "last"

    def __init__(self, check: Check, *, id: str = "exact") -> None:
        self.check, self.id = check, id

    def bound(self, request: Request, candidate: Candidate) -> int:
        """No tokens."""
        return 0

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a completion, checked in order."""
        scores = []
        for candidate in candidates:
            verdict = self.check(request, candidate.text)
            right = await verdict if inspect.isawaitable(verdict) else verdict
            scores.append(Score((1.0 if right else 0.0,)))
        return scores
