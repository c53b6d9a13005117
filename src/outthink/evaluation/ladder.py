"""At which sizes strategies are replayed.

Knows: the ladder, and what a file of samples allows. Does not know how a strategy is replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from outthink.core.errors import BadInput
from outthink.engines.traces import Traces
from outthink.strategies import Spec

LADDER = (1, 2, 4, 8, 16, 32)
BASELINE = "self-consistency"


def rungs_of(traces: Traces, specs: Sequence[Spec], say: Callable[[str], None]) -> list[Spec]:
    """Every spec at its sizes; self-consistency is always there to compare with."""
    depth = traces.depth
    baseline = Spec.parse(BASELINE)
    if all(spec.canonical != BASELINE for spec in specs):
        specs = [*specs, baseline]
    if depth < LADDER[-1]:
        say(f"{traces.path.name}: {depth} samples a problem, so the ladder ends there")
    ladder: list[Spec] = []
    for spec in specs:
        check(spec, traces)
        if spec.strategy.name == "greedy":
            continue  # always a row of its own
        if not spec.strategy.sized:
            ladder.append(spec)
        elif "n" not in spec.parameters:
            ladder += [spec.sized(n) for n in LADDER if n <= depth]
        elif spec.n > depth:
            raise BadInput(
                f"strategy {spec}",
                spec.n,
                f"is more than the {depth} samples recorded in {traces.path}",
                "ask for fewer",
            )
        else:
            ladder.append(spec)
    named = {spec.n for spec in ladder if spec.canonical == BASELINE}
    ladder += [baseline.sized(n) for n in LADDER if n <= depth and n not in named]
    return ladder


def check(spec: Spec, traces: Traces) -> None:
    """BadInput for a strategy that recorded samples cannot serve, or whose scores they lack."""
    if spec.strategy.extends:
        raise BadInput(
            "strategy", str(spec), "continues unfinished texts, which recorded samples cannot", "run it with --live"
        )
    if spec.strategy.rewrites:
        raise BadInput(
            "strategy", str(spec), "changes the question, which recorded samples did not answer", "run it with --live"
        )
    if spec.strategy.needs_verifier and traces.scoring is None:
        raise BadInput(
            "strategy",
            str(spec),
            f"needs scores, and {traces.path} carries none",
            "give --verifier NAME|PATH|URL, or score it first: outthink verify",
        )
