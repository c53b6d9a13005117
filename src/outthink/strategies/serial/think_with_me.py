"""Think-with-Me (arXiv 2601.11252): pause where a trace turns, ask a judge, then go on, redirect or stop.

Knows: where to pause, who judges and how a reply is read, and what each opinion leads to. Does not know how a trace
is continued. The paper's prompts and thresholds are not published: m, the number of interventions and all words are
ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from outthink.core.errors import BadInput, need_known
from outthink.core.receipt import Verdict
from outthink.core.request import Message, Request
from outthink.session.session import Session
from outthink.strategies.prompts import question
from outthink.strategies.registry import strategy
from outthink.strategies.serial.length import Exit
from outthink.strategies.serial.thinking import (
    ANSWER_TOKENS,
    CUE,
    MARKERS,
    SENTENCE_ENDS,
    End,
    Trace,
    TrialAnswer,
    looping,
)

# Who decides at a pause: rules, the model itself, a verifier or person, chance, or nobody. A note is one sentence
# and never tells the answer.

STATED = frozenset({"boxed", "answer-is", "function"})
"""Rules of the answer readers that need a statement, not just a number that stands somewhere."""
COMPLETE, UNSOUND = 0.5, 0.1
"""A verifier's score from which a trace counts as complete, and below which as unsound (our choice)."""
_NOTE = 160
_PROBE = 32
"""The most tokens of a trial answer."""
_OBJECT = re.compile(r"\{[^{}]*\}")
JUDGE_PROMPT = """You check reasoning while it is being written. Do not solve the task and do not tell any answer.
Reply with one JSON object and nothing else: {{"rational": 0 or 1, "complete": 0 or 1, "note": "one short sentence"}}
rational: the steps so far are sound. complete: they already settle the final answer.

Task:
{question}

Reasoning so far:
<reasoning>
{trace}
</reasoning>"""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a judge says. `silent`: the model is not told. `probe`: the trial answer behind a `complete`."""

    rational: bool = True
    complete: bool = False
    note: str = ""
    silent: bool = False
    probe: TrialAnswer | None = None


Judge = Callable[[Trace], Awaitable[Opinion | None]]
"""From the trace, whose text up to `pause` is to be judged, to an opinion; None for nonsense."""
JudgeName = Literal["rules", "self", "verifier", "probe", "random", "always-continue", "none"]
JUDGES = get_args(JudgeName)


def judge_named(name: str, session: Session, request: Request, chance: float) -> Judge:
    """A judge by name. Raises BadInput for an unknown name, and for `verifier` on a session without one.

    Args:
        chance: probability of `complete`, and of `unsound`, of the random judge.
    """
    need_known("judge", name, JUDGES)
    if name == "rules":
        return _rules(session, request)
    if name == "self":
        return _itself(session, request)
    if name == "verifier":
        return _verifier(session, request)
    if name == "probe":
        return _prober(session)
    if name == "random":
        return _random(session, chance)
    return _constant(Opinion(silent=name == "none"))


def _rules(session: Session, request: Request) -> Judge:
    """Complete once the same answer has been stated between two different pauses; unsound while in a loop."""
    judged, stated = 0, set[str]()

    async def ask(trace: Trace) -> Opinion:
        nonlocal judged
        fresh, judged = trace.text[judged : trace.pause], trace.pause
        if looping(trace.text[: trace.pause]):
            return Opinion(rational=False, note="it repeats itself")
        reading = await session.read(request, fresh)
        if reading.answer is None or reading.rule not in STATED:
            return Opinion()
        again = reading.answer in stated
        stated.add(reading.answer)
        return Opinion(complete=again)

    return ask


def _itself(session: Session, request: Request) -> Judge:
    """The same engine, asked in a chat of its own; all its tokens are charged as role `verifier`."""
    sampling = replace(request.sampling, temperature=0.0, max_tokens=96, stop=())

    async def ask(trace: Trace) -> Opinion | None:
        text = JUDGE_PROMPT.format(question=question(request), trace=trace.text[: trace.pause].strip())
        asked = replace(
            request, messages=(Message("user", text),), answer="text", sampling=sampling, opening=None, min_tokens=1
        )
        async for sample in session.sample(asked, n=1, role="verifier"):
            opinion = parsed(sample.text)
            return opinion and replace(opinion, note=await _discreet(session, request, opinion.note))
        return None

    return ask


def parsed(text: str) -> Opinion | None:
    """The opinion in a judge's reply; None where it has no JSON object with `rational` and `complete` as 0 or 1."""
    for match in _OBJECT.finditer(text):
        try:
            value = json.loads(match.group())
        except ValueError:
            continue
        if value.get("rational") in (0, 1) and value.get("complete") in (0, 1):
            return Opinion(bool(value["rational"]), bool(value["complete"]), str(value.get("note") or ""))
    return None


