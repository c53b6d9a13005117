"""What has happened in a running strategy: finished samples, votes, and whether they can still change.

Knows what a session tells its observer. Does not know strategies but for one rule: where every vote
counts the same, a lead that the outstanding samples cannot close is decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from outthink.core.sample import Sample
from outthink.serving.observe.watch import Watchers
from outthink.session.calls import RunningCall

# What a session tells its observer, as the proxy's watchers hear it.
#
# Knows: the names of a session's moments. Does not know who watches.

_STATES = {
    "launched": "started",
    "finished": "finished",
    "cached": "finished",
    "stopped": "cancelled",
    "cancelled": "cancelled",
    "failed": "failed",
}


class SessionEvents:
    """Passes the moments of one request on.

    Args:
        id: of the request's receipt.
    """

    def __init__(self, watchers: Watchers, id: str) -> None:
        self._watchers, self._id = watchers, id
        self._numbers: dict[RunningCall, int] = {}

    def __call__(self, event: str, running: RunningCall, sample: Sample | None, votes: Counter[str]) -> None:
        """Tell of a call, and of the votes where they have changed."""
        state = _STATES.get(event)
        if state is None:
            return
        index = self._numbers.setdefault(running, len(self._numbers))
        answer = None if sample is None or running.role != "policy" else sample.answer
        tokens = running.tokens if sample is None else sample.tokens
        self._watchers.sampled(self._id, index, state, answer, tokens, running.model)
        if answer is not None and votes:
            self._watchers.voted(self._id, dict(votes), votes.most_common(1)[0][0])


class VoteProgress:
    """An observer of one session.

    Args:
        n: samples of a plain majority vote, None where the strategy decides by itself.
        decided: called once when the vote is beyond change.
    """

    def __init__(self, n: int | None, decided: Callable[[], None]) -> None:
        self._n, self._decided = n, decided
        self.tell: SessionEvents | None = None
        self.samples: list[Sample] = []
        self.launched = self.ended = 0
        self._votes: Counter[str] = Counter()

    def __call__(self, event: str, running: RunningCall, sample: Sample | None) -> None:
        """Take note, and pass it on."""
        self._note(event, running, sample)
        if self.tell is not None:
            self.tell(event, running, sample, self._votes)

    def _note(self, event: str, running: RunningCall, sample: Sample | None) -> None:
        if event == "launched":
            self.launched += 1
        elif event in ("finished", "stopped", "cancelled", "failed", "cached"):
            self.ended += 1
            if sample is not None and running.role == "policy":
                self._add(sample)

    def _add(self, sample: Sample) -> None:
        self.samples.append(sample)
        if sample.answer is None:
            return
        self._votes[sample.answer] += 1
        if self._n is None or len(self.samples) >= self._n:
            return
        best = self._votes.most_common(2)
        second = best[1][1] if len(best) > 1 else 0
        if best[0][1] > second + self._n - len(self.samples):
            self._n = None
            self._decided()

    def ranked(self, text: str, answer: str | None, most: int) -> list[str]:
        """Texts of the best answers, the chosen one first; more samples of the same answers where those run out."""
        firsts: dict[str, str] = {}
        for sample in sorted(self.samples, key=lambda sample: sample.index):
            if sample.answer is not None:
                firsts.setdefault(sample.answer, sample.text)
        order = sorted(firsts, key=lambda found: -self._votes[found])
        texts = [text, *(firsts[found] for found in order if found != answer)]
        rest = [sample.text for sample in sorted(self.samples, key=lambda sample: sample.index)]
        for used in texts:
            if used in rest:
                rest.remove(used)
        return (texts + rest)[:most]

    @property
    def line(self) -> str:
        """Progress in words."""
        said = f"{len(self.samples)} of {self.launched} samples"
        if self._votes:
            said += f", the leading answer has {self._votes.most_common(1)[0][1]} votes"
        return said
