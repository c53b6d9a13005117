"""How many GPUs a workload needs: ceilings by memory, places and arithmetic, times at a load, money and power.

Knows the bounds of Nie, Si, Zhou (arXiv 2605.04595): M / (b E[g]) is a ceiling whatever the scheduler, and what is
below it by the largest request is stable under any that leaves no room idle. Does not know queueing below saturation,
shared prefixes between requests, or barriers between GPUs: the simulator knows the first, nothing here the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from outthink.core.errors import BadInput
from outthink.economics.capacity.footprint import Footprint
from outthink.economics.step_profile import StepProfile
from outthink.economics.workload import Workload

_SAMPLE = 20_000
"""Groups from which sensitivities are taken where there are more."""
ATTAINED = 0.9
"""Share of the requests that must meet a target of latency for a rate to count as goodput."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What one replica is, and what it costs.

    Args:
        profile: seconds of one iteration.
        memory: for the key-value cache, in bytes (in tokens where `full` is 1); None where nothing is known of it.
        full: bytes of the cache of one token in layers that keep all of it.
        windowed, window: bytes of one token in layers that keep the last `window` tokens.
        sequences: calls inside at once, None for no limit.
        batch_tokens: tokens computed in one iteration, None for no limit.
        gpus: that one replica takes (tensor parallelism).
        gpu_hour: dollars that one GPU costs in an hour, None where unknown.
        watts: board power of one GPU, None where unknown.
    """

    profile: StepProfile
    memory: float | None = None
    full: int = 1
    windowed: int = 0
    window: int = 0
    sequences: int | None = None
    batch_tokens: int | None = None
    gpus: int = 1
    gpu_hour: float | None = None
    watts: float | None = None

    def __post_init__(self) -> None:
        if self.memory is None and self.sequences is None:
            remedy = "give `kv_tokens`, `model` with `gpu`, or `max_sequences` for a server with slots"
            raise BadInput("kv_tokens", None, "is unknown, and so is how many calls fit", remedy)
        for name, value in (("max_sequences", self.sequences), ("kv_tokens", self.memory), ("gpu_hour", self.gpu_hour)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise BadInput(name, value, "is not a positive number", "give a number above 0, or leave it out")

    @property
    def bytes_a_token(self) -> int:
        """Of one token in all layers."""
        return self.full + self.windowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Targets of latency in seconds, None for none. Of several samples the answer is what they apply to.

    Args:
        ttft: from arrival to the first token; of a request of several calls to its answer.
        tpot: of each further token.
    """

    ttft: float | None = None
    tpot: float | None = None

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Read `ttft=0.5,tpot=0.05`. Raises BadInput for anything else."""
        values: dict[str, float] = {}
        for part in text.split(","):
            name, _, number = part.partition("=")
            try:
                values[name.strip()] = float(number)
            except ValueError:
                raise BadInput("--slo", text, "is not numeric", "give ttft=SECONDS,tpot=SECONDS") from None
        if set(values) - {"ttft", "tpot"} or not all(math.isfinite(value) and value > 0 for value in values.values()):
            raise BadInput("--slo", text, "is no target of latency", "give ttft=SECONDS,tpot=SECONDS, above 0")
        return cls(**values)


class Capacity:
    """What one replica can take of a workload.

    Args:
        workload: requests; their arrivals are not used.
        deployment: the replica.
    """

    def __init__(self, workload: Workload, deployment: Deployment) -> None:
        self.workload, self.deployment = workload.checked(), deployment
        window = deployment.window if deployment.windowed else 0
        self.footprint = footprint = Footprint.of(workload, deployment.profile.chunk, window)
        mean = footprint.mean
        held = deployment.full * footprint.held + deployment.windowed * footprint.held_windowed
        self.held = mean(held) / deployment.bytes_a_token
        self.lifetime, self.places, self.reserved = (
            mean(footprint.lifetime),
            mean(footprint.places),
            mean(footprint.reserved),
        )
        self.read, self.written = mean(footprint.read), mean(footprint.written)
        self.contexts = mean(footprint.contexts)
        if deployment.windowed:
            # Attention reads at most the window in a windowed layer: contexts count by what is held.
            self.contexts *= self.held * self.lifetime / max(1.0, mean(footprint.held) * self.lifetime)
        self._refuse_too_long()

    def _refuse_too_long(self) -> None:
        """BadInput where one request alone exceeds the memory."""
        largest = float(self.footprint.largest.max())
        if self.tokens is not None and largest > self.tokens:
            problem = f"holds less than the longest request of {largest:,.0f} tokens"
            raise BadInput("kv_tokens", f"{self.tokens:,.0f}", problem, "give more memory, or limit the lengths")

    @property
    def tokens(self) -> float | None:
        """Memory in tokens, as long as no window caps them."""
        if self.deployment.memory is None:
            return None
        return self.deployment.memory / self.deployment.bytes_a_token

    def step(self, batch: float) -> float:
        """Seconds of an iteration with so many calls inside, each as far as the mean call is."""
        share = batch / self.places
        contexts = share * self.contexts
        return float(self.deployment.profile.cost(share * self.written, contexts, share * self.read)) + (
            self.deployment.profile.per_sequence * (batch - share * self.written)
        )

    @cached_property
    def batches(self) -> dict[str, float]:
        """Calls inside at most, by what limits them."""
        deployment, limits = self.deployment, {}
        if self.tokens is not None:
            limits["memory"] = self.tokens * self.places / self.held
        if deployment.sequences is not None:
            limits["sequences"] = float(deployment.sequences)
        if deployment.batch_tokens is not None:
            limits["compute"] = deployment.batch_tokens * self.places / (self.read + self.written)
        return limits

    @property
    def batch(self) -> float:
        """Calls inside at saturation: the least that any limit leaves."""
        return min(self.batches.values())

    @property
    def binding(self) -> str:
        """What keeps the rate from rising: the lowest of the ceilings that each limit would be alone."""
        profile = self.deployment.profile
        floor = profile.base[0][1]
        computed = profile.slope * (self.read + self.written) + profile.per_prefill * self.read
        computed += profile.per_sequence * self.places
        rates = {"compute": 1 / computed if computed > 0 else math.inf}
        for name, batch in self.batches.items():
            step = floor + profile.per_context * self.contexts * batch / self.places
            if step > 0:  # where all of a step is paid by token, room alone limits nothing
                rates[name] = min(batch / self.places / step, rates.get(name, math.inf))
        return min(rates, key=lambda name: rates[name])

    @property
    def ceiling(self) -> float:
        """Requests a second that no scheduler exceeds."""
        return self.batch / (self.step(self.batch) * self.places)

    @property
    def reservation(self) -> float | None:
        """Requests a second if each had its whole length reserved for its whole life; None without a memory."""
        if self.tokens is None:
            return None
        by_memory = self.tokens / (self.step(self.batch) * self.reserved)
        return min(by_memory, self.ceiling)

    @property
    def delta(self) -> float:
        """The largest request over the memory: what the ceiling may be missed by."""
        return float(self.footprint.largest.max()) / self.tokens if self.tokens is not None else 0.0

    @property
    def effective(self) -> float:
        """Requests a second up to which any scheduler that leaves no room idle is stable."""
        return self.ceiling * (1 - self.delta)

    def batch_at(self, rate: float) -> float:
        """Calls inside at a rate (Little's law with the step's own time), at most those of saturation."""
        low, high = 0.0, self.batch
        if rate >= self.ceiling:
            return high
        for _ in range(60):
            middle = (low + high) / 2
            if middle / (self.step(middle) * self.places) < rate:
                low = middle
            else:
                high = middle
        return high

    def goodput(self, objective: Objective) -> float:
        """Requests a second up to which 90 per cent meet the targets; 0 where none does."""
        steps = self._steps_to_first()
        longest = math.inf
        if objective.tpot is not None:
            longest = objective.tpot
        if objective.ttft is not None:
            longest = min(longest, objective.ttft / (_quantile(steps, self.footprint.weight, ATTAINED) + 0.5))
        if self.step(1e-9) > longest:
            return 0.0
        low, high = 0.0, self.effective
        if self.step(self.batch_at(high)) <= longest:
            return high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.step(self.batch_at(middle)) <= longest else (low, middle)
        return low

    def _steps_to_first(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Iterations to the first token of each request; of several calls to the answer."""
        workload = self.workload
        calls = np.bincount(workload.group[workload.stage], minlength=len(workload))
        first = workload.starts[workload.first_stages]
        reading = np.maximum(1, -(-workload.prompt[first] // self.deployment.profile.chunk))
        return np.where(calls == 1, reading + 1.0, self.footprint.lifetime)

    def times(self, rate: float) -> dict[str, dict[str, float]]:
        """TTFT, TPOT and end-to-end seconds at a rate: what the steps take, waiting left out."""
        step = self.step(max(1.0, self.batch_at(rate)))  # the request that is timed is inside itself
        weight = self.footprint.weight

        def spread(steps: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, float]:
            mean = float(steps @ weight / weight.sum())
            quantiles = {f"p{share:.0%}"[:-1]: _quantile(steps, weight, share) for share in (0.5, 0.95)}
            return {"mean": mean * step} | {name: value * step for name, value in quantiles.items()}

        return {
            "ttft": spread(self._steps_to_first() + 0.5),
            "tpot": {"mean": step, "p50": step, "p95": step},
            "e2e": spread(self.footprint.lifetime + 0.5),
        }

    def sensitivity(self) -> dict[str, float]:
        """By how much the effective rate changes, as a factor, where one input is a fifth larger."""
        groups = np.arange(len(self.workload))
        if groups.size > _SAMPLE:
            groups = np.random.default_rng(0).integers(0, groups.size, _SAMPLE)
        few = replace(self.workload.take(groups), weight=self.workload.weight[groups])
        deployment, profile = self.deployment, self.deployment.profile
        slower = replace(
            profile,
            base=tuple((tokens, 1.2 * seconds) for tokens, seconds in profile.base),
            per_sequence=1.2 * profile.per_sequence,
            per_context=1.2 * profile.per_context,
            per_prefill=1.2 * profile.per_prefill,
        )
        longer = {name: np.ceil(1.2 * column).astype(np.int64) for name, column in _lengths(few).items()}
        prompts = replace(few, prompt=longer["prompt"], shared=longer["shared"], cached=longer["cached"])
        cases = {
            "prompt_tokens": (prompts, deployment),
            "output_tokens": (replace(few, output=longer["output"]), deployment),
            "step_seconds": (few, replace(deployment, profile=slower)),
        }
        if deployment.memory is not None:
            cases["kv_tokens"] = (few, replace(deployment, memory=1.2 * deployment.memory))
        if deployment.sequences is not None:
            cases["max_sequences"] = (few, replace(deployment, sequences=math.ceil(1.2 * deployment.sequences)))
        usual = Capacity(few, deployment).effective
        changed = {}
        for name, case in cases.items():
            try:
                changed[name] = Capacity(*case).effective / usual
            except BadInput:  # a fifth longer, the longest fits no more
                changed[name] = 0.0
        return changed


def _lengths(workload: Workload) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    return {
        "prompt": workload.prompt,
        "shared": workload.shared,
        "cached": workload.cached,
        "output": workload.output,
    }


def _quantile(
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
    weight: np.ndarray[tuple[int], np.dtype[np.float64]],
    share: float,
) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(reached, share * reached[-1], side="left")])
