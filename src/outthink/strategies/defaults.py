"""Which strategies stand in where nobody has named one: the only place outside their own files that knows names.

Knows: names as text, for requests, comparisons, calibration and the proxy. Does not know what any of them
does; whoever needs one parses its text.
"""

from outthink.core.request import AnswerKind, AnswerReader

Answer = AnswerKind | AnswerReader | str | None
"""The kind of answer that a request wants, as it was named; None where nobody did."""

TEXT = "single"
"""Free text: two completions rarely share a form, so votes cannot pay."""
COUNTED = "adaptive-consistency"
"""Answers that can be counted, and every request outside a policy's regime."""
COUNTED_SAMPLES = 16

BASELINE = "self-consistency"
"""What every comparison is paired with, and what stands in where a client wants several answers."""
GREEDY = "greedy"
"""Reference row of a comparison: recorded sample 0."""
ORACLE = "oracle"
"""Reference row that is no strategy: whether any of n samples is right."""
PILOT = "single"
"""Shows what one sample costs before a live comparison."""
PASSED = "single"
"""A backend's own name in the proxy, where the request asks for more than to be passed through."""

COMPARED = (
    "single",
    "self-consistency",
    "adaptive-consistency",
    "esc",
    "short-m-of-k",
    "best-of-n",
    "borda",
    "deepconf",
)
COMPARED_LIVE = ("self-consistency", "adaptive-consistency", "esc")
CONTROLS = (BASELINE, COUNTED)
"""Replayed beside a policy in calibration."""


def fallback(answer: Answer, n: int = COUNTED_SAMPLES) -> str:
    """What runs where nobody has named a strategy, for a kind of answer; n samples at most."""
    return TEXT if answer == "text" else f"{COUNTED}:n={n}"
