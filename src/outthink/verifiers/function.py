"""A user's own check as a verifier: exact comparison, a schema, a parser. Costs no tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.verifiers.protocol import Aggregation, Kind, Score


class FunctionVerifier:
    """Calls a function with the request and a completion's text; it returns a score or a truth value.

    Args:
        exact: the function decides right or wrong, so that the first pass may end a search.
    """

    model = "function"
    parameters = 0
    separator = "\n\n"
    aggregation: Aggregation = "last"

    def __init__(
        self, function: Callable[[Request, str], float], *, name: str = "function", exact: bool = False
    ) -> None:
        self.function, self.id = function, name
        self.kind: Kind = "exact" if exact else "outcome"

    def bound(self, request: Request, candidate: Candidate) -> int:
        """No tokens."""
        return 0

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a completion; the session refuses values outside 0...1."""
        return [Score((float(self.function(request, candidate.text)),)) for candidate in candidates]
