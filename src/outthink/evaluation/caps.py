"""Accuracy of a majority by number of samples and cap, from recorded samples.

Knows: that a sample longer than the cap has not stated its answer yet. Does not know time: the latency
planner (`controller.latency`) takes what this predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from outthink.core.errors import BadInput
from outthink.engines.traces import Traces
from outthink.evaluation.gains import ORDERS, dealt
from outthink.strategies.votes import Votes


def accuracy_by_cap(
    traces: Traces, branches: Sequence[int], caps: Sequence[int], *, orders: int = ORDERS
) -> Callable[[int, int], float]:
    """A lookup (branches, cap) -> mean accuracy over problems and orders.

    Asked for more branches or a larger cap than measured it takes the largest measured, for fewer than
    the smallest it gives 0. Raises BadInput for more branches than are recorded.
    """
    if not branches or not caps or max(branches) > traces.depth:
        raise BadInput(
            "branches", list(branches), f"are none, or more than the {traces.depth} recorded", "ask for fewer"
        )
    found: dict[tuple[int, int], float] = dict.fromkeys(((b, c) for b in branches for c in caps), 0.0)
    for recorded in traces.problems.values():
        for order in range(orders):
            samples = dealt(recorded, order)[: max(branches)]
            for cap in caps:
                votes = Votes()
                for n, sample in enumerate(samples, start=1):
                    cut = (sample.tokens or 0) > cap
                    votes.add(replace(sample, answer=None) if cut else sample)
                    if (n, cap) in found:
                        found[n, cap] += votes.winner().answer in recorded.right
    count = len(traces.problems) * orders
    table = {key: total / count for key, total in found.items()}

    def accuracy(wanted: int, cap: int) -> float:
        branch = max((b for b in branches if b <= wanted), default=None)
        limit = max((c for c in caps if c <= cap), default=None)
        return 0.0 if branch is None or limit is None else table[branch, limit]

    return accuracy
