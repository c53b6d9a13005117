"""What is running now, as the dashboard shows it: requests with their samples and votes.

Knows: a watcher's events, and bounds on what is remembered. Everything here lives in memory, and nothing of it is
written anywhere. Does not know the ledger or HTTP.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from outthink.http.fields import JsonDict
from outthink.serving.protocols import AdmittedRequest, RequestRecord
from outthink.serving.watch import Watcher

REQUESTS, KEPT, FINISHED = 256, 200, 20
"""Running requests that are followed, ended ones whose samples are kept, and ended ones that are listed."""
SAMPLES, VOTES, LETTERS = 64, 8, 120
"""Samples of a request that are followed one by one, answers that are listed, and letters of an answer."""
_KEPT = ("id", "key_id", "model", "strategy", "stopped", "status", "started", "seconds", "samples", "tokens")
_ENDING = attrgetter(*_KEPT)
_ENDED = frozenset({"finished", "cancelled", "failed"})


@dataclass(slots=True)
class RequestProgress:
    """One request with its samples and votes."""

    request: AdmittedRequest
    samples: dict[int, JsonDict] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    votes: list[tuple[str, float]] = field(default_factory=list)
    answers: int = 0
    leader: str | None = None

    def sampled(self, index: int, state: str, answer: str | None, tokens: int | None, backend: str) -> None:
        """Take note of a sample; one beyond the bound is only counted."""
        if state in _ENDED and self.counts.get("started", 0) > 0:
            self.counts["started"] -= 1
        self.counts[state] = self.counts.get(state, 0) + 1
        if index in self.samples or len(self.samples) < SAMPLES:
            self.samples[index] = {
                "index": index,
                "state": state,
                "answer": short(answer),
                "tokens": tokens,
                "backend": backend,
            }

    def voted(self, votes: Mapping[str, float], leader: str | None) -> None:
        """Take note of the votes; the best ones are listed."""
        best = sorted(votes.items(), key=lambda vote: -vote[1])
        self.votes = [(short(answer) or "", float(weight)) for answer, weight in best[:VOTES]]
        self.answers, self.leader = len(votes), short(leader)

    def json(self) -> JsonDict:
        """As JSON values."""
        request = self.request
        return {
            "id": request.id,
            "key": request.key_id,
            "endpoint": request.endpoint,
            "model": short(request.model),
            "stream": request.stream,
            "started": request.started,
            "strategy": short(request.strategy),
            "samples": list(self.samples.values()),
            "counts": dict(self.counts),
            "votes": [{"answer": answer, "weight": weight} for answer, weight in self.votes],
            "answers": self.answers,
            "leader": self.leader,
        }


def short(text: str | None) -> str | None:
    """A text within the bound on letters."""
    return text if text is None or len(text) <= LETTERS else text[: LETTERS - 1] + "…"


class LiveRequests(Watcher):
    """A watcher that remembers the present. Its memory is bounded, whatever runs.

    It is called for every request, so what can wait until somebody looks is done then.
    """

    def __init__(self) -> None:
        self._running: OrderedDict[str, RequestProgress] = OrderedDict()
        self._ended: OrderedDict[str, RequestProgress] = OrderedDict()
        self._latest: deque[tuple[str | float | None, ...]] = deque(maxlen=FINISHED)
        self._backends: dict[str, bool] = {}
        self._unseen = 0
        self._total = 0

    def began(self, request: AdmittedRequest) -> None:
        """A request has been admitted."""
        if len(self._running) >= REQUESTS:  # the oldest may never end; the newest are what one looks at
            self._running.popitem(last=False)
            self._unseen += 1
        self._running[request.id] = RequestProgress(request)

    def sampled(self, id: str, index: int, state: str, answer: str | None, tokens: int | None, backend: str) -> None:
        """A sample has begun or ended."""
        if (running := self._running.get(id)) is not None:
            running.sampled(index, state, answer, tokens, backend)

    def voted(self, id: str, votes: Mapping[str, float], leader: str | None) -> None:
        """The votes have changed."""
        if (running := self._running.get(id)) is not None:
            running.voted(votes, leader)

    def finished(self, record: RequestRecord) -> None:
        """A request has ended; its samples are kept for a while."""
        self._total += 1
        running = self._running.pop(record.id, None)
        if running is None:
            self._unseen = max(0, self._unseen - 1)  # one of those that were dropped, or refused before it began
        elif running.samples:
            self._ended[record.id] = running
            if len(self._ended) > KEPT:
                self._ended.popitem(last=False)
        self._latest.appendleft(_ENDING(record))

    def forgotten(self, id: str) -> None:
        """Its samples and votes go."""
        self._ended.pop(id, None)

    def backend(self, url: str, healthy: bool) -> None:
        """A backend's health has changed."""
        self._backends[url] = healthy

    def story(self, id: str) -> JsonDict | None:
        """Samples and votes of a request, None where they have been forgotten."""
        followed = self._running.get(id) or self._ended.get(id)
        return None if followed is None else followed.json()

    def json(self, most: int = 40) -> JsonDict:
        """The present as JSON values, the newest requests first."""
        newest = itertools.islice(reversed(self._running.values()), most)
        return {
            "now": time.time(),
            "running": [running.json() for running in newest],
            "count": len(self._running) + self._unseen,
            "calls": sum(running.counts.get("started", 0) for running in self._running.values()),
            "finished": [
                {
                    name: short(value) if isinstance(value, str) else value
                    for name, value in zip(_KEPT, row, strict=True)
                }
                for row in self._latest
            ],
            "total": self._total,
            "backends": [{"url": url, "healthy": healthy} for url, healthy in self._backends.items()],
        }
