"""How a verifier's recorded scores may weigh in votes: the weights that rules are learned on, beside those without it.

Knows: the temperature at which the scores' log-odds are those of a right answer, what judging takes, and the exponents
that are tried. Does not know which rules compete, how one is chosen, or how a verifier judges.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from outthink.controller.policy.judging import Judging
from outthink.controller.policy.rules import Sway
from outthink.controller.verifier import verifier_id
from outthink.core.errors import BadInput
from outthink.core.sample import MEASURES
from outthink.engines.traces import Traces
from outthink.evaluation.calibration.losses import Array
from outthink.evaluation.calibration.votes import Dealt, Table
from outthink.evaluation.verify import Prescoring, prescored

EXPONENTS = (0.5, 1.0)
"""Of the odds of a right answer: at 1 each vote weighs as much as it is likelier right than wrong."""
CONFIDENCES = (0.25, 0.5)
"""Beside it the model's own confidence sways a vote, as without a verifier."""
_TEMPERATURES = np.geomspace(0.1, 20, 160)


def with_scores(traces: Traces, verifier: str, problems: Path | None) -> Traces:
    """The samples with the scores of a verifier: recorded ones, or the model's own confidence in them.

    Args:
        verifier: NAME, PATH or URL.
        problems: file of the problems, None for the one beside the samples.

    Raises BadInput where they carry none, or those of another verifier; it names the command that scores them, and
    about how many tokens that would read.
    """
    if verifier in MEASURES:  # it takes no tokens
        return prescored(traces, Prescoring(verifier=verifier, problems=problems))
    wanted = verifier_id(verifier)
    if traces.verifier == wanted:
        return traces
    read = sum((s.tokens or 0) + (s.prompt_tokens or 0) for p in traces.problems.values() for s in p.samples)
    here = "carries no scores" if traces.verifier is None else f"carries the scores of {traces.verifier}"
    # The scored file keeps its name, from which the model's is read.
    command = f"outthink verify {traces.path} --verifier {verifier} --out scored/{traces.path.name}"
    raise BadInput("traces", str(traces.path), f"{here}, not those of {wanted}", f"{command} (about {read:,} tokens)")


def scored_votes(table: Table, traces: Traces) -> list[tuple[Sway, Judging]]:
    """The weights that are tried on these samples. Raises BadInput where they carry no scores."""
    dealt, scoring = table.models[0], traces.scoring
    known = ~np.isnan(dealt.score)
    if scoring is None or not known.any():
        raise BadInput("traces", str(traces.path), "carry no scores", "score them first: outthink verify")
    how = scoring.aggregation or "last"
    temperature, tokens = _temperature(dealt.score[known], _right(table)[known]), _ratio(dealt)
    return [
        (Sway(confidence=confidence, cut=-1.0), Judging(how, temperature, exponent, tokens))
        for exponent in EXPONENTS
        for confidence in CONFIDENCES
    ]


def _right(table: Table) -> Array:
    """Whether each sample is right, over (problem, order, sample)."""
    codes = table.models[0].codes
    places = np.maximum(codes, 0).reshape(len(codes), -1)
    return np.asarray(np.take_along_axis(table.right, places, axis=1).reshape(codes.shape) & (codes >= 0))


def _temperature(odds: Array, right: Array) -> float:
    """That at which the log-odds over it foretell best which samples are right (Guo et al., arXiv 1706.04599)."""
    signed = np.where(right, odds, -odds)
    losses = [float(np.logaddexp(0, -signed / temperature).mean()) for temperature in _TEMPERATURES]
    return float(f"{_TEMPERATURES[int(np.argmin(losses))]:.4g}")


def _ratio(dealt: Dealt) -> float:
    """Tokens of the verifier for each token of a sample, prompt included."""
    judged = dealt.judging > 0
    if not judged.any():
        return 0.0
    made = (dealt.tokens + dealt.prompt[:, None, None])[judged]
    return float(f"{dealt.judging[judged].sum() / made.sum():.4g}")
