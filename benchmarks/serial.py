"""Serial thinking with an off switch and every control, on a scripted reasoning model (not a recorded one).

    python benchmarks/serial.py [--problems 200] [--seeds 2]

The model is the stochastic story in tests/support/reasoning_model.py: nothing in it was fitted to a real model, so the
figures show what the strategies do with such a story and whether the controls can tell, not how good they are on
yours. Told twice: with turning words at the ends of phases, and with turning words anywhere at the same rate.

Tokens are all generated ones (thinking, trial answers, judge, answer) plus what a judge reads anew (with a prefix
cache); `without a cache` adds every token that is read again. Curves run over the cap of the thinking, after which an
answer is forced. Takes about five minutes on two busy cores.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from common import ROOT, Table, interval, load_average, parser, save, show, target

sys.path.insert(0, str(ROOT / "tests"))

from outthink import Message, Request, Sampling
from outthink.core.receipt import Entry
from outthink.economics.tariff import Tariff
from outthink.evaluation.report.plot import draw
from outthink.evaluation.rows import Frontier, intervals
from outthink.evaluation.rows import interval as bootstrapped
from outthink.session.open import SessionOptions, Source, open_session
from outthink.strategies import Spec
from outthink.verifiers.checks import FunctionVerifier
from support.reasoning_model import ReasoningModel

CAPS = (256, 512, 1024, 2048)
WHOLE = 16_000
TWM = "think-with-me:interventions=64,"
STRATEGIES = {
    "answer forced at the cap": "budget-forcing:max_think={cap}",
    "stops ignored twice": "budget-forcing:n_ignore=2",
    "early exit, every 128 tokens": "early-exit:every=128",
    "early exit at turning words": "early-exit:at=transitions",
    "consensus alone, every 128 tokens": "early-exit:every=128,mode=consensus",
    "confidence alone, every 128 tokens": "early-exit:every=128,mode=confidence",
    "turning words, self": TWM + "judge=self",
    "random points, self": TWM + "judge=self,pauses=random,gap={gap}",
    "every k tokens, self": TWM + "judge=self,pauses=every,gap={gap}",
    "turning words, oracle": TWM + "judge=verifier",
    "random points, oracle": TWM + "judge=verifier,pauses=random,gap={gap}",
    "turning words, rules": TWM + "judge=rules",
    "turning words, trial answers": TWM + "judge=probe",
    "random points, trial answers": TWM + "judge=probe,pauses=random,gap={gap}",
    "turning words, random verdicts": TWM + "judge=random,chance=0.05",
    "turning words, always continue": TWM + "judge=always-continue",
}
PAIRS = (
    ("turning words, self", "random points, self"),
    ("turning words, self", "every k tokens, self"),
    ("turning words, oracle", "random points, oracle"),
    ("turning words, trial answers", "random points, trial answers"),
    ("turning words, self", "turning words, random verdicts"),
    ("turning words, trial answers", "turning words, self"),
    ("turning words, self", "answer forced at the cap"),
    ("turning words, trial answers", "answer forced at the cap"),
    ("early exit, every 128 tokens", "answer forced at the cap"),
    ("consensus alone, every 128 tokens", "early exit, every 128 tokens"),
)
STORIES = {"informative": True, "uninformative": False}
FIELDS = ("accuracy", "tokens", "uncached", "pauses", "false stop", "rescue", "stopped early")


@dataclass(frozen=True)
class Story:
    """What one run of a strategy on a problem gave."""

    answer: str | None
    tokens: float
    uncached: float
    pauses: int
    early: bool


def one(model: ReasoningModel, spec: Spec, problem: str, limit: int, seed: int) -> Story:
    """Run once on the virtual clock."""
    request = Request(
        messages=(Message("user", "Solve it."),),
        answer="number",
        sampling=Sampling(max_tokens=limit),
        problem=problem,
        seed=seed,
    )
    engine = model.engine()
    truth = model.truth(problem)
    # A judge that knows the answer to each problem, and reads what is believed off the model's own state.
    oracle = FunctionVerifier(lambda _, text: 1.0 if believed(model, problem, text) == truth else 0.3, name="oracle")
    opened = open_session([Source(engine, Tariff.of(engine.model))], seed=seed, options=SessionOptions(verifier=oracle))
    session = opened.session
    verdict = opened.run_now(spec(session, request))
    receipt = session.receipt()
    entries = receipt.entries
    generated = sum(entry.completion_tokens or 0 for entry in entries)
    told = [int(note.split()[1]) for note in receipt.notes if note.startswith("think-with-me")]
    return Story(
        verdict.answer,
        generated + read_anew(entries),
        sum(entry.tokens or 0 for entry in entries),
        told[0] if told else 0,
        verdict.stopped == "consensus",
    )


def believed(model: ReasoningModel, problem: str, text: str) -> str | None:
    """The settled belief at the end of a text; None in the middle of a phase, where nothing is settled."""
    state = model.state(problem, text)
    return state.belief if state.settled else None


def read_anew(entries: tuple[Entry, ...]) -> int:
    """Prompt tokens read for the first time: of the question, and of each judge's growing prompt."""
    policy = next((entry.prompt_tokens or 0 for entry in entries if entry.role == "policy"), 0)
    judged = [entry.prompt_tokens or 0 for entry in entries if entry.role == "verifier"]
    longest = anew = 0
    for tokens in judged:
        anew += max(0, tokens - longest)
        longest = max(longest, tokens)
    return policy + anew


