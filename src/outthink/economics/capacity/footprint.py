"""How much of a server each request takes: memory over iterations, iterations, places, tokens.

Knows the growth rule: a request holds min(k c, s) tokens after its k-th chunk of c and s + j after its j-th token, a
group its shared prompt once (Nie, Si, Zhou, arXiv 2605.04595), and which calls of a group are cut when it has what it
waits for. Does not know seconds, memory, or how many requests there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from outthink.economics.workload import LAUNCHED, Numbers, Workload

if TYPE_CHECKING:
    from typing import Self

_UNBOUNDED = 1 << 40


@dataclass(frozen=True, slots=True, eq=False)
class Footprint:
    """What each group takes when nothing else runs, and how often it stands for a request.

    Args:
        held: token-iterations of the cache in layers that keep everything, g(s, o).
        held_windowed: the same in layers that keep a window; 0 without such layers.
        reserved: token-iterations if each call had prompt and output reserved for its whole life.
        lifetime: iterations from the first to the last.
        places: iterations summed over the calls inside, those that wait for the shared prompt included.
        read, written: tokens of prompts computed, and of outputs, those of cancelled calls included.
        wanted: tokens of the outputs that are used.
        judged: tokens that a verifier reads.
        contexts: sum over all written tokens of the context that each of them attends to.
        largest: prompt and output of the group's longest call.
        weight: how often the group stands for a request.
    """

    held: Numbers
    held_windowed: Numbers
    reserved: Numbers
    lifetime: Numbers
    places: Numbers
    read: Numbers
    written: Numbers
    wanted: Numbers
    judged: Numbers
    contexts: Numbers
    largest: Numbers
    weight: Numbers

    def mean(self, values: Numbers) -> float:
        """The mean over requests."""
        return float(values @ self.weight / self.weight.sum())

    @classmethod
    def of(cls, workload: Workload, chunk: int, window: int = 0) -> Self:
        """Of each group of a workload.

        Args:
            chunk: tokens of a prompt read in one iteration.
            window: tokens that a windowed layer keeps, 0 without such layers.
        """
        calls = _Calls(workload, chunk)
        stage, groups = workload.stage, len(workload)
        group = workload.group

        def total(values: Numbers) -> Numbers:
            return np.bincount(group[stage], values, groups).astype(np.float64)

        first = workload.first_stages
        shared = np.zeros(groups)
        np.maximum.at(shared, group[stage], workload.shared)
        ends = np.bincount(group, calls.stop, groups).astype(np.float64)
        reading = -(-shared // chunk)
        held = []
        for kept in (_UNBOUNDED, window) if window else (_UNBOUNDED,):
            once = _ramp(np.zeros(groups), shared, chunk, kept) + np.minimum(shared, kept) * (ends - reading)
            held.append(total(calls.own(kept)) + np.where(shared > 0, once, 0.0))
        full = (workload.prompt + workload.output) * (calls.reading + workload.output)
        return cls(
            held=held[0],
            held_windowed=held[1] if window else np.zeros(groups),
            reserved=total(np.where(calls.begun, full, 0.0).astype(np.float64)),
            lifetime=ends,
            places=total(np.where(calls.begun, calls.end - calls.start, 0.0)),
            read=total(np.where(calls.begun, calls.read, 0.0)),
            written=total(calls.written),
            wanted=total(np.where(calls.taken, calls.written, 0.0)),
            judged=total(np.where(calls.begun, workload.verifier, 0).astype(np.float64)),
            contexts=total(workload.prompt * calls.written + calls.written * (calls.written + 1) / 2),
            largest=np.maximum.reduceat((workload.prompt + workload.output).astype(np.float64), workload.starts[first]),
            weight=workload.weight,
        )


class _Calls:
    """When each call of a group begins and ends, in iterations from the begin of its stage."""

    def __init__(self, workload: Workload, chunk: int) -> None:
        self.workload, self.chunk = workload, chunk
        prompt, output = workload.prompt.astype(np.float64), workload.output.astype(np.float64)
        position = np.arange(prompt.size) - workload.starts[workload.stage]
        opening = (position == 0) & (workload.after[workload.stage] < 0)  # the call that reads what all share
        known = np.where(opening | (workload.shared == 0), 0, np.maximum(workload.shared, workload.cached))
        self.read = prompt - known
        self.reading = np.maximum(1.0, -(-self.read // chunk))
        together = (position < workload.ahead[workload.stage]) & (workload.shared > 0) & ~opening
        waits = together & (workload.after[workload.stage] < 0)
        # Siblings wait for the shared prompt and then read what is their own; where that is nothing, they write
        # with the first one.
        shared_reading = -(-prompt[workload.starts[workload.stage]] // chunk)
        own = np.where(self.read > 0, -(-self.read // chunk), 0.0)
        self.reading = np.where(waits, shared_reading + own, self.reading)
        self.known = known
        length = self.reading + output
        self.start = self._starts(length)
        self.stop = self._stops(self.start + length)
        stop = self.stop[workload.stage]
        self.begun = self.start < stop
        self.end = np.minimum(self.start + length, stop)
        self.written = np.clip(self.end - self.start - self.reading, 0.0, output)
        if_launched = position < workload.need[workload.stage]
        finished = self.start + length <= stop
        self.taken = np.where(workload.rule[workload.stage] == LAUNCHED, if_launched, finished)

    def _starts(self, length: Numbers) -> Numbers:
        """When each call is launched: the first `ahead` at once, each further one when one before it ends."""
        workload = self.workload
        start = np.zeros(length.size)
        for ahead in np.unique(workload.ahead[workload.sizes > workload.ahead]):
            stages = np.flatnonzero((workload.ahead == ahead) & (workload.sizes > ahead))
            first, sizes = workload.starts[stages], workload.sizes[stages]
            free = length[first[:, None] + np.arange(ahead)]
            for position in range(int(ahead), int(sizes.max())):
                some = np.flatnonzero(sizes > position)
                place = free[some].argmin(axis=1)
                call = first[some] + position
                start[call] = free[some, place]
                free[some, place] += length[call]
        return start

    def _stops(self, end: Numbers) -> Numbers:
        """When each stage has what it needs."""
        workload = self.workload
        starts = workload.starts
        position = np.arange(end.size) - starts[workload.stage]
        counted = np.where(position < workload.need[workload.stage], end, -np.inf)
        launched = np.maximum.reduceat(counted, starts)
        if (workload.rule == LAUNCHED).all():
            return launched
        ordered = end[np.lexsort((end, workload.stage))]
        return np.where(workload.rule == LAUNCHED, launched, ordered[starts + workload.need - 1])

    def own(self, window: int) -> Numbers:
        """Token-iterations that each call holds beside what its group shares."""
        shared = self.workload.shared.astype(np.float64)
        prompt = self.workload.prompt.astype(np.float64)
        ramp = _ramp(np.maximum(shared, self.known), self.read, self.chunk, window) - np.minimum(shared, window) * (
            -(-self.read // self.chunk)
        )
        # The call that reads the shared prompt holds of it what is its own.
        ramp = np.where(self.known < shared, _ramp(shared, prompt - shared, self.chunk, window), ramp)
        written = _sum_to(prompt + self.written, window) - _sum_to(prompt, window)
        written -= self.written * np.minimum(shared, window)
        return np.where(self.begun, np.maximum(ramp, 0.0) + written, 0.0)


def _sum_to(last: Numbers, window: int) -> Numbers:
    """Sum over j = 1 ... last of min(j, window)."""
    inside = np.minimum(last, window)
    return np.asarray(inside * (inside + 1) / 2 + (last - inside) * window)


def _ramp(before: Numbers, tokens: Numbers, chunk: int, window: int) -> Numbers:
    """Sum over the iterations that read `tokens` behind `before` of what is then held, at most the window."""
    steps = -(-tokens // chunk)
    whole = np.maximum(steps - 1, 0)
    inside = np.clip((window - before) // chunk, 0, whole)  # chunks that end inside the window
    held = chunk * inside * (inside + 1) / 2 + before * inside + window * (whole - inside)
    return np.asarray(np.where(tokens > 0, held + np.minimum(before + tokens, window), 0.0))
