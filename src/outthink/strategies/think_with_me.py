"""Think-with-Me (arXiv 2601.11252): pause where a trace turns, ask a judge, then go on, redirect or stop.

Knows: where to pause, what each opinion leads to, and the controls (other pauses, other judges). Does
not know how a judge decides. The paper's prompts and thresholds are not published: m, the number of
interventions and all words are ours.
"""

from __future__ import annotations

from typing import Literal

from outthink.core.errors import BadInput
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.judges import Judge, Opinion
from outthink.strategies.judges import judge as chosen_judge
from outthink.strategies.registry import strategy
from outthink.strategies.thinking import ANSWER_TOKENS, CUE, MARKERS, SENTENCE_ENDS, End, Trace

Pauses = Literal["conjunctions", "random", "every"]


class Pacer:
    """Grows a trace to its next pause.

    Args:
        pauses: `conjunctions`: before a turning word at the start of a sentence; `random`: at the
            end of a sentence, after a random number of tokens; `every`: after so many tokens.
        m: least tokens between two pauses.
        gap: mean tokens beyond m, for `random` and `every`.
    """

    def __init__(self, session: Session, trace: Trace, pauses: str, m: int, gap: int) -> None:
        if pauses not in ("conjunctions", "random", "every"):
            raise BadInput("pauses", pauses, "is not known", "use conjunctions, random or every")
        if m < 1 or gap < 1:
            raise BadInput("m/gap", (m, gap), "is below 1", "give tokens")
        self.session, self.trace, self.pauses, self.m, self.gap = session, trace, pauses, m, gap
        self.count = 0

    async def next(self) -> End:
        """`paused` at a pause, else why the trace has ended."""
        trace, start = self.trace, self.trace.used
        if self.pauses == "conjunctions":
            end: End = "paused"
            while end == "paused":
                end = await trace.grow(stop=MARKERS)
                if end == "piece" or (end == "paused" and trace.used - start >= self.m):
                    break
        else:
            extra = self.gap if self.pauses == "every" else round(self.session.random.expovariate(1 / self.gap))
            end = await trace.grow(self.m + extra)
            if end == "piece" and self.pauses == "random":
                end = await trace.grow(stop=SENTENCE_ENDS)
                trace.pause = len(trace.text)
        if end == "piece" or (end == "paused" and trace.left > 0):
            self.count += 1
            return "paused"
        return "spent" if end == "paused" else end


@strategy(
    "think-with-me",
    source="arXiv 2601.11252 (own wording and thresholds)",
    needs="an engine that continues a prefix; the judges self and probe, verifier and person add calls",
    extends=True,
)
async def think_with_me(
    session: Session,
    request: Request,
    *,
    judge: str = "rules",
    pauses: Pauses = "conjunctions",
    max_think: int | None = None,
    m: int = 64,
    gap: int = 64,
    interventions: int = 16,
    chance: float = 0.1,
    cue: str = CUE,
    answer_tokens: int = ANSWER_TOKENS,
) -> Verdict:
    """One trace that pauses at turning words, where a judge lets it go on, redirects or stops it."""
    trace = Trace(session, request, request.sampling.max_tokens if max_think is None else max_think)
    ask = chosen_judge(judge, session, request, chance=chance)
    pacer = Pacer(session, trace, pauses, m, gap)
    tally = {"redirected": 0, "without a usable opinion": 0}
    while True:
        if pacer.count < interventions:
            end = await pacer.next()
        else:
            end = await trace.grow()
        if end == "piece":
            continue
        opinion = await _opinion(ask, trace, tally) if end == "paused" else None
        if end != "paused" or (opinion is not None and opinion.complete):
            break
        if opinion is not None and not opinion.silent:
            tally["redirected"] += not opinion.rational
            _tell(trace, opinion, pacer.count)
    told = ", ".join(f"{count} {what}" for what, count in tally.items())
    stopped = "; the judge ended it" if opinion is not None and opinion.complete else ""
    session.note(f"think-with-me: {pacer.count} pauses, {told}{stopped}")
    if opinion is None:
        return await trace.finish(end, cue, answer_tokens)
    trace.text = trace.text[: trace.pause]
    if opinion.probe is not None:  # the trial answer is the answer: nothing is decoded twice
        return Verdict(opinion.probe.answer, trace.closed(cue) + opinion.probe.text, "consensus")
    if not opinion.silent:
        trace.insert("\n<feedback>complete, stop</feedback>\n")
    return await trace.answer(cue, answer_tokens, "consensus")


async def _opinion(ask: Judge, trace: Trace, tally: dict[str, int]) -> Opinion | None:
    """The judge's opinion; where it gives nonsense the trace goes on unchanged, and that is counted."""
    opinion = await ask(trace)
    if opinion is None and trace.session.stopped is None:
        tally["without a usable opinion"] += 1
    return opinion


def _tell(trace: Trace, opinion: Opinion, step: int) -> None:
    """Put the feedback before the turning word, or in its place; it counts against the trace's limit."""
    if opinion.rational:
        said = f"sound, continue{': ' + opinion.note if opinion.note else ''}"
        trace.insert(f"\n<feedback>{said}</feedback>\n", trace.pause)
    else:
        said = f"step {step} unsound{': ' + opinion.note if opinion.note else ''}"
        trace.text = trace.text[: trace.pause]
        trace.insert(f"\n<feedback>{said}</feedback>\nWait,")
