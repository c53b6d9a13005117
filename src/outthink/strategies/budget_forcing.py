"""Budget forcing (s1, Muennighoff et al., arXiv 2501.19393): think no longer than a cap, and no shorter than asked.

Knows: when a stop is ignored, when thinking is closed by force, and when forcing no longer helps. Does
not know how a trace is continued.
"""

from __future__ import annotations

from outthink.core.errors import BadInput
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.single import single
from outthink.strategies.thinking import ANSWER_TOKENS, CUE, Trace, looping

_CONTEXT_LEFT = 0.1


@strategy(
    "budget-forcing", source="Muennighoff et al. 2501.19393", needs="an engine that continues a prefix", extends=True
)
async def budget_forcing(
    session: Session,
    request: Request,
    *,
    max_think: int | None = None,
    n_ignore: int = 0,
    inject: str = "Wait",
    cue: str = CUE,
    answer_tokens: int = ANSWER_TOKENS,
    context: int | None = None,
) -> Verdict:
    """One trace whose thinking is closed at a cap, and lengthened where it ends too soon."""
    if n_ignore < 0:
        raise BadInput("n_ignore", n_ignore, "is below 0", "give the stops to ignore, 0 for none")
    if max_think is None and not n_ignore:
        return await single(session, request)  # nothing to force
    trace = Trace(session, request, request.sampling.max_tokens if max_think is None else max_think)
    ignored = 0
    while True:
        end = await trace.grow()
        if end == "piece":  # the session's own budget has shortened it
            continue
        if end not in ("closed", "ended") or ignored == n_ignore or trace.left <= len(inject.encode()):
            break
        why = _hopeless(trace, context)
        if why:
            session.note(f"budget forcing ended after {ignored} of {n_ignore} ignored stops: {why}")
            break
        trace.insert(inject)
        ignored += 1
    return await trace.finish(end, cue, answer_tokens)


def _hopeless(trace: Trace, context: int | None) -> str:
    """Why more thinking would not help, empty if it may."""
    if looping(trace.text):
        return "the trace repeats itself"
    if context is not None and context - (trace.bare or 0) - trace.used < _CONTEXT_LEFT * context:
        return "less than a tenth of the context is left"
    return ""
