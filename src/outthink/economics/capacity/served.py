"""The workload of requests that were served, from what a ledger keeps of each: sums, or the calls of its receipt.

Knows: which calls of a receipt a server carried out and which of them were waited for, and that rows tell neither a
call's launch nor how many were in flight: the fewest that fit the calls' own seconds into the request's are taken.
Does not know where rows are kept, or what a server is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import heapify, heapreplace
from operator import attrgetter
from typing import NamedTuple, Protocol, Self, TypedDict

import numpy as np

from outthink.economics.workload import Workload

_LONGEST = 10_000_000
"""Tokens of a call beyond which a count is no count."""
_SPARE = 1.05
"""A request takes a little longer than its calls."""
_HOUR = 3600.0
_PEAK = 1.25
"""Times the mean rate from which the busiest hour is told."""
_CALLS = frozenset({"policy", "probe"})
_UNUSED = frozenset({"cancelled", "failed"})


class ServedEntry(TypedDict):
    """What is read of an entry of a receipt; tokens and seconds are None where nobody told them."""

    role: str
    status: str
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cancelled_tokens: int | None
    seen_tokens: int
    seconds: float | None


class ServedRow(Protocol):
    """What is read of a request: `RequestRecord` of the ledger, or anything with its fields."""

    @property
    def started(self) -> float:
        """Seconds since the epoch."""

    @property
    def seconds(self) -> float:
        """That it took."""

    @property
    def backend_model(self) -> str:
        """The model that was called."""

    @property
    def prompt_tokens(self) -> int | None:
        """Over all calls; so are the next two. None where a server did not tell."""

    @property
    def completion_tokens(self) -> int | None:
        """Of calls that ran to their end."""

    @property
    def cancelled_tokens(self) -> int | None:
        """Written by calls that did not."""

    @property
    def samples(self) -> int:
        """Calls, where there is no receipt."""

    @property
    def receipt(self) -> Mapping[str, Sequence[ServedEntry]] | None:
        """The receipt with its `entries`, None where the sums are all there is."""


class _ServedCall(NamedTuple):
    prompt: int
    output: int
    waited: bool
    seconds: float
    model: str


class _ServedGroup(NamedTuple):
    began: float
    calls: list[_ServedCall]
    need: int
    ahead: int
    judged: int


class ServedLoad:
    """What was asked for in a span of time: requests in order of arrival, those of which too little is known left out.

    Args:
        since, until: seconds since the epoch.
    """

    def __init__(self, since: float, until: float) -> None:
        self.since, self.until = since, until
        self.unknown = 0
        """Requests left out because a server did not tell their tokens, or told nonsense."""
        self.idle = 0
        """Requests left out because no token was written for them (refused, cached, embeddings)."""
        self.bounded = 0
        """Requests with cancelled calls whose tokens are not known: what was seen of them counts."""
        self.divided = 0
        """Requests whose calls are told by their sums alone: each has its even part."""
        self.models: Counter[str] = Counter()
        """Calls by model."""
        self._groups: list[_ServedGroup] = []

    def add(self, rows: Iterable[ServedRow]) -> Self:
        """Take note of requests, in any order."""
        for row in rows:
            entries = _entries(row)
            bounded = row.cancelled_tokens is None and bool(entries)
            counts = (row.prompt_tokens, row.completion_tokens, 0 if bounded else row.cancelled_tokens)
            if not all(count is not None and 0 <= count <= _LONGEST for count in counts):
                self.unknown += 1
                continue
            calls = [call for call in _calls_of(row) if 0 < call.output <= _LONGEST]
            if not calls:
                self.idle += 1
                continue
            self.bounded += bounded
            self.divided += row.samples > 1 and not entries
            self.models.update(call.model for call in calls)
            calls.sort(key=lambda call: not call.waited)  # a stage waits for its first calls
            need = sum(call.waited for call in calls) or len(calls)
            judged = -(-_judged(row) // len(calls))
            self._groups.append(_ServedGroup(row.started, calls, need, _ahead(calls, row.seconds), judged))
        return self

    def begin_at_first(self, least: float = 1.0) -> None:
        """Let the span begin with the first request, as nobody could have asked before it; it is `least` seconds."""
        first = min((group.began for group in self._groups), default=self.since)
        self.since = max(self.since, min(first, self.until - least))

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def seconds(self) -> float:
        """Of the span."""
        return self.until - self.since

    @property
    def rate(self) -> float:
        """Requests a second, those left out not counted."""
        return len(self) / self.seconds

    def workload(self) -> Workload:
        """The requests, which arrive at seconds from the begin of the span."""
        self._groups.sort(key=attrgetter("began"))
        return _workload(self._groups, self.since)

    def notes(self) -> Iterator[str]:
        """What a reader has to know of the numbers."""
        if self.unknown:
            yield f"requests without known tokens are left out, of the rate as well: {self.unknown:,}"
        if self.idle:
            yield f"requests for which nothing was written are left out: {self.idle:,}"
        if self.bounded:
            yield f"requests with cancelled calls of which only what was seen is known and counted: {self.bounded:,}"
        if self.divided:
            yield f"requests whose calls are told by their sums alone, and taken as equally long: {self.divided:,}"
        if len(self.models) > 1:
            total, most = self.models.total(), self.models.most_common(3)
            shares = ", ".join(f"{model} {number / total:.0%}" for model, number in most)
            yield f"calls of {len(self.models)} models are planned as if one server had answered them: {shares}"
        if self and self.seconds > _HOUR:
            hours = Counter((group.began - self.since) // _HOUR for group in self._groups)
            busiest = max(hours.values()) / _HOUR
            if busiest > _PEAK * self.rate:
                yield f"the busiest hour had {busiest:.3g} requests/s, {busiest / self.rate:.1f} times the mean"


def _workload(groups: Sequence[_ServedGroup], since: float) -> Workload:
    sizes = [len(group.calls) for group in groups]
    calls = [call for group in groups for call in group.calls]
    stage = np.repeat(np.arange(len(groups)), sizes)
    workload = Workload.of_calls(
        [call.prompt for call in calls],
        [call.output for call in calls],
        [group.began - since for group in groups],
        stage=stage,
        ahead=[group.ahead for group in groups],
        need=[group.need for group in groups],
        verifier=np.repeat([group.judged for group in groups], sizes),
    )
    # Prompts of a request may grow from call to call: what the shortest has is common to all.
    common = np.minimum.reduceat(workload.prompt, workload.starts)[stage]
    return replace(workload, shared=np.where(workload.sizes[stage] > 1, common, 0))


def _entries(row: ServedRow) -> Sequence[ServedEntry]:
    return () if row.receipt is None else row.receipt.get("entries") or ()


def _calls_of(row: ServedRow) -> list[_ServedCall]:
    """What a server carried out for a request whose sums are known."""
    drawn = [entry for entry in _entries(row) if entry["role"] in _CALLS and entry["status"] != "cached"]
    if not drawn:
        if _entries(row):
            return []
        parts = max(1, row.samples)
        prompt, completion, cancelled = (
            -(-(tokens or 0) // parts) for tokens in (row.prompt_tokens, row.completion_tokens, row.cancelled_tokens)
        )
        even = _ServedCall(max(1, prompt), completion + cancelled, True, row.seconds, row.backend_model)
        return [even] * parts
    # A call that joins a running group reads nothing of the prompt, which is there all the same.
    longest = max(1, *(entry["prompt_tokens"] or 0 for entry in drawn))
    return [
        _ServedCall(
            entry["prompt_tokens"] or longest,
            _written(entry),
            entry["status"] not in _UNUSED,
            entry["seconds"] or 0.0,
            entry["model"],
        )
        for entry in drawn
    ]


def _written(entry: ServedEntry) -> int:
    """Tokens that a call wrote: of one that was cancelled at least those that were seen."""
    completed, cancelled = entry["completion_tokens"], entry["cancelled_tokens"]
    return entry["seen_tokens"] if completed is None or cancelled is None else completed + cancelled


def _judged(row: ServedRow) -> int:
    """Tokens that verifiers read and wrote."""
    return sum(
        (entry["prompt_tokens"] or 0) + _written(entry) for entry in _entries(row) if entry["role"] == "verifier"
    )


def _ahead(calls: Sequence[_ServedCall], seconds: float) -> int:
    """The fewest calls in flight at once with which all of them end within the request's time."""
    low, high = 1, len(calls)
    while low < high:
        middle = (low + high) // 2
        if _makespan(calls, middle) <= _SPARE * seconds:
            high = middle
        else:
            low = middle + 1
    return low


def _makespan(calls: Sequence[_ServedCall], ahead: int) -> float:
    """When the last call has ended if so many are in flight."""
    ends = [call.seconds for call in calls[:ahead]]
    heapify(ends)
    for call in calls[ahead:]:
        heapreplace(ends, ends[0] + call.seconds)
    return max(ends)
