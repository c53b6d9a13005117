"""Replays the four recorded sets against the figures of their data card and our reference table.

Measures, all through the code of `outthink compare`:
  1. pass@k (unbiased) and majority@k with random ties, each beside the data card's figure;
  2. what stopping saves: completion tokens of adaptive-consistency and of ESC with windows of
     four, relative to self-consistency at 32, one sample in flight, beside the reference ratios;
  3. the price of latency: the same with 4, 8 and 32 in flight (cancelled tokens charged, simulated
     seconds beside them), in launch order and, as a remark, with votes in order of finishing.
Does not measure speed; the seconds are those of the simulated server (50 tokens a second a stream,
32 streams at once). Needs the recorded sets in ../shared/data/traces or $OUTTHINK_TRACES. Takes
about seven minutes on two idle cores.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from common import NO_TRACES, Replay, Table, load_average, parser, save, show, skip, target, traces
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.engines.protocol import Speed
from outthink.evaluation.compare import CompareSettings, compare
from outthink.session.session import Session
from outthink.strategies import Spec, Votes, strategy
from outthink.strategies.votes import Ties

SIZES = (1, 2, 4, 8, 16, 32, 64)
CARD = {
    "majority": {
        "GSM8K 0.5B": (21.7, 21.6, 27.3, 32.7, 36.1, 37.9),
        "GSM8K 1.5B": (54.2, 54.2, 64.5, 69.9, 72.4, 73.0),
        "MATH 0.5B": (8.6, 8.6, 10.6, 13.5, 15.5, 16.5, 16.6),
        "MATH 1.5B": (33.8, 33.9, 40.9, 45.8, 48.7, 50.6, 51.9),
    },
    "pass": {
        "GSM8K 0.5B": (21.6, 32.0, 43.2, 54.4, 65.1, 74.8),
        "GSM8K 1.5B": (54.2, 68.5, 78.7, 85.6, 90.5, 93.8),
        "MATH 0.5B": (8.6, 14.3, 21.9, 30.7, 40.5, 51.1, 61.3),
        "MATH 1.5B": (33.9, 45.5, 55.8, 64.6, 72.3, 78.7, 84.3),
    },
}
"""Recorded in the data card, percent, at SIZES."""
STOPPERS = {"adaptive-consistency": "n=32,ties=random", "esc": "n=32,window=4,ties=random"}
REFERENCE = {
    "adaptive-consistency": {"GSM8K 0.5B": 0.83, "GSM8K 1.5B": 0.51, "MATH 0.5B": 0.94, "MATH 1.5B": 0.76},
    "esc": {"GSM8K 0.5B": 0.91, "GSM8K 1.5B": 0.63, "MATH 0.5B": 0.98, "MATH 1.5B": 0.84},
}
"""Tokens relative to self-consistency at 32, one in flight: the reference values of issue 3."""
BASELINE = "self-consistency:n=32,ties=random"
WIDE = Speed(concurrency=32)
"""A server that really runs 32 at once; the default of 8 would queue the rest, and queued calls cost nothing."""


@strategy("adaptive-finished", source="this benchmark", stops_early=True)
async def adaptive_finished(
    session: Session, request: Request, *, n: int = 32, confidence: float = 0.95, ties: Ties = "confidence"
) -> Verdict:
    """Adaptive-consistency with votes in order of finishing: short samples vote first."""
    votes = Votes(ties, session.random)
    async for sample in session.sample(request, n=n, order="finished"):
        votes.add(sample)
        if votes.leader_probability() >= confidence:
            return votes.winner("consensus")
    return votes.winner()


def pass_at(files: dict[str, Path]) -> Table:
    """The oracle rows of `compare` beside the card."""
    rows = []
    for name, path in files.items():
        largest = SIZES[len(CARD["pass"][name]) - 1]
        specs = [Spec.parse(f"self-consistency:n={largest}")]
        found = {
            row["n"]: 100 * row["accuracy"]
            for row in compare([path], specs, CompareSettings(seeds=1))
            if row["strategy"] == "oracle"
        }
        rows += [
            _against(name, f"pass@{k}", card, found[k]) for k, card in zip(SIZES, CARD["pass"][name], strict=False)
        ]
    return rows


def majority_at(files: dict[str, Path], replay: Replay, effort: int) -> Table:
    """Self-consistency with random ties beside the card; small sizes vary more and get more orders."""
    rows = []
    for name, path in files.items():
        problems = 1000 if "GSM8K" in name else 300
        for k, card in zip(SIZES, CARD["majority"][name], strict=False):
            whole = k == SIZES[len(CARD["majority"][name]) - 1]  # every sample votes: only ties are random
            seeds = 40 if whole else round(effort * 1000 / problems / k**0.25)
            spec = f"self-consistency:n={k},ties=random"
            found = replay(path, [spec], seeds=seeds)[spec]["accuracy"]
            rows.append(_against(name, f"majority@{k}", card, 100 * found.mean()) | {"orders": seeds})
    return rows


def _against(name: str, figure: str, card: float, found: float) -> dict[str, Any]:
    return {
        "file": name,
        "figure": figure,
        "card": card,
        "outthink": round(found, 2),
        "off": round(found - card, 2) + 0.0,
    }


def stopping(files: dict[str, Path], replay: Replay, seeds: int) -> Table:
    """Tokens and accuracy of the stopping rules with 1, 4, 8 and 32 in flight."""
    rows = []
    specs = [f"{name}:{rest}" for name, rest in STOPPERS.items()]
    finished = "adaptive-finished:n=32,ties=random"
    for name, path in files.items():
        orders = seeds if "GSM8K" in name else 3 * seeds  # a third of the problems
        baseline = replay(path, [BASELINE], seeds=orders, speed=WIDE)[BASELINE]
        for ahead in (1, 4, 8, 32):
            tried = specs if ahead < 8 else [*specs, finished]
            for spec, found in replay(path, tried, seeds=orders, ahead=ahead, speed=WIDE).items():
                short = spec.partition(":")[0]
                expected = REFERENCE.get(short, {}).get(name) if ahead == 1 else None
                rows.append(
                    {
                        "file": name,
                        "strategy": short,
                        "ahead": ahead,
                        "tokens": round(found["tokens"].sum() / baseline["tokens"].sum(), 3),
                        "reference": expected,
                        "cancelled": round(found["cancelled_tokens"].sum() / baseline["tokens"].sum(), 3),
                        "points": round(100 * (found["accuracy"].mean() - baseline["accuracy"].mean()), 2) + 0.0,
                        "seconds": round(found["seconds"].mean(), 1),
                        "seconds of all 32": round(baseline["seconds"].mean(), 1),
                    }
                )
    return rows


def targets(passes: Table, majorities: Table, stops: Table) -> list[dict[str, Any]]:
    """The promises of issue 3."""
    lines = []
    for label, rows in (("pass@k", passes), ("majority@k, random ties", majorities)):
        worst = max(rows, key=lambda row: abs(row["off"]))
        found = f"{len(rows)} figures, worst {worst['off']:+.2f} ({worst['file']} {worst['figure']})"
        lines.append(target(f"{label} of the data card", "within 0.3 points", found, abs(worst["off"]) <= 0.3))
    for short in STOPPERS:
        rows = [row for row in stops if row["strategy"] == short and row["ahead"] == 1]
        ratios = " / ".join(f"{row['tokens']:.2f}" for row in rows)
        expected = " / ".join(f"{row['reference']:.2f}" for row in rows)
        close = all(abs(row["tokens"] - row["reference"]) <= 0.02 for row in rows)
        lines.append(target(f"{short}: tokens against self-consistency@32", f"{expected}, within 0.02", ratios, close))
        points = " / ".join(f"{row['points']:+.2f}" for row in rows)
        same = all(abs(row["points"]) <= 0.3 for row in rows)
        lines.append(target(f"{short}: accuracy against self-consistency@32", "within 0.3 points", points, same))
    return lines


def main() -> int:
    """Measure, print, write."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=12, help="orders of 1,000 problems in the stopping table (12)")
    options.add_argument("--effort", type=int, default=500, help="orders of 1,000 problems for majority@1 (500)")
    chosen = options.parse_args()
    files = traces()
    if not files:
        return skip(NO_TRACES)
    load = load_average()
    passes = pass_at(files)
    show("pass@k, percent", passes)
    with Replay() as replay:
        majorities = majority_at(files, replay, chosen.effort)
        show("majority@k with random ties, percent", majorities)
        stops = stopping(files, replay, chosen.seeds)
    show("stopping at up to 32 samples; tokens relative to self-consistency@32, cancelled ones charged", stops)
    save(
        "reference",
        settings={
            "orders in the stopping table": f"{chosen.seeds} of 1,000 problems, {3 * chosen.seeds} of 300",
            "ties": "random",
            "concurrency": 32,
            "tokens a second a stream": 50,
        },
        targets=targets(passes, majorities, stops),
        load_before=load,
        pass_at=passes,
        majority_at=majorities,
        stopping=stops,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