async def _discreet(session: Session, request: Request, note: str) -> str:
    """The note's first sentence; nothing where it states an answer."""
    first = re.split(r"(?<=[.!?])\s|\n", " ".join(note.split("\n")).strip(), maxsplit=1)[0][:_NOTE]
    if first and (await session.read(request, first)).rule in STATED:
        session.note("a judge's note told an answer and was left out")
        return ""
    return first.replace("<", "(").replace(">", ")")  # a note must not close the feedback's tags


def _verifier(session: Session, request: Request) -> Judge:
    """The session's verifier: a second model, a person at the terminal, an exact check."""
    verifier = session.verifier
    if verifier is None:
        raise BadInput("judge", "verifier", "is missing", "give one (--verifier NAME|PATH|URL) or use judge=rules")

    async def ask(trace: Trace) -> Opinion | None:
        (score,) = await session.score(request, [trace.text[: trace.pause]])
        if score is None:
            return None
        value = score.value(verifier.aggregation)
        # An exact check knows the answer, so that its message may not be passed on.
        note = "" if verifier.kind == "exact" else await _discreet(session, request, score.message)
        complete = value >= COMPLETE
        return Opinion(complete or value >= UNSOUND, complete, note)

    return ask


def _prober(session: Session) -> Judge:
    """Early exit at the same pauses: no judge, a trial answer that must agree with the last and be confident."""
    rule = Exit(session.tariff.model, 2, 0.95, "both")

    async def ask(trace: Trace) -> Opinion | None:
        probe = await trace.probe(CUE, _PROBE)
        return Opinion(silent=True, complete=probe is not None and rule.after(probe), probe=probe)

    return ask


def _random(session: Session, chance: float) -> Judge:
    if not 0 <= chance <= 0.5:  # each of its two verdicts has this chance
        raise BadInput("chance", chance, "is out of range", "use 0 to 0.5")

    async def ask(trace: Trace) -> Opinion:
        drawn = session.random.random()
        return Opinion(rational=drawn >= chance, complete=drawn >= 1 - chance)

    return ask


def _constant(opinion: Opinion) -> Judge:
    async def ask(trace: Trace) -> Opinion:
        return opinion

    return ask


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
        need_known("pauses", pauses, ("conjunctions", "random", "every"), "use conjunctions, random or every")
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
    streams="thinking",
    judges="parameter",
    extends=True,
    serial=True,
)
async def think_with_me(
    session: Session,
    request: Request,
    *,
    judge: JudgeName = "rules",
    pauses: Pauses = "conjunctions",
    max_think: int | None = None,
    m: int = 64,
    gap: int = 64,
    interventions: int = 16,
    chance: float = 0.1,
    cue: str = CUE,
    answer_tokens: int = ANSWER_TOKENS,
) -> Verdict:
    """One trace that pauses at turning words, where a judge lets it go on, redirects or stops it.

    Args:
        judge: `rules`, `self`, `probe`, `verifier` (a second model or a person), or a control
        pauses: `conjunctions`, or the controls `random` and `every`
        m: tokens between two pauses at least
        gap: tokens between two pauses of the control `every`
        interventions: pauses at most
        chance: share of sentence ends at which the control `random` pauses
    """
    trace = Trace(session, request, max_think)
    ask = judge_named(judge, session, request, chance)
    pacer = Pacer(session, trace, pauses, m, gap)
    tally = {"redirected": 0, "without a usable opinion": 0}
    while True:
        if pacer.count < interventions:
            end = await pacer.next()
        else:
            end = await trace.grow()
        if end == "piece":
            continue
        opinion = await ask(trace) if end == "paused" else None
        if end == "paused" and opinion is None and session.stopped is None:  # nonsense: the trace goes on unchanged
            tally["without a usable opinion"] += 1
        if end != "paused" or (opinion is not None and opinion.complete):
            break
        if opinion is not None and not opinion.silent:
            tally["redirected"] += not opinion.rational
            _insert(trace, opinion, pacer.count)
    counts = ", ".join(f"{count} {what}" for what, count in tally.items())
    stopped = "; the judge ended it" if opinion is not None and opinion.complete else ""
    session.note(f"think-with-me: {pacer.count} pauses, {counts}{stopped}")
    if opinion is None:
        return await trace.finish(end, cue, answer_tokens)
    trace.text = trace.text[: trace.pause]
    if opinion.probe is not None:  # the trial answer is the answer: nothing is decoded twice
        return Verdict(opinion.probe.answer, trace.closed(cue) + opinion.probe.text, "consensus")
    if not opinion.silent:
        trace.insert("\n<feedback>complete, stop</feedback>\n")
    return await trace.answer(cue, answer_tokens, "consensus")


def _insert(trace: Trace, opinion: Opinion, step: int) -> None:
    """Put the feedback before the turning word, or in its place; it counts against the trace's limit."""
    note = f": {opinion.note}" if opinion.note else ""
    if opinion.rational:
        trace.insert(f"\n<feedback>sound, continue{note}</feedback>\n", trace.pause)
    else:
        trace.text = trace.text[: trace.pause]
        trace.insert(f"\n<feedback>step {step} unsound{note}</feedback>\nWait,")
