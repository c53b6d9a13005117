"""The verifier of random plans: what it takes, tells and gives is a function of the plan."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence

from outthink import Request
from outthink.core.errors import EngineError
from outthink.core.sample import Candidate
from outthink.verifiers.protocol import Kind, Score, Verifier
from support.chaos_plans import JudgePlan, Plan


class ChaosVerifier(Verifier):
    """A verifier whose every judgement is a function of the plan; keeps its own account in `taken`."""

    id = "chaos"

    def __init__(self, plan: Plan, judge: JudgePlan, *, waits: bool = False) -> None:
        self.plan, self.judge, self.waits = plan, judge, waits
        self.model, self.parameters = judge.model, 0 if judge.weightless else 1000
        self.kind: Kind = "generative" if judge.generative else "outcome"
        self.taken: list[int] = []

    def bound(self, request: Request, candidate: Candidate) -> int:
        """At most so many tokens for what the sample has; none where no model judges."""
        sample = candidate.sample
        size = 100 if sample is None or sample.tokens is None else sample.tokens
        return 0 if self.judge.weightless else math.ceil(self.judge.most * (size + self.plan.prompt_tokens))

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """Scores, some of which are none, for up to the bound of each; it may fail on the way."""
        judge, draw = self.judge, random.Random(f"{self.plan.seed}:judge:{len(self.taken)}")
        for _ in range(draw.randint(0, 20) if self.waits else 0):
            await asyncio.sleep(0)
        scores = []
        for candidate in candidates:
            bound = self.bound(request, candidate)
            takes = bound if draw.random() < 0.5 else draw.randint(0, bound)
            self.taken.append(takes)
            if draw.random() < judge.fault_rate:
                raise draw.choice([EngineError("the verifier has died"), RuntimeError("out of memory")])
            written = draw.randint(0, takes) if judge.generative else 0
            steps = draw.choice([(), (math.nan,)]) if draw.random() < judge.odd_rate else (draw.random(),)
            told = judge.told or not bound  # unknown, and at most nothing, would be no bound
            scores.append(Score(steps, takes - written if told else None, written))
        return scores[1:] if draw.random() < judge.odd_rate / 4 else scores
