"""Which confidence-weighted votes help where, chosen by cross-validation.

Measures: accuracy of `confidence-vote` (weights exp(z / temperature), z the score standardised over
a problem's samples) against plain majority at 8, 16 and 32 samples, for the scores confidence,
logprob, tail, bottom and lowest, windows of 32 to 256 tokens and temperatures 0.5 to 8: held-out
gain of the setting that 5-fold cross-validation over problems chooses (plain majority is one of the
choices), and of the setting chosen on all other files. Intervals: 95 %, paired, over problems.
The votes are counted with numpy for speed; on a subset of problems every count is compared with
the real strategies. Does not measure tokens: all settings cost the same samples.
Needs the demo files and, for the larger part, the recorded sets in ../shared/data/traces or
$OUTTHINK_TRACES. Takes about two minutes on two idle cores.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from common import Table, demo, interval, load_average, parser, save, show, target, traces
from outthink.core.sample import Sample
from outthink.engines.traces import ReplayEngine, load
from outthink.evaluation.replay import rerun
from outthink.evaluation.rows import intervals
from outthink.strategies import Spec

SIZES = (8, 16, 32)
WINDOWS = (32, 64, 128, 256)
TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0)
SCORES = [("confidence", None), ("logprob", None), *product(("tail", "bottom", "lowest"), WINDOWS)]
FOLDS, PARTITIONS = 5, 10

Setting = tuple[str, int | None, float] | None
"""Score, window and temperature; None is plain majority."""
SETTINGS: list[Setting] = [None, *((name, window, t) for (name, window), t in product(SCORES, TEMPERATURES))]


@dataclass
class Pool:
    """The samples of one file as arrays over (problem, sample). Code -1 is an unreadable answer."""

    names: list[str]
    codes: np.ndarray
    right: np.ndarray
    tokens: np.ndarray
    scores: dict[tuple[str, int | None], np.ndarray]


def spec(setting: Setting, n: int) -> str:
    """The strategy as the command line writes it."""
    if setting is None:
        return f"self-consistency:n={n}"
    name, window, temperature = setting
    width = f",window={window}" if window else ""
    return f"confidence-vote:n={n},score={name},temperature={temperature:g}{width}"


def short(setting: Setting) -> str:
    """The same without what is always there."""
    if setting is None:
        return "majority"
    name, window, temperature = setting
    return f"{name}{window or ''} T={temperature:g}"


def value(sample: Sample, score: tuple[str, int | None]) -> float:
    """The score of a sample, as `outthink.strategies.scores` computes it."""
    name, window = score
    if name == "logprob":
        return float(sample.mean_logprob or 0.0)
    trace = sample.confidence
    if trace is None:
        return 0.0
    if window is None:
        return trace.mean()
    return float({"tail": trace.tail, "bottom": trace.bottom, "lowest": trace.lowest}[name](window))


def pool(path: Path) -> Pool:
    """Read a file; answers become numbers within their problem."""
    recorded = load(path)
    depth = recorded.depth
    shape = len(recorded.problems), depth
    codes = np.full(shape, -1)
    tokens = np.zeros(shape)
    right = np.zeros((shape[0], depth), dtype=bool)
    scores = {score: np.zeros(shape) for score in SCORES}
    for row, problem in enumerate(recorded.problems.values()):
        known: dict[str, int] = {}
        for column, sample in enumerate(problem.sampled[:depth]):
            tokens[row, column] = sample.tokens or 0
            for score, table in scores.items():
                table[row, column] = value(sample, score)
            if sample.answer is not None:
                code = codes[row, column] = known.setdefault(sample.answer, len(known))
                right[row, code] = sample.answer in problem.right
    return Pool(list(recorded.problems), codes, right, tokens, scores)


def orders(names: list[str], depth: int, seeds: int) -> np.ndarray:
    """The permutations of `ReplayEngine`: (problem, seed, sample)."""
    dealt = np.zeros((len(names), seeds, depth), dtype=np.int64)
    for row, name in enumerate(names):
        for seed in range(seeds):
            order = list(range(depth))
            random.Random(f"{seed}:{name}").shuffle(order)
            dealt[row, seed] = order
    return dealt


class Ballot:
    """Votes of every (problem, seed) at one size, ready to be counted under many weightings."""

    def __init__(self, pool: Pool, dealt: np.ndarray) -> None:
        problems, seeds, _n = dealt.shape
        self.rows = np.arange(problems)[:, None, None]
        self.dealt, self.pool, self.width = dealt, pool, pool.codes.shape[1]
        codes = pool.codes[self.rows, dealt]
        self.readable = codes >= 0
        self.place = (np.arange(problems * seeds).reshape(problems, seeds, 1) * self.width + codes)[self.readable]
        self.size = problems * seeds * self.width
        self.counts = np.maximum(self._sum(np.ones(len(self.place))), 1)
        conf = self._sum(self.pick(("confidence", None))[self.readable]) / self.counts
        length = self._sum(pool.tokens[self.rows, dealt][self.readable]) / self.counts
        self.rank = conf - 1e-9 * length  # ties: mean confidence, then the shorter mean length

    def pick(self, score: tuple[str, int | None]) -> np.ndarray:
        """A score of the dealt samples."""
        return self.pool.scores[score][self.rows, self.dealt]

    def standardised(self, score: tuple[str, int | None]) -> np.ndarray:
        """z over the readable samples of each (problem, seed), flat."""
        values = np.where(self.readable, self.pick(score), 0.0)
        number = np.maximum(self.readable.sum(axis=2, keepdims=True), 1)
        away = np.where(self.readable, values - values.sum(axis=2, keepdims=True) / number, 0.0)
        spread = np.sqrt((away**2).sum(axis=2, keepdims=True) / number)
        return (away / np.where(spread > 0, spread, 1.0))[self.readable]

    def accuracy(self, weights: np.ndarray) -> np.ndarray:
        """Mean over seeds for each problem."""
        total = self._sum(weights)
        tied = total >= total.max(axis=2, keepdims=True) * (1 - 1e-12)
        tied &= total > 0
        winner = np.where(tied, self.rank, -np.inf).argmax(axis=2)
        return (self.pool.right[self.rows[:, :, 0], winner] & tied.any(axis=2)).mean(axis=1)

    def _sum(self, weights: np.ndarray) -> np.ndarray:
        problems, seeds, _ = self.dealt.shape
        return np.bincount(self.place, weights, self.size).reshape(problems, seeds, self.width)


def measure(path: Path, seeds: int) -> tuple[np.ndarray, int]:
    """Accuracy (size, setting, problem), and how many of the checked ones differ from the real strategies."""
    samples = pool(path)
    dealt = orders(samples.names, samples.codes.shape[1], seeds)
    found = np.zeros((len(SIZES), len(SETTINGS), len(samples.names)))
    for i, n in enumerate(SIZES):
        ballot = Ballot(samples, dealt[:, :, :n])
        found[i, 0] = ballot.accuracy(np.ones(len(ballot.place)))
        place = 1
        for score in SCORES:
            z = ballot.standardised(score)
            for temperature in TEMPERATURES:
                found[i, place] = ballot.accuracy(np.exp(z / temperature))
                place += 1
    return found, _unequal(path, samples, dealt)


def _unequal(path: Path, samples: Pool, dealt: np.ndarray) -> int:
    """Compare numpy's votes with the real strategies: 40 problems, 2 orders, 16 samples, every setting."""
    few, seeds, n = slice(0, 40), 2, 16
    part = Pool(
        samples.names[few],
        samples.codes[few],
        samples.right[few],
        samples.tokens[few],
        {score: table[few] for score, table in samples.scores.items()},
    )
    ballot = Ballot(part, dealt[few, :seeds, :n])
    real = rerun(ReplayEngine(load(path)), [Spec.parse(spec(setting, n)) for setting in SETTINGS], part.names, seeds, 1)
    wrong = 0
    for setting, outcomes in zip(SETTINGS, real, strict=True):
        weights = np.ones(len(ballot.place))
        if setting is not None:
            weights = np.exp(ballot.standardised(setting[:2]) / setting[2])
        wrong += int((ballot.accuracy(weights) != outcomes.values[0]).sum())
    return wrong