def measure(story: str, text: str, limit: int, problems: int, seeds: int) -> np.ndarray:
    """(fields, problems), means over seeds."""
    model = ReasoningModel(informative=STORIES[story])
    spec = Spec.parse(text)
    found = np.zeros((len(FIELDS), problems))
    for i in range(problems):
        for seed in range(seeds):
            problem = f"p{i}/{seed}"
            run = one(model, spec, problem, limit, 1000 * seed + i)
            truth = model.truth(problem)
            right, would = run.answer == truth, model.natural(problem) == truth
            stopped = (run.early and would and not right, run.early and right and not would, run.early)
            found[:, i] += (right, run.tokens, run.uncached, run.pauses, *stopped)
    return found / seeds


def specs(gap: int) -> list[tuple[str, str, int]]:
    """Name, specification and limit of everything that is run; the thinking's cap is the request's."""
    rows = [(name, text.format(gap=gap, cap=cap), cap) for name, text in STRATEGIES.items() for cap in CAPS]
    return rows + [("self-consistency", f"self-consistency:n={n}", WHOLE) for n in (1, 2, 4, 8)]


def calibrated(story: str, problems: int) -> int:
    """The gap at which random points pause as often as turning words do, at the longest cap, nobody judging."""
    limit, quiet = CAPS[-1], TWM + "judge=none"
    wanted = measure(story, quiet, limit, problems, 1)[3].mean()
    low, high = 1, 400
    while high - low > 1:
        gap = (low + high) // 2
        if measure(story, f"{quiet},pauses=random,gap={gap}", limit, problems, 1)[3].mean() > wanted:
            low = gap
        else:
            high = gap
    return high


def compare(story: str, found: dict[tuple[str, int], np.ndarray]) -> Table:
    """Accuracy of one against the other at equal tokens, over the caps at which the other's curve reaches."""
    rows = []
    for mine, other in PAIRS:
        caps = [cap for cap in CAPS if (other, cap) in found]
        curve = Frontier(
            [found[other, cap][1].mean() for cap in caps], np.stack([found[other, cap][0] for cap in caps])
        )
        differences = []
        for cap in CAPS:
            reached = curve.at(float(found[mine, cap][1].mean()))
            if reached is not None:
                differences.append(found[mine, cap][0] - reached)
        row: dict[str, Any] = {"story": story, "strategy": mine, "against": other, "caps": len(differences)}
        if differences:
            mean = np.mean(differences, axis=0)
            low, high = bootstrapped(mean)
            row |= {"difference": mean.mean(), "low": low, "high": high, "points": interval(mean.mean(), low, high)}
        else:
            row |= {"difference": None, "low": None, "high": None, "points": "no common range"}
        rows.append(row)
    return rows


