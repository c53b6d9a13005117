"""What a calibration learns of its samples beside rules, and which samples it refuses.

Knows: the fingerprint of a file, samples that must not be mixed, what new samples are checked for drift by, and the
regime: lengths and questions of the calibration, as ranges with some air. Does not know rules, nor how a request is
compared with a regime.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from outthink.controller.policy.regime import PROBES, Regime
from outthink.controller.router.text import hand_features
from outthink.core.errors import BadInput
from outthink.engines.recorded import Recorded
from outthink.engines.traces import Traces
from outthink.evaluation.dataset import SampleSet
from outthink.evaluation.replay import Array
from outthink.evaluation.sample_file import JsonObject

_FIRST = 8
"""Samples of a problem that its agreement is measured on."""
_ANY_LENGTH = ("max_tokens",)
"""Parts of a sampling that may differ between data sets: limits of length."""


def fingerprint(traces: Traces) -> str:
    """Hash of everything in the samples that a policy is fitted on, whatever file holds them."""
    state = hashlib.sha256()
    for name in sorted(traces.problems):
        problem = traces.problems[name]
        rows = [
            (s.index, s.answer, s.tokens, s.prompt_tokens, s.mean_logprob, s.finish_reason, s.scores)
            for s in problem.sampled
        ]
        state.update(json.dumps([name, sorted(problem.right), rows]).encode())
    return "sha256:" + state.hexdigest()


def refuse_unusable(sources: Sequence[SampleSet]) -> None:
    """BadInput for samples that nothing can be learned from, or that must not be mixed."""
    for source in sources:
        _refuse_one(source)
    by_model: dict[str, list[SampleSet]] = {}
    for source in sources:
        by_model.setdefault(source.traces.model, []).append(source)
    apart = "calibrate them apart"
    for model, files in by_model.items():
        ways = {
            json.dumps(_without_limits(file.sampling), sort_keys=True) for file in files if file.sampling is not None
        }
        if len(ways) > 1:
            raise BadInput("traces", model, f"was sampled in {len(ways)} ways: {' and '.join(sorted(ways))}", apart)
        if len({file.revision for file in files if file.revision is not None}) > 1:
            raise BadInput("traces", model, "was recorded at more than one revision", apart)
        _refuse_shared(files)


def _refuse_one(source: SampleSet) -> None:
    traces = source.traces
    if len(traces.problems) < 2:
        raise BadInput("traces", str(traces.path), "holds one problem only", "record more problems")
    if traces.depth < 1:
        raise BadInput("traces", str(traces.path), "has a problem without sampled completions", "record some for each")
    traces.need_answers()
    traces.need_grades()
    traces.need_counts(prompts=True)
    if not any(sample.answer in problem.right for problem in traces.problems.values() for sample in problem.sampled):
        raise BadInput("traces", str(traces.path), "has no correct answer anywhere", "check the gold answers")
    marks: dict[str, str] = {}
    for name, mark in source.question_marks.items():
        if mark in marks:
            raise BadInput(
                "traces",
                f"{marks[mark]} and {name}",
                f"ask the same question in {traces.path}, which would stand on both sides of a split",
                "keep one of them",
            )
        marks[mark] = name


def _refuse_shared(sources: Sequence[SampleSet]) -> None:
    """The same problem in two files of one model would stand on both sides of a split."""
    seen: dict[str, Path] = {}
    for source in sources:
        for name, mark in (source.question_marks or source.problem_marks).items():
            if mark in seen:
                raise BadInput("traces", name, f"is in {seen[mark]} and in {source.traces.path}", "give it once")
            seen[mark] = source.traces.path


def _without_limits(sampling: JsonObject) -> JsonObject:
    return {key: value for key, value in sampling.items() if key not in _ANY_LENGTH}


def drift_values(source: SampleSet) -> dict[str, list[float]]:
    """What is compared with new samples, one value a problem; lengths only where all of them are known."""
    problems = source.traces.problems.values()
    agreement, lengths = [], []
    for problem in problems:
        agreement.append(_agreement([sample.answer for sample in problem.sampled]))
        lengths.append([sample.tokens for sample in problem.sampled])
    known = [[tokens for tokens in of_problem if tokens is not None] for of_problem in lengths]
    values = {"agreement": agreement}
    if known == lengths:
        values["sample_tokens"] = [float(np.mean(tokens)) for tokens in known]
    return values


def _agreement(answers: Sequence[str | None]) -> float:
    """Share of the first samples behind their most frequent answer; of more samples it would be smaller."""
    first = answers[:_FIRST]
    known = [answer for answer in first if answer is not None]
    return max(map(known.count, set(known)), default=0) / len(first)


_AIR = 1.25
"""Ranges reach this much further than what was seen."""
_KEPT = 0.99
"""Share of the calibrated questions whose distance sets the limit, before the air."""
_FEW = 10
"""Questions lie nearer to their own mean than new ones do, the more so the fewer they are."""
_NEAR = 2.0
"""A limit below twice the mean of a normal sample would tell alike questions apart."""
_LEAST_SPREAD = 0.1
_DIGITS = 6


def regime_of(source: SampleSet) -> Regime:
    """The regime of one file of samples."""
    problems = list(source.traces.problems.values())
    prompts = np.array([float(problem.sampled[0].prompt_tokens or 0) for problem in problems])
    known = bool((prompts > 0).all())
    means = np.array([mean for problem in problems for mean in _lengths(problem)])
    regime = Regime(
        answer=source.answer,
        prompt_tokens=_range(prompts) if known else None,
        prompts=(_short(prompts.mean()), _short(prompts.std())) if known else None,
        sample_tokens=_range(means) if len(means) else None,
    )
    if source.questions is None:
        return regime
    texts = [source.questions[problem.problem] for problem in problems]
    features = np.array([hand_features(text) for text in texts])
    mean, spread = features.mean(axis=0), np.maximum(features.std(axis=0), _LEAST_SPREAD)
    exact = Regime(mean=tuple(mean.tolist()), spread=tuple(spread.tolist()))
    far = [exact.far(row) for row in features.tolist()]
    return replace(
        regime,
        characters=_range(np.array([float(len(text)) for text in texts])),
        mean=tuple(map(_short, mean)),
        spread=tuple(map(_short, spread)),
        distance=_short(max(_NEAR, _AIR * (1 + _FEW / len(far)) * float(np.quantile(far, _KEPT)))),
    )


def _lengths(problem: Recorded) -> list[float]:
    """Mean lengths of its samples, PROBES at a time."""
    tokens = [float(sample.tokens) for sample in problem.sampled if sample.tokens is not None]
    return [float(np.mean(tokens[at : at + PROBES])) for at in range(0, len(tokens) - PROBES + 1, PROBES)]


def _range(values: Array) -> tuple[float, float]:
    return _short(values.min() / _AIR), _short(values.max() * _AIR)


def _short(value: float) -> float:
    return round(float(value), _DIGITS)