def cross_validated(accuracy: np.ndarray) -> tuple[np.ndarray, str]:
    """Held-out accuracy of each problem (mean over partitions), and what was chosen how often."""
    problems = accuracy.shape[1]
    held = np.zeros(problems)
    chosen: Counter[str] = Counter()
    rng = np.random.default_rng(0)
    for _ in range(PARTITIONS):
        fold = rng.permutation(problems) % FOLDS
        for out in range(FOLDS):
            best = int(accuracy[:, fold != out].mean(axis=1).argmax())
            held[fold == out] += accuracy[best, fold == out] / PARTITIONS
            chosen[short(SETTINGS[best])] += 1
    name, times = chosen.most_common(1)[0]
    return held, f"{name} ({100 * times // (FOLDS * PARTITIONS)} %)"


def gain(values: np.ndarray, baseline: np.ndarray) -> tuple[float, float, float]:
    """Paired difference with its 95 % interval over problems."""
    difference = values - baseline
    low, high = intervals(difference[None, :])
    return float(difference.mean()), float(low[0]), float(high[0])


def choices(found: dict[str, np.ndarray]) -> Table:
    """Gain over majority of what cross-validation and what the other files choose."""
    rows = []
    for name, accuracy in found.items():
        for i, n in enumerate(SIZES):
            majority = accuracy[i, 0]
            held, chosen = cross_validated(accuracy[i])
            others = np.mean([table[i].mean(axis=1) for other, table in found.items() if other != name], axis=0)
            elsewhere = int(others.argmax())
            rows.append(
                {
                    "file": name,
                    "n": n,
                    "majority": round(100 * majority.mean(), 2),
                    "chosen most often": chosen,
                    "held-out gain": interval(*gain(held, majority)),
                    "chosen on other files": short(SETTINGS[elsewhere]),
                    "its gain": interval(*gain(accuracy[i, elsewhere], majority)),
                }
            )
    return rows