def table(story: str, found: dict[tuple[str, int], np.ndarray]) -> Table:
    """Rows for the plot and the result file."""
    full = found["self-consistency", 1]
    rows = []
    for (name, n), values in found.items():
        lows, highs = intervals(values[:1])
        lost = values[0] - full[0]
        low, high = bootstrapped(lost)
        mean = dict(zip(FIELDS, values.mean(axis=1), strict=True))
        rows.append(
            {
                "traces": f"scripted model, {story} turning words",
                "strategy": name,
                "n": n,
                "accuracy": mean["accuracy"],
                "accuracy_low": lows[0],
                "accuracy_high": highs[0],
                "tokens": mean["tokens"],
                "tokens without a cache": mean["uncached"],
                "saved": 1 - mean["tokens"] / full[1].mean(),
                "against the whole trace": interval(lost.mean(), low, high),
                "pauses": mean["pauses"],
                "stopped early": mean["stopped early"],
                "false stops": mean["false stop"],
                "rescues": mean["rescue"],
            }
        )
    return rows


def targets(pairs: Table) -> list[dict[str, Any]]:
    """What the controls must be able to show on a story whose truth is known."""
    lines = []
    for row in pairs:
        if (row["strategy"], row["against"]) != PAIRS[0] or row["low"] is None:
            continue
        if row["story"] == "informative":
            met = row["low"] > 0
            lines.append(target("turning words beat random points where they mark phases", "> 0", row["points"], met))
        else:
            met = row["low"] <= 0
            lines.append(target("and do not where they mark nothing", "includes or below 0", row["points"], met))
    return lines


DRAWN = (
    "self-consistency",
    "answer forced at the cap",
    "early exit, every 128 tokens",
    "turning words, trial answers",
    "random points, trial answers",
    "turning words, self",
    "random points, self",
)
"""Curves of the plot: each way of pausing beside its control. The table has all of them."""


def picture(rows: Table) -> None:
    """Draw accuracy against tokens."""
    drawn = draw(
        [row for row in rows if row["strategy"] in DRAWN],
        title="Serial thinking on a scripted reasoning model",
        subtitle="Nothing recorded: a stochastic story of thinking. Curves run over the cap; judge and trials counted.",
    )
    (Path(__file__).parent / "results" / "serial.svg").write_text(drawn + "\n")


def main() -> int:
    """Run both stories, print, write the result and the plot."""
    options = parser(__doc__)
    options.add_argument("--problems", type=int, default=200)
    options.add_argument("--seeds", type=int, default=2, help="traces of each problem (default 2)")
    chosen = options.parse_args()
    before = load_average()
    rows, pairs, gaps = [], [], {}
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as workers:
        for story, gap in zip(STORIES, workers.map(calibrated, STORIES, [100] * len(STORIES)), strict=True):
            gaps[story] = gap
            jobs = [
                ((name, limit if name in STRATEGIES else Spec.parse(text).n), text, limit)
                for name, text, limit in specs(gap)
            ]
            futures = [
                workers.submit(measure, story, text, limit, chosen.problems, chosen.seeds) for _, text, limit in jobs
            ]
            found = {key: future.result() for (key, _, _), future in zip(jobs, futures, strict=True)}
            rows += table(story, found)
            pairs += compare(story, found)
    shown = ("strategy", "n", "accuracy", "tokens", "tokens without a cache", "against the whole trace", "pauses")
    rates = ("stopped early", "false stops", "rescues")
    for story in STORIES:
        mine = [row for row in rows if story in row["traces"].split()]
        show(f"{story} turning words, scripted model", [{k: row[k] for k in (*shown, *rates)} for row in mine])
        show(
            "accuracy at equal total tokens, points",
            [{k: row[k] for k in ("strategy", "against", "caps", "points")} for row in pairs if row["story"] == story],
        )
    picture(rows)
    save(
        "serial",
        settings={"model": "scripted", "problems": chosen.problems, "seeds": chosen.seeds, "caps": list(CAPS)}
        | {"gap": gaps},
        targets=targets(pairs),
        load_before=before,
        rows=rows,
        pairs=pairs,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
