"""Measures on recorded samples what further samples of a vote gain, by the state of the vote, and accuracy by cap.

Knows: recorded samples in many orders, shrinkage of rare states towards what is assumed without recorded samples, and
that a sample longer than a cap has not stated its answer yet. Does not know budgets, batches or time:
`controller.allocation` applies what is measured, `economics.latency` takes what `accuracy_by_cap` predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from outthink.controller.allocation import GainTable, Key, State, Voted, assumed_gain, keys
from outthink.core.errors import BadInput
from outthink.engines.traces import Traces
from outthink.evaluation.replay import Array
from outthink.strategies.votes import Votes

_HORIZONS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
"""Samples ahead: one more often cannot turn a vote where three can, so the best mean rate counts."""
ORDERS = 4
_SHRINKAGE = 200
"""Problems' worth of evidence that the coarser state, and the assumption behind it, count for."""


@dataclass(frozen=True, slots=True)
class Courses:
    """Votes as they went, over (problem, order, samples drawn from 0)."""

    states: tuple[tuple[tuple[State, ...], ...], ...]
    right: Array


def courses(traces: Traces, problems: Sequence[str], *, orders: int = ORDERS, at_most: int = 32) -> Courses:
    """Count the votes of every problem in several orders."""
    depth = min(at_most, traces.depth)
    right = np.zeros((len(problems), orders, depth + 1))
    states = []
    for row, name in enumerate(problems):
        recorded = traces.problems[name]
        every = []
        for order in range(orders):
            vote, course = Voted(at_most=depth), [State(0, 0, 0, None)]
            for drawn, sample in enumerate(recorded.dealt(order)[:depth], start=1):
                vote.add(sample)
                course.append(vote.state)
                right[row, order, drawn] = vote.votes.winner().answer in recorded.right
            every.append(tuple(course))
        states.append(tuple(every))
    return Courses(tuple(states), right)


def measure_gains(traces: Sequence[Traces], *, orders: int = ORDERS, at_most: int = 32) -> GainTable:
    """The table of files of one model.

    Args:
        orders: in how many orders each problem's samples are counted.

    Raises BadInput for no samples, or files without a single right answer.
    """
    for file in traces:
        file.need_answers()
        file.need_grades()
    by_file = [courses(file, list(file.problems), orders=orders, at_most=at_most) for file in traces]
    names = tuple(file.name for file in traces)
    depth = min((course.right.shape[2] for course in by_file), default=0)
    if depth < 2:
        raise BadInput("traces", names, "hold no sampled completions", "record some with --samples 8 or more")
    joined = Courses(
        tuple(states for course in by_file for states in course.states),
        np.concatenate([course.right[:, :, :depth] for course in by_file]),
    )
    if not joined.right.any():
        raise BadInput("traces", names, "hold no correct answer", "nothing can be learned from them; record others")
    return table_of(joined, range(len(joined.states)))


def table_of(votes: Courses, rows: Sequence[int], *, confidence: bool = True) -> GainTable:
    """The table of some of the problems.

    Args:
        confidence: tell states apart by the mean log-probability behind the leader, too.
    """
    right = votes.right[list(rows)]
    orders, depth = right.shape[1], right.shape[2] - 1
    edges = _edges(votes, rows) if confidence else ()
    chains = [[[keys(state, edges) for state in course] for course in votes.states[row]] for row in rows]
    assumed = np.array([[[assumed_gain(state) for state in course] for course in votes.states[row]] for row in rows])
    best: dict[Key, float] = {}
    steepest = 0.0
    for ahead in _HORIZONS:
        if ahead > depth:
            break
        rates = (right[:, :, ahead:] - right[:, :, :-ahead]) / ahead
        guess = assumed[:, :, 1 : depth + 1 - ahead]  # without the first sample, which is another matter
        slope = max(0.0, float((rates[:, :, 1:] * guess).sum() / (guess**2).sum())) if guess.size else 0.0
        steepest = max(steepest, slope)
        for key, rate in _shrunk(chains, rates, slope * assumed, _SHRINKAGE * orders):
            best[key] = max(best.get(key, 0.0), rate)
    return GainTable(best, edges, steepest, depth)


def _edges(votes: Courses, rows: Sequence[int]) -> tuple[float, ...]:
    """Quartiles of the certainty over all states of these problems; none where it is not recorded."""
    known = [
        state.certainty
        for row in rows
        for course in votes.states[row]
        for state in course
        if state.certainty is not None
    ]
    return tuple(float(edge) for edge in np.quantile(known, [0.25, 0.5, 0.75])) if known else ()


def _shrunk(
    chains: Sequence[Sequence[Sequence[tuple[Key, ...]]]], rates: Array, guesses: Array, weight: float
) -> Iterator[tuple[Key, float]]:
    """Mean rate of every key, drawn towards the coarser key's, and that one's towards the guess."""
    sums: dict[Key, list[float]] = {}
    coarser: dict[Key, Key] = {}
    for problem, values, guessed in zip(chains, rates.tolist(), guesses.tolist(), strict=True):
        for course, course_values, course_guesses in zip(problem, values, guessed, strict=True):
            # The last states have no rate: nothing is recorded so far ahead of them, hence not `strict`.
            for chain, value, guess in zip(course, course_values, course_guesses, strict=False):
                for place, key in enumerate(chain):
                    if key not in sums:
                        sums[key] = [0.0, 0.0, 0.0]
                        coarser[key] = chain[place - 1] if place else ()
                    total = sums[key]
                    total[0] += value
                    total[1] += guess
                    total[2] += 1.0
    means: dict[Key, float] = {}
    for key in sorted(sums, key=len):  # coarser keys are shorter: their means have to be there first
        rate, guess, count = sums[key]
        towards = means[coarser[key]] if coarser[key] else guess / count
        means[key] = (rate + weight * towards) / (count + weight)
        yield key, means[key]


def accuracy_by_cap(
    traces: Traces, branches: Sequence[int], caps: Sequence[int], *, orders: int = ORDERS
) -> Callable[[int, int], float]:
    """A lookup (branches, cap) -> mean accuracy of a majority over problems and orders.

    Asked for more branches or a larger cap than measured it takes the largest measured, for fewer than
    the smallest it gives 0. Raises BadInput for more branches than are recorded, and for unknown lengths.
    """
    if not branches or not caps or max(branches) > traces.depth:
        raise BadInput(
            "branches", list(branches), f"are none, or more than the {traces.depth} recorded", "ask for fewer"
        )
    traces.need_counts()  # a sample of unknown length may have been cut by any cap
    right: dict[tuple[int, int], float] = dict.fromkeys(((b, c) for b in branches for c in caps), 0.0)
    for recorded in traces.problems.values():
        for order in range(orders):
            samples = recorded.dealt(order)[: max(branches)]
            for cap in set(caps):  # one that is given twice counts once
                votes = Votes()
                for n, sample in enumerate(samples, start=1):
                    cut = (sample.tokens or 0) > cap
                    votes.add(replace(sample, answer=None) if cut else sample)
                    if (n, cap) in right:
                        right[n, cap] += votes.winner().answer in recorded.right
    count = len(traces.problems) * orders
    table = {key: total / count for key, total in right.items()}

    def accuracy(wanted: int, cap: int) -> float:
        branch = max((b for b in branches if b <= wanted), default=None)
        limit = max((c for c in caps if c <= cap), default=None)
        return 0.0 if branch is None or limit is None else table[branch, limit]

    return accuracy