def by_score(found: dict[str, np.ndarray]) -> Table:
    """Gain of every score at temperature 1 and 32 samples; nothing is chosen, so nothing is held out."""
    rows = []
    for score in SCORES:
        place = SETTINGS.index((*score, 1.0))
        row: dict[str, Any] = {"score": f"{score[0]}{score[1] or ''}"}
        for name, accuracy in found.items():
            row[name] = interval(*gain(accuracy[-1, place], accuracy[-1, 0]))
        rows.append(row)
    return rows


def by_temperature(found: dict[str, np.ndarray]) -> Table:
    """The same for mean confidence at every temperature."""
    rows = []
    for temperature in TEMPERATURES:
        place = SETTINGS.index(("confidence", None, temperature))
        row: dict[str, Any] = {"temperature": temperature}
        for name, accuracy in found.items():
            row[name] = interval(*gain(accuracy[-1, place], accuracy[-1, 0]))
        rows.append(row)
    return rows


def targets(found: dict[str, np.ndarray], unequal: int) -> list[dict[str, Any]]:
    """The reference values of issue 3, and that numpy's votes are the strategies' votes."""
    lines = [target("numpy's votes against the real strategies", "0 different", unequal, unequal == 0)]
    place = SETTINGS.index(("confidence", None, 1.0))
    if "GSM8K 1.5B" in found:
        accuracy = 100 * found["GSM8K 1.5B"][-1, place].mean()
        met = abs(accuracy - 75.0) <= 0.3
        lines.append(target("exp(z) of mean chunk_conf, GSM8K 1.5B at 32", "75.0", round(accuracy, 2), met))
    if "MATH 0.5B" in found:
        centre, low, high = gain(found["MATH 0.5B"][-1, place], found["MATH 0.5B"][-1, 0])
        lines.append(target("the same, MATH 0.5B", "lowered", interval(centre, low, high), centre < 0))
    return lines


def main() -> int:
    """Measure every file in a process of its own, choose, print, write."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=20, help="orders of 1,000 problems (default 20)")
    chosen = options.parse_args()
    files = traces() | demo()
    load_before = load_average()
    seeds = [chosen.seeds if "GSM8K" in name else 2 * chosen.seeds for name in files]
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as workers:
        results = list(workers.map(measure, files.values(), seeds))
    found = {name: accuracy for name, (accuracy, _) in zip(files, results, strict=True)}
    chosen_table, scores, temperatures = choices(found), by_score(found), by_temperature(found)
    show("held-out gain over majority, points", chosen_table)
    show("gain at 32 samples and temperature 1, points", scores)
    show("gain of mean confidence at 32 samples by temperature, points", temperatures)
    save(
        "confidence",
        settings={"orders": dict(zip(files, seeds, strict=True)), "folds": FOLDS, "partitions": PARTITIONS},
        targets=targets(found, sum(unequal for _, unequal in results)),
        load_before=load_before,
        chosen=chosen_table,
        by_score=scores,
        by_temperature=temperatures,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
