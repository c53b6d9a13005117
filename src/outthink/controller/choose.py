"""Which strategy a request gets.

Knows: the user's wish and the default for each kind of answer. Does not know engines or prices.
"""

from __future__ import annotations

from outthink.core.request import Request
from outthink.strategies import Spec
from outthink.strategies.defaults import fallback


def choose(request: Request, wish: str | Spec | None = None) -> Spec:
    """The strategy to run: the user's, or one sample for free text and adaptive voting for the rest.

    Free text has no canonical form that two completions are likely to share, so votes cannot pay.
    """
    if isinstance(wish, Spec):
        return wish
    if wish is not None:
        return Spec.parse(wish, importing=True)
    return Spec.parse(fallback(request.answer))
