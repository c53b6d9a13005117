"""Recorded samples as calibration and evaluation of a policy need them, and what makes them unusable.

Knows: questions beside the samples, what the file says of its model and sampling, refusals. Does not
know rules or policies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from outthink.controller.policy.regime import FAR, PROBES, Regime
from outthink.controller.router.folder import prompt_hash
from outthink.controller.router.text import hand_features
from outthink.core.errors import BadInput
from outthink.engines.traces import Recorded, Traces, columns, load
from outthink.evaluation.dataset import Problems, problem_file

_SAMPLERS = ("temperature", "top_p", "top_k", "min_p", "sampler", "sampling")
"""Columns that say how a row was sampled, where a file has them."""
_ANY_LENGTH = ("max_tokens",)
"""Parts of a sampling that may differ between data sets: limits of length."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file of samples.

    Args:
        questions: text by problem, None where no problems file lies beside it.
        answer: kind of the gold answers, None without that file.
        about: what the file's metadata say of its recording, empty without them.
    """

    traces: Traces
    questions: Mapping[str, str] | None
    answer: str | None
    about: Mapping[str, Any]

    @property
    def sampling(self) -> Mapping[str, Any] | None:
        """How it was sampled, None where that was not recorded."""
        told = self.about.get("sampling")
        return told if isinstance(told, dict) else None

    @property
    def revision(self) -> str | None:
        """The model's revision, None where that was not recorded."""
        told = self.about.get("revision")
        return None if told is None else str(told)

    @property
    def problem_marks(self) -> dict[str, str]:
        """A hash of each problem's name."""
        return {name: prompt_hash(name) for name in self.traces.problems}

    @property
    def question_marks(self) -> dict[str, str]:
        """A hash of each problem's question; empty where the questions are not at hand."""
        if self.questions is None:
            return {}
        return {name: prompt_hash(self.questions[name]) for name in self.traces.problems}

    def take(self, names: Sequence[str]) -> Source:
        """Some of its problems."""
        part = Traces(self.traces.path, {name: self.traces.problems[name] for name in names}, self.traces.scoring)
        return Source(part, self.questions, self.answer, self.about)


def open_source(path: Path, traces: Traces | None = None) -> Source:
    """Read a file of samples with what lies beside it; BadInput as `load`, or for rows of more than one sampler."""
    traces = traces or load(path)
    _one_sampler(path)
    about = _about(path)
    try:
        problems = Problems.read(problem_file(traces))
        known = all(name in problems for name in traces.problems)
        questions = {name: problems.question(name) for name in traces.problems} if known else None
    except BadInput:
        return Source(traces, None, None, about)
    keys = problems.keys or {}
    mine = Problems(problems.path, {name: problems.rows[name] for name in traces.problems if name in keys})
    return Source(traces, questions, mine.kind if mine.rows else None, about)


def fingerprint(traces: Traces) -> str:
    """Hash of everything in the samples that a policy is fitted on, whatever file holds them."""
    found = hashlib.sha256()
    for name in sorted(traces.problems):
        problem = traces.problems[name]
        rows = [
            (one.index, one.answer, one.tokens, one.prompt_tokens, one.mean_logprob, one.finish_reason, one.scores)
            for one in problem.sampled
        ]
        found.update(json.dumps([name, sorted(problem.right), rows]).encode())
    return "sha256:" + found.hexdigest()


def refuse_unusable(sources: Sequence[Source]) -> None:
    """BadInput for samples that nothing can be learned from, or that must not be mixed."""
    for source in sources:
        _refuse_one(source)
    by_model: dict[str, list[Source]] = {}
    for source in sources:
        by_model.setdefault(source.traces.model, []).append(source)
    for model, mine in by_model.items():
        told = {json.dumps(_kind_of(one.sampling), sort_keys=True) for one in mine if one.sampling is not None}
        if len(told) > 1:
            raise BadInput("traces", model, f"was sampled in {len(told)} ways: {' and '.join(sorted(told))}", _APART)
        if len({one.revision for one in mine if one.revision is not None}) > 1:
            raise BadInput("traces", model, "was recorded at more than one revision", _APART)
        _refuse_shared(mine)


