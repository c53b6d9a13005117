"""How long one trace thinks: forced to a budget, or left early where trial answers agree.

Knows: when a stop is ignored, when thinking is closed by force, and when an exit is safe. Does not know how a trace
is continued or a trial decoded. Sources: s1 (Muennighoff et al., arXiv 2501.19393), DEER (arXiv 2504.15895), Dynasor
(arXiv 2412.20993).
"""

from __future__ import annotations

from typing import Literal

from outthink.core.errors import BadInput, Unsupported, need_known
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.serial.thinking import ANSWER_TOKENS, CUE, MARKERS, Trace, TrialAnswer, looping
from outthink.strategies.voting import single

_CONTEXT_LEFT = 0.1  # share of the context below which nothing is forced


@strategy(
    "budget-forcing",
    source="Muennighoff et al. 2501.19393",
    needs="an engine that continues a prefix",
    streams="thinking",
    extends=True,
    serial=True,
)
async def budget_forcing(
    session: Session,
    request: Request,
    *,
    max_think: int | None = None,
    n_ignore: int = 0,  # more only where a gain was measured: thinking on also loses right answers
    inject: str = "Wait",
    cue: str = CUE,
    answer_tokens: int = ANSWER_TOKENS,
    context: int | None = None,
) -> Verdict:
    """One trace whose thinking is closed at a cap, and lengthened where it ends too soon.

    Args:
        n_ignore: ends of thinking that are ignored
        inject: text put in place of an ignored end
        context: tokens of the model's window, auto where it is not known
    """
    if n_ignore < 0:
        raise BadInput("n_ignore", n_ignore, "is below 0", "give the stops to ignore, 0 for none")
    if max_think is None and not n_ignore:
        return await single(session, request)  # nothing to force
    trace = Trace(session, request, max_think)
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


# Early exit by trial answers.

At = Literal["tokens", "transitions"]
Mode = Literal["both", "confidence", "consensus"]
MODES = ("both", "confidence", "consensus")


class Exit:
    """Says after each probe whether to leave.

    Args:
        consensus: probes, the newest included, that must give the same answer.
        threshold: least mean token probability of the newest probe.
        mode: `both`, or one condition alone.
    """

    def __init__(self, model: str, consensus: int, threshold: float, mode: str) -> None:
        need_known("mode", mode, MODES)
        if consensus < 1 or not 0 < threshold <= 1:
            raise BadInput(
                "consensus/threshold", (consensus, threshold), "is out of range", "use 1 or more probes, 0 to 1"
            )
        self.model, self.consensus, self.threshold, self.mode = model, consensus, threshold, mode
        self.streak = 0
        self.answer: str | None = None

    def after(self, probe: TrialAnswer) -> bool:
        """Take in a probe. Raises Unsupported where confidence is needed and the engine gives none."""
        if self.mode != "consensus" and probe.confidence is None:
            raise Unsupported(
                f"early-exit: {self.model} returned no log-probabilities; "
                "use an engine that does (see `outthink doctor`) or mode=consensus"
            )
        # Discarded as if it had not been made (Dynasor): the streak goes on behind it.
        if probe.hesitating:
            return False
        if probe.answer is None:
            self.streak, self.answer = 0, None
            return False
        self.streak = self.streak + 1 if probe.answer == self.answer else 1
        self.answer = probe.answer
        # Both by default: agreement alone is reported to be often a repeated guess.
        agreed = self.streak >= self.consensus
        sure = probe.confidence is not None and probe.confidence >= self.threshold
        return {"both": agreed and sure, "confidence": sure, "consensus": agreed}[self.mode]


@strategy(
    "early-exit",
    source="Yang et al. 2504.15895, Fu et al. 2412.20993",
    needs="an engine that continues a prefix and gives log-probabilities (none for mode=consensus)",
    streams="thinking",
    extends=True,
    serial=True,
)
async def early_exit(
    session: Session,
    request: Request,
    *,
    every: int = 512,
    at: At = "tokens",
    consensus: int = 2,
    threshold: float = 0.95,
    probe_tokens: int = 32,
    mode: Mode = "both",
    max_think: int | None = None,
    cue: str = CUE,
    answer_tokens: int = ANSWER_TOKENS,
) -> Verdict:
    """One trace that is left as soon as trial answers on the way agree and are confident.

    Args:
        every: tokens between two probes
        at: where to probe: `tokens`, or `transitions` (words such as Wait)
        consensus: probes in a row that must agree
        threshold: mean probability that a probe's tokens must reach
        probe_tokens: the most tokens of a probe
        mode: `both`, `confidence` or `consensus`
    """
    need_known("at", at, ("tokens", "transitions"), "use tokens or transitions")
    if every < 1:
        raise BadInput("every", every, "is below 1", "give the tokens between two trial answers")
    trace = Trace(session, request, max_think)
    rule = Exit(session.tariff.model, consensus, threshold, mode)
    while True:
        end = await (trace.grow(every) if at == "tokens" else trace.grow(stop=MARKERS))
        if end not in ("piece", "paused"):
            return await trace.finish(end, cue, answer_tokens)
        probe = await trace.probe(cue, probe_tokens)
        if probe is not None and rule.after(probe):
            return Verdict(probe.answer, trace.closed(cue, trace.pause) + probe.text, "consensus")
