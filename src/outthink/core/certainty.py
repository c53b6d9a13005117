"""How sure a model was of a finished sample, under the names that strategies and verifiers share.

Knows: the measures and what each needs. Does not know votes, nor what stands in for a missing one.
"""

from __future__ import annotations

from outthink.core.errors import BadInput
from outthink.core.sample import Sample

MEASURES = ("confidence", "tail", "bottom", "lowest", "logprob", "self-certainty")
TOP = 20
"""Alternatives a token that DeepConf's confidence averages over (arXiv 2508.15260)."""


def alternatives(measure: str) -> int:
    """How many alternatives a token the engine must return for this measure. Raises BadInput for an unknown one."""
    if measure not in MEASURES:
        raise BadInput("score", measure, "is not known", f"use one of {', '.join(MEASURES)}")
    return 0 if measure == "logprob" else TOP


def certainty(sample: Sample, measure: str, window: int) -> float | None:
    """The measure of one sample, in nats; None where the sample lacks what it needs.

    Args:
        measure: `confidence` mean token confidence; `tail` of the last `window` tokens; `bottom` mean
            of the least confident tenth of the windows; `lowest` least confident window; `logprob`
            mean log-probability; `self-certainty` (arXiv 2502.18581).
    """
    if measure == "self-certainty":
        return sample.self_certainty
    if measure == "logprob":
        return sample.mean_logprob
    trace = sample.confidence
    if trace is None:
        return None
    if measure == "tail":
        return trace.tail(window)
    if measure == "bottom":
        return trace.bottom(window)
    if measure == "lowest":
        return trace.lowest(window)
    return trace.mean()
