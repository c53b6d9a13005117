"""Whether a calibrated rule decides live as it does in replay: sample by sample, with a verifier and without.

The recorded samples of GSM8K 1.5B are played by an engine in real time, through the live runner and the ordinary
protocol; both sides have the answers that are read from the texts, and the verifier is one that is awaited. For each
problem the samples that were drawn, their answers, why it stopped and what it answered are compared with the replay of
the same rule on the virtual clock.

    python benchmarks/promise_live.py [--problems 1000]

Needs the recorded sets in ../shared/data/traces or $OUTTHINK_TRACES; some minutes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from common import NO_TRACES, judged, load_average, parser, save_evidence, show, skip, traces
from outthink.controller.policy.plan import Plan
from outthink.core.request import Request, Sampling
from outthink.core.sample import Candidate, Sample
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import RealTimeEngine, Speed
from outthink.engines.recorded import Recorded
from outthink.engines.traces import ReplayEngine, Traces, load
from outthink.evaluation.calibration.contenders import fit_source, lineup
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.dataset import open_source, regrade
from outthink.evaluation.replay import WINDOW, recorded
from outthink.session.calls import RunningCall
from outthink.session.open import SessionOptions, Source, open_session
from outthink.verifiers.protocol import Score, Verifier
from promise_more import scored

SET = "GSM8K 1.5B"
FAST = Speed(stream=1e9, total=1e9, prefill=1e9, judge=1e9)
Decisions = tuple[str | None, str, tuple[tuple[int, str | None], ...]]
"""The answer, why it stopped, and number and answer of each sample that was drawn."""


class LookedUp(Verifier):
    """Awaited like any other, but it looks its scores up by the text that it is given."""

    def __init__(self, samples: Traces) -> None:
        scoring = samples.scoring
        assert scoring is not None
        self.id, self.model, self.parameters = scoring.id, str(scoring.model), scoring.parameters
        self.known = {
            (name, sample.text): sample for name, problem in samples.problems.items() for sample in problem.sampled
        }

    def bound(self, request: Request, candidate: Candidate) -> int:
        """What was paid for this text."""
        return self.known[request.problem or "", candidate.text].verifier_tokens or 0

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """The recorded scores, a turn of the event loop later."""
        await asyncio.sleep(0)
        samples = [self.known[request.problem or "", candidate.text] for candidate in candidates]
        return [Score(tuple(sample.scores), sample.verifier_tokens) for sample in samples]


def run(source: Source, chosen: Plan, request: Request, verifier: Verifier | None, live: bool) -> Decisions:
    """One request, live or in replay."""
    drawn: dict[int, str | None] = {}

    def see(event: str, running: RunningCall, sample: Sample | None) -> None:
        if event == "finished" and sample is not None:
            drawn[running.call.index] = sample.answer

    options = SessionOptions(ahead=1, confidence_window=WINDOW, verifier=verifier, observer=see)

    async def played() -> Any:
        opened = open_session([source], seed=0, options=options)
        return await opened.run(chosen(opened.session, request))

    if live:
        verdict = asyncio.run(played())
    else:
        opened = open_session([source], seed=0, options=options)
        verdict = opened.run_now(chosen(opened.session, request))
    return verdict.answer, verdict.stopped, tuple(sorted(drawn.items()))


def compared(way: str, samples: Traces, plans: dict[str, Plan], questions: Any, names: Sequence[str]) -> dict[str, Any]:
    """How many problems have the same decisions on both sides."""
    engine = ReplayEngine(samples, speed=FAST)
    replayed, real = (Source(one, Tariff.of(samples.model)) for one in (engine, RealTimeEngine(engine)))
    same = draws = 0
    for name in names:
        request = Request.of(questions[name], answer="number", problem=name, sampling=Sampling(max_tokens=1 << 20))
        virtual = run(replayed, plans[name], request, recorded(samples.scoring), live=False)
        alive = run(real, plans[name], request, LookedUp(samples) if samples.scoring else None, live=True)
        same += virtual == alive
        draws += len(alive[2])
    return {"way": way, "problems": len(names), "same": same, "samples": draws, "agreement": same / len(names)}


def read_anew(texts: Traces) -> Traces:
    """The samples with the answers that our reader finds in their texts, and the texts."""
    graded, problems = regrade(texts, "number"), {}
    for name, one in graded.problems.items():
        known = {sample.index: sample.text for sample in texts.problems[name].sampled}
        sampled = [replace(sample, text=known[sample.index]) for sample in one.sampled]
        problems[name] = Recorded(name, sampled, one.greedy, one.right)
    return replace(graded, problems=problems)


def main() -> int:
    """Fit, run both ways, compare, write."""
    options = parser(__doc__)
    options.add_argument("--problems", type=int, default=1000, metavar="N", help="the first so many (default 1000)")
    count, files = options.parse_args().problems, traces()
    if SET not in files:
        return skip(NO_TRACES)
    before, path = load_average(), files[SET]
    texts = read_anew(load(path, text=True))
    judging = scored(path, SET, texts)
    source = open_source(path, judging)
    fitted = fit_source(source, Target.parse("match=self-consistency@32", by="flops"), 5, 0, (32,), judged=True)
    names = list(judging.problems)[:count]
    plain = lineup(source, fitted)[-1]
    rows = [compared("no verifier", texts, dict(plain.plans), source.questions, names)]
    if fitted.judged is not None:
        (weighed,) = lineup(source, fitted.judged)
        rows.append(compared("verifier", judging, dict(weighed.plans), source.questions, names))
    show("live against replay", rows)
    lines = [
        judged(f"{SET}, {row['way']}: problems with the same decisions", row["agreement"], 1.0, better="higher")
        for row in rows
    ]
    save_evidence("promise-live", rows=rows, targets=lines, load_before=before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
