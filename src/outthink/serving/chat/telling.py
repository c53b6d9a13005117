"""What a session tells its observer, as the proxy's watchers hear it.

Knows: the names of a session's moments. Does not know who watches.
"""

from __future__ import annotations

from collections import Counter

from outthink.core.sample import Sample
from outthink.serving.watch import Watchers
from outthink.session.running import Running

_STATES = {
    "launched": "started",
    "finished": "finished",
    "cached": "finished",
    "stopped": "cancelled",
    "cancelled": "cancelled",
    "failed": "failed",
}


class Telling:
    """Passes the moments of one request on.

    Args:
        id: of the request's receipt.
    """

    def __init__(self, watchers: Watchers, id: str) -> None:
        self._watchers, self._id = watchers, id
        self._numbers: dict[Running, int] = {}

    def __call__(self, event: str, running: Running, sample: Sample | None, votes: Counter[str]) -> None:
        """Tell of a call, and of the votes where they have changed."""
        state = _STATES.get(event)
        if state is None:
            return
        index = self._numbers.setdefault(running, len(self._numbers))
        answer = None if sample is None or running.role != "policy" else sample.answer
        tokens = running.tokens if sample is None else sample.tokens
        self._watchers.sampled(self._id, index, state, answer, tokens, running.stream.session.tariff.model)
        if answer is not None and votes:
            self._watchers.voted(self._id, dict(votes), votes.most_common(1)[0][0])