_APART = "calibrate them apart"


def _refuse_one(source: Source) -> None:
    traces = source.traces
    if len(traces.problems) < 2:
        raise BadInput("traces", str(traces.path), "holds one problem only", "record more problems")
    if traces.depth < 1:
        raise BadInput("traces", str(traces.path), "has a problem without sampled completions", "record some for each")
    if not any(one.answer in problem.right for problem in traces.problems.values() for one in problem.sampled):
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


def _refuse_shared(sources: Sequence[Source]) -> None:
    """The same problem in two files of one model would stand on both sides of a split."""
    seen: dict[str, Path] = {}
    for source in sources:
        for name, mark in (source.question_marks or source.problem_marks).items():
            if mark in seen:
                raise BadInput("traces", name, f"is in {seen[mark]} and in {source.traces.path}", "give it once")
            seen[mark] = source.traces.path


def _kind_of(sampling: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (sampling or {}).items() if key not in _ANY_LENGTH}


def _one_sampler(path: Path) -> None:
    """BadInput where a column tells that sampled rows were drawn in different ways."""
    import pyarrow.parquet as parquet

    present = [name for name in _SAMPLERS if name in columns(path)]
    if not present:
        return
    rows = parquet.read_table(path, columns=["sample_idx", *present]).to_pylist()
    for name in present:
        values = {json.dumps(row[name], sort_keys=True, default=str) for row in rows if row["sample_idx"] != 0}
        if len(values) > 1:
            shown = ", ".join(sorted(values)[:4])
            raise BadInput("traces", str(path), f"mixes samplers ({name}: {shown})", "give samples of one")


def _about(path: Path) -> Mapping[str, Any]:
    import pyarrow.parquet as parquet

    try:
        told = json.loads((parquet.read_schema(path).metadata or {}).get(b"outthink", b"{}"))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


# What the regime of a policy is learned from: the lengths and questions of the calibration.
#
# Knows: ranges with some air, means and spreads, the distance that nearly all calibrated questions keep.
# Does not know how a request is compared with them.

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


def regime_of(source: Source) -> Regime:
    """The regime of one file of samples."""
    problems = list(source.traces.problems.values())
    prompts = np.array([float(one.sampled[0].prompt_tokens or 0) for one in problems])
    told = bool((prompts > 0).all())
    means = np.array([mean for one in problems for mean in _lengths(one)])
    regime = Regime(
        answer=source.answer,
        prompt_tokens=_range(prompts) if told else None,
        prompts=(_short(prompts.mean()), _short(prompts.std())) if told else None,
        sample_tokens=_range(means) if len(means) else None,
    )
    if source.questions is None:
        return regime
    texts = [source.questions[one.problem] for one in problems]
    features = np.array([hand_features(text) for text in texts])
    mean, spread = features.mean(axis=0), np.maximum(features.std(axis=0), _LEAST_SPREAD)
    far = np.minimum(((features - mean) / spread) ** 2, FAR).mean(axis=1)
    return Regime(
        answer=regime.answer,
        prompt_tokens=regime.prompt_tokens,
        prompts=regime.prompts,
        sample_tokens=regime.sample_tokens,
        characters=_range(np.array([float(len(text)) for text in texts])),
        mean=tuple(map(_short, mean)),
        spread=tuple(map(_short, spread)),
        distance=_short(max(_NEAR, _AIR * (1 + _FEW / len(far)) * float(np.quantile(far, _KEPT)))),
    )


def _lengths(problem: Recorded) -> list[float]:
    """Mean lengths of its samples, PROBES at a time."""
    told = [float(sample.tokens) for sample in problem.sampled if sample.tokens is not None]
    return [float(np.mean(told[at : at + PROBES])) for at in range(0, len(told) - PROBES + 1, PROBES)]


def _range(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, float]:
    return _short(values.min() / _AIR), _short(values.max() * _AIR)


def _short(value: float) -> float:
    return round(float(value), _DIGITS)
