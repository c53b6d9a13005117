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
JUDGING = ("weighted-vote:n={n}", "best-of-n:n={n}")


@dataclass(frozen=True)
class JudgePlan:
    """A verifier that takes at most `most` tokens for each of a text and tells them, or not; it may fail."""

    most: float
    model: str
    told: bool
    weightless: bool
    generative: bool
    fault_rate: float
    odd_rate: float


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
    judge: JudgePlan | None = None


# Hypothesis draws what a failure should be shrunk by: budgets and the tree of steps. Details come from
# one number each, which keeps a draw at a few milliseconds.

NUMBER = st.integers(0, 2**32)
KINDS = st.sampled_from([*("sample", "strategy", "within", "together") * 3, "raise"])
JUDGED_KINDS = st.sampled_from([*("sample",) * 6, "strategy", "within", "within", "together", "together"])
LIMITS = {
    "tokens": st.none() | st.integers(60, 6000),
    "seconds": st.none() | st.floats(0.5, 60),
    "usd": st.none() | st.floats(1e-4, 0.02),
    "joules": st.none() | st.floats(10, 8000),
}
JUDGED_LIMITS = {
    "tokens": st.none() | st.integers(300, 12_000),
    "seconds": st.none() | st.floats(2, 120),
    "usd": st.none() | st.floats(5e-4, 0.04),
    "joules": st.none() | st.floats(100, 16_000),
}
"""Of what has to pay for a verifier too; runs that end before anything is judged would show nothing."""
LENGTH, RARELY, INTERRUPT = st.integers(1, 3), st.integers(0, 19), st.none() | st.floats(0.1, 30)
JUDGED_INTERRUPT = st.none() | st.floats(1.5, 60)


def _budget(draw: st.DrawFn, judged: bool) -> Budget:
    """Any subset of the four currencies."""
    limits = JUDGED_LIMITS if judged else LIMITS
    return Budget(**{name: draw(limit) for name, limit in limits.items()})


def _steps(draw: st.DrawFn, judged: bool, depth: int = 0) -> tuple[Any, ...]:
    steps: list[tuple[Any, ...]] = []
    for _ in range(draw(LENGTH)):
        kind = draw(JUDGED_KINDS if judged else KINDS)
        if kind == "within" and depth < 2:
            steps.append((kind, _budget(draw, judged), _steps(draw, judged, depth + 1)))
        elif kind == "together" and depth < 2:
            steps.append((kind, _steps(draw, judged, depth + 1), _steps(draw, judged, depth + 1)))
        elif kind == "raise":
            steps.append((kind,))
        else:
            detail = random.Random(draw(NUMBER))
            n, ahead = detail.randint(1, 8), detail.randint(1, 8)
            if kind == "strategy":
                steps.append((kind, detail.choice((*SPECS, *JUDGING) if judged else SPECS), n))
                continue
            order = detail.choice(["launch", "finished"])
            leave, stop_at = (
                detail.choice([None, None, 1, 2, 3]),
                detail.choice([None, None, *([None] * 4 if judged else []), 16, 40, 200]),
            )
            prefix = detail.choice([None, None, "So far: ", "First, "])
            ratio = detail.choice([False, True, True, 0.0, 0.5, 1.0, 3.0]) if judged else False
            steps.append(("sample", n, ahead, order, leave, stop_at, prefix, ratio))
    return tuple(steps)


def _judge(detail: random.Random) -> JudgePlan:
    return JudgePlan(
        most=detail.choice([0.0, 0.3, 1.0, 1.0, 4.0]),
        model=detail.choice([*["scripted"] * 9, "judge"]),
        told=detail.random() < 0.7,
        weightless=detail.random() < 0.1,
        generative=detail.random() < 0.3,
        fault_rate=detail.choice([0.0, 0.0, 0.0, 0.1, 1.0]),
        odd_rate=detail.choice([0.0, 0.2]),
    )


@st.composite
def plans(draw: st.DrawFn, judged: bool = False) -> Plan:
    """Random plans; budgets only in currencies that can be accounted for, most of the time.

    Args:
        judged: with a verifier, which judges most of the samples before they are yielded.
    """
    detail = random.Random(draw(NUMBER))
    budget, refusable = _budget(draw, judged), draw(RARELY) == 19
    return Plan(
        seed=detail.randrange(2**16),
        lengths=tuple(detail.randint(0, 120 if judged else 300) for _ in range(detail.randint(1, 4))),
        answers=tuple(detail.choice(["1", "2", "3", None]) for _ in range(detail.randint(1, 4))),
        fault_rate=detail.choice([0.0, 0.0, 0.2] if judged else [0.0, 0.0, 0.2, 0.6, 1.0]),
        fatal_rate=detail.choice([0.0, 0.5]),
        slow_rate=detail.choice([0.0, 0.3]),
        told=detail.random() < 0.7,
        prompt_tokens=detail.randint(1, 60),
        concurrency=detail.randint(1, 6),
        shared=detail.random() < 0.3,
        cap=detail.choice([100, 512] if judged else [40, 100, 512, 512]),
        min_tokens=detail.choice([1, 16, 64]),
        budget=budget,
        priced=detail.random() < 0.5 or (budget.usd is not None and not refusable),
        metered=detail.random() < 0.5 or (budget.joules is not None and not refusable),
        interrupt=draw(JUDGED_INTERRUPT if judged else INTERRUPT),
        steps=_steps(draw, judged),
        judge=_judge(detail) if judged else None,
    )
