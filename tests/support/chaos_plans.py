"""Random requests over random engines, drawn by hypothesis. What must hold for them is in `chaos`."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from outthink import Budget

SPECS = (
    "single",
    "greedy",
    "self-consistency:n={n}",
    "adaptive-consistency:n={n}",
    "esc:n={n},window=3",
    "short-m-of-k:n={n},m=2",
    "best-of-n:n={n}",
    "borda:n={n}",
    "confidence-vote:n={n}",
    "deepconf:n={n},window=32",
    "deepconf-online:n={n},warmup=2,keep=30,window=32",
    "self-consistency:n={n},ties=random,style=no-thinking",
)


@dataclass(frozen=True)
class Plan:
    """Everything that a run depends on. Steps are tuples: (kind, arguments...)."""

    seed: int
    lengths: tuple[int, ...]
    answers: tuple[str | None, ...]
    fault_rate: float
    fatal_rate: float
    slow_rate: float
    told: bool
    prompt_tokens: int
    concurrency: int
    shared: bool
    cap: int
    min_tokens: int
    budget: Budget
    priced: bool
    metered: bool
    interrupt: float | None
    steps: tuple[Any, ...]


# Hypothesis draws what a failure should be shrunk by: budgets and the tree of steps. Details come from
# one number each, which keeps a draw at a few milliseconds.

NUMBER = st.integers(0, 2**32)
KINDS = st.sampled_from([*("sample", "strategy", "within", "together") * 3, "raise"])
LIMITS = {
    "tokens": st.none() | st.integers(60, 6000),
    "seconds": st.none() | st.floats(0.5, 60),
    "usd": st.none() | st.floats(1e-4, 0.02),
    "joules": st.none() | st.floats(10, 8000),
}
LENGTH, RARELY, INTERRUPT = st.integers(1, 3), st.integers(0, 19), st.none() | st.floats(0.1, 30)


def _budget(draw: st.DrawFn) -> Budget:
    """Any subset of the four currencies."""
    return Budget(**{name: draw(limit) for name, limit in LIMITS.items()})


def _steps(draw: st.DrawFn, depth: int = 0) -> tuple[Any, ...]:
    steps: list[tuple[Any, ...]] = []
    for _ in range(draw(LENGTH)):
        kind = draw(KINDS)
        if kind == "within" and depth < 2:
            steps.append((kind, _budget(draw), _steps(draw, depth + 1)))
        elif kind == "together" and depth < 2:
            steps.append((kind, _steps(draw, depth + 1), _steps(draw, depth + 1)))
        elif kind == "raise":
            steps.append((kind,))
        else:
            detail = random.Random(draw(NUMBER))
            n, ahead = detail.randint(1, 8), detail.randint(1, 8)
            if kind == "strategy":
                steps.append((kind, detail.choice(SPECS), n))
                continue
            order = detail.choice(["launch", "finished"])
            leave, stop_at = detail.choice([None, None, 1, 2, 3]), detail.choice([None, None, 16, 40, 200])
            steps.append(
                ("sample", n, ahead, order, leave, stop_at, detail.choice([None, None, "So far: ", "First, "]))
            )
    return tuple(steps)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Random plans; budgets only in currencies that can be accounted for, most of the time."""
    detail = random.Random(draw(NUMBER))
    budget, refusable = _budget(draw), draw(RARELY) == 19
    return Plan(
        seed=detail.randrange(2**16),
        lengths=tuple(detail.randint(0, 300) for _ in range(detail.randint(1, 4))),
        answers=tuple(detail.choice(["1", "2", "3", None]) for _ in range(detail.randint(1, 4))),
        fault_rate=detail.choice([0.0, 0.0, 0.2, 0.6, 1.0]),
        fatal_rate=detail.choice([0.0, 0.5]),
        slow_rate=detail.choice([0.0, 0.3]),
        told=detail.random() < 0.7,
        prompt_tokens=detail.randint(1, 60),
        concurrency=detail.randint(1, 6),
        shared=detail.random() < 0.3,
        cap=detail.choice([40, 100, 512, 512]),
        min_tokens=detail.choice([1, 16, 64]),
        budget=budget,
        priced=detail.random() < 0.5 or (budget.usd is not None and not refusable),
        metered=detail.random() < 0.5 or (budget.joules is not None and not refusable),
        interrupt=draw(INTERRUPT),
        steps=_steps(draw),
    )
