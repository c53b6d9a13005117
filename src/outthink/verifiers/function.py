"""A user's own check as a verifier: exact comparison, a schema, a parser. Costs no tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from outthink.core.errors import BadInput
from outthink.core.request import Request
from outthink.verifiers.protocol import Score


class FunctionVerifier:
    """Calls a function with the request and a completion; it returns a score or a truth value."""

    parameters = 0

    def __init__(self, function: Callable[[Request, str], float], *, name: str = "function") -> None:
        self.function, self.model = function, name

    def bound(self, request: Request, text: str) -> int:
        """No tokens."""
        return 0

    async def score(self, request: Request, texts: Sequence[str]) -> list[Score]:
        """One score a completion. BadInput names a value outside 0...1, NaN included."""
        values = [float(self.function(request, text)) for text in texts]
        for value in values:
            if not 0 <= value <= 1:
                raise BadInput(f"verifier {self.model}", value, "is no score", "return 0 (wrong) to 1 (right)")
        return [Score(value) for value in values]
