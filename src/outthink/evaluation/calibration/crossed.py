"""Cross-fitted rules as contenders: every problem is answered by rules that were fitted without it.

Knows: folds, and that held-out figures come from the same replay as those of every strategy. Does not
know how a rule is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from outthink.controller.policy.artefact import HeldOut, Policy, PolicyArm, Task
from outthink.controller.policy.plan import Plan, at_size
from outthink.controller.router.text import hand_features
from outthink.evaluation.auto import AutoContender, situations_of
from outthink.evaluation.calibration.fit import FittedRules, StoppingSettings, fit
from outthink.evaluation.calibration.source import Source, regime_of
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.replay import MEASURES
from outthink.evaluation.rows import LADDER, Array, intervals

_UNSEEN = HeldOut(
    problems=1,
    accuracy=0.0,
    accuracy_low=0.0,
    accuracy_high=0.0,
    spread=0.0,
    tokens=0.0,
    tokens_low=0.0,
    tokens_high=0.0,
    prompt_tokens=None,
    samples=0.0,
    seconds=None,
    flops=None,
)


def fitted(source: Source, target: Target, folds: int, seed: int, sizes: Sequence[int] = LADDER) -> FittedRules:
    """Rules for one file of samples at every size it allows: for new problems, and for each fold without it."""
    depth = source.traces.depth
    aim = int(target.value) if target.kind == "match" else LADDER[-1]
    questions = source.questions or {}
    settings = StoppingSettings(
        target=min(aim, depth),
        margin=target.margin,
        by=target.by,
        folds=folds,
        seed=seed,
        sizes=tuple(n for n in sizes if n <= depth),
        features={name: hand_features(text) for name, text in questions.items()},
    )
    return fit(source.traces, settings)


def lineup(source: Source, found: FittedRules, policy: str = "") -> list[AutoContender]:
    """One contender a rung whose rule for a problem was fitted on the other folds."""
    situations = situations_of(source)
    regime = regime_of(source)
    plans: dict[int, dict[str, Plan]] = {n: {} for n in sorted(found.rules)}
    for names, rules in found.folds:
        task = Task(
            model=source.traces.model,
            dataset=source.traces.dataset,
            answer=source.answer,
            arms=tuple(PolicyArm(n, rule, _UNSEEN) for n, rule in sorted(rules.items())),
            chosen=max(rules),
            regime=regime,
            problems=frozenset(),
            questions=frozenset(),
            other={},
        )
        for name in names:
            for n in plans:
                plans[n][name] = at_size(task, n, situations[name], policy)
    order = list(source.traces.problems)
    return [AutoContender(n, {name: mine[name] for name in order}, None, policy) for n, mine in plans.items()]


def crossed(policy: Policy, source: Source, say: Callable[[str], None]) -> list[AutoContender]:
    """The policy's recipe on its own problems: fitted anew without each fold, and replayed there.

    What the policy states of its arms stands beside it; on the same problems that is no prediction.
    """
    content: Mapping[str, Any] = policy.content
    policy.check_revision(source.traces.model, source.revision)
    found = fitted(source, Target.of(content["target"]), int(content["folds"]), int(content["seed"]))
    for note in found.notes:
        say(f"{source.traces.path.name}: {note}")
    tasks = policy.of_model(source.traces.model)
    stated = {arm.n: arm.held_out for arm in tasks[0].arms} if tasks else {}
    return [replace(auto, expected=stated.get(auto.n)) for auto in lineup(source, found, policy.id)]


def held_out(values: Array, prices: Callable[[float, float], float] | None = None) -> HeldOut:
    """Means and intervals of `values[measure, problem]`; `prices` gives dollars of prompt and generated tokens."""
    by = dict(zip(MEASURES, values, strict=True))
    low, high = intervals(np.stack([by["accuracy"], by["tokens"]]))

    def mean(name: str) -> float | None:
        value = float(by[name].mean())
        return None if np.isnan(value) else round(value, 6)

    prompt = mean("prompt_tokens")
    return HeldOut(
        problems=values.shape[1],
        accuracy=float(by["accuracy"].mean()),
        accuracy_low=float(low[0]),
        accuracy_high=float(high[0]),
        spread=float(by["accuracy"].std()),
        tokens=float(by["tokens"].mean()),
        tokens_low=float(low[1]),
        tokens_high=float(high[1]),
        prompt_tokens=prompt,
        samples=float(by["samples"].mean()),
        seconds=mean("seconds"),
        flops=mean("flops"),
        usd=None if prices is None or prompt is None else prices(prompt, float(by["tokens"].mean())),
    )
