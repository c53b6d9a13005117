"""Recorded samples replayed into the calls of strategies and policies.

Knows: files, problems and orders as `compare` takes them, and accuracy with its interval. Does not know how calls are
kept or what they mean to a server.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from outthink.engines.traces import ReplayEngine, Traces
from outthink.evaluation.calibration.contenders import pool_of
from outthink.evaluation.compare import CompareSettings, open_files, policy_rungs
from outthink.evaluation.replay import Contender, asked, options_of, sources_of
from outthink.evaluation.replayed_calls.recorder import stages_of
from outthink.evaluation.replayed_calls.rows import ReplayedRequest, ReplayedStrategy
from outthink.evaluation.rows import check_served, check_size, interval
from outthink.strategies import Spec


def replay_calls(
    paths: Sequence[Path],
    specs: Sequence[Spec],
    settings: CompareSettings,
    *,
    rungs: Collection[int] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[ReplayedStrategy]:
    """The calls of every strategy, and of every rung of the settings' policy, on every file.

    What a stage needs does not depend on speed or calls in flight. Only where a stage begins anew on the prompt of one
    that was left early, its samples are those behind the ones that were launched then, which depends on both.

    Args:
        settings: as for `compare`; processes and `by_problem` are not used.
        rungs: sizes of the policy's arms, None for all.

    Raises as `compare` does; BadInput too where tokens are unknown, Unsupported where calls are no rows.
    """
    files = open_files(paths, settings, say)
    replayed = []
    for traces in files:
        for spec in specs:
            check_served(spec, traces)
            check_size(spec, traces)
            if spec.strategy.votes != "none":
                traces.need_answers()
        arms = policy_rungs(traces, settings, say)
        autos = [auto for auto in arms if rungs is None or auto.n in rungs]
        used = (traces, *pool_of(traces, autos, files))
        for each in used:
            each.need_counts(prompts=True)
        replayed += _replay(used, [*specs, *autos], settings)
    return replayed


def _replay(
    used: Sequence[Traces], contenders: Sequence[Contender], settings: CompareSettings
) -> list[ReplayedStrategy]:
    engines = [ReplayEngine(traces, speed=settings.speed) for traces in used]
    sources, options = sources_of(engines), options_of(engines[0], settings.ahead)
    requests: list[list[ReplayedRequest]] = [[] for _ in contenders]
    for problem in used[0].problems:
        request, right = asked(engines, problem)
        for seed in range(settings.seeds):
            for engine in engines:
                engine.reseed(seed)
            for contender, found in zip(contenders, requests, strict=True):
                answer, stages = stages_of(contender, request, sources, seed=seed, options=options)
                found.append(ReplayedRequest(problem, seed, int(answer in right), stages))
    replayed = []
    for contender, found in zip(contenders, requests, strict=True):
        right_of = np.array([each.accuracy for each in found], dtype=np.float64)
        means = right_of.reshape(-1, settings.seeds).mean(axis=1)
        low, high = interval(means)
        replayed.append(ReplayedStrategy(used[0].name, contender, float(means.mean()), low, high, tuple(found)))
    return replayed
