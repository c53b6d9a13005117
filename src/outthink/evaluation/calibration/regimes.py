"""What the regime of a policy is learned from: the lengths and questions of the calibration.

Knows: ranges with some air, means and spreads, the distance that nearly all calibrated questions keep.
Does not know how a request is compared with them.
"""

from __future__ import annotations

import numpy as np

from outthink.controller.policy.regime import FAR, PROBES, Regime
from outthink.controller.router.text import hand_features
from outthink.engines.traces import Recorded
from outthink.evaluation.calibration.source import Source

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
