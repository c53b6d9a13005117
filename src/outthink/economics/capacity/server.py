"""The server behind a plan as its operator describes it: a model on a GPU, a measured profile, or bare numbers.

Knows which of these go together, and how they become one replica. Does not know whether flags or a configuration say
so, and reads no file of a model: who asks passes what does. Errors name fields as they stand here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from outthink.core.errors import BadInput, need_known
from outthink.core.model_shape import ModelShape
from outthink.core.request import need_amount
from outthink.economics.capacity.plan import Capacity, Deployment
from outthink.economics.capacity.report import UTILISATION, CapacityPlan
from outthink.economics.gpus import Gpu, find_gpu
from outthink.economics.roofline import KV_BYTES, ROOFLINE, kv_capacity, roofline_notes, step_roofline
from outthink.economics.step_profile import StepProfile
from outthink.economics.workload import Workload

_BUDGET = 2048
"""Tokens of a step where a data sheet stands for the server: without a limit whole queues of prompts would be read at
once, in steps of seconds."""
_COUNTS = ("gpus", "tensor_parallel", "max_sequences", "max_batched_tokens", "chunk")
_AMOUNTS = ("kv_tokens", "step_seconds", "gpu_hour")
_SHARES = ("memory_share", "utilisation")


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacitySettings:
    """The GPUs behind the proxy, for `outthink plan --config` and the headroom on the dashboard.

    Args:
        gpu: name of its data sheet, or a JSON file with the same fields.
        gpus: that serve the requests in all; left out, those of one replica.
        model: config.json, its folder, or a GGUF file: what is served.
        tensor_parallel: GPUs of one replica: 1, 2, 4 or 8.
        kv_type: numbers in the cache: bf16, fp16 or fp8.
        memory_share: of a GPU's memory for the server.
        kv_tokens: tokens that the cache holds, as the server's log says; left out, what model and gpu leave.
        max_sequences: requests inside at once; slots of llama.cpp.
        max_batched_tokens: tokens that one step computes at most.
        chunk: tokens of a prompt read in one step; left out, 512 or the profile's.
        step_seconds: of one step, whatever is in it.
        speed: file with a measured step profile.
        gpu_hour: dollars that one GPU costs in an hour.
        utilisation: share of the effective rate that is planned to be used.
    """

    gpu: str | None = None
    gpus: int | None = None
    model: Path | None = None
    tensor_parallel: int = 1
    kv_type: str = "bf16"
    memory_share: float = 0.9
    kv_tokens: float | None = None
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    chunk: int | None = None
    step_seconds: float | None = None
    speed: Path | None = None
    gpu_hour: float | None = None
    utilisation: float = UTILISATION

    def __post_init__(self) -> None:
        values = asdict(self)
        for name in _COUNTS:
            if values[name] is not None and values[name] < 1:
                raise BadInput(name, values[name], "is below 1", "give at least 1, or leave it out")
        for name in _AMOUNTS:
            if values[name] is not None:
                remedy = "give a number above 0, or leave it out"
                need_amount(name, values[name], "is not a positive number", remedy, zero=False)
        for name in _SHARES:
            if not 0 < values[name] <= 1:
                raise BadInput(name, values[name], "is not above 0 and up to 1", "give a share, 0.8 for 80 %")
        need_known("kv_type", self.kv_type, KV_BYTES)
        if self.step_seconds is not None and self.speed is not None:
            raise BadInput("step_seconds", self.step_seconds, "does not go with `speed`", "leave one of them out")
        if self.gpus is not None and self.gpus % self.tensor_parallel:
            problem = f"is no multiple of the {self.tensor_parallel} that a replica takes"
            raise BadInput("gpus", self.gpus, problem, "give whole replicas")

    def read(self, shape_of: Callable[[Path], ModelShape]) -> CapacityServer:
        """The files that are named, read. Raises BadInput for what cannot be planned with, whatever is asked for.

        Args:
            shape_of: reads the sizes of a model.
        """
        server = CapacityServer(
            self,
            None if self.gpu is None else find_gpu(self.gpu),
            None if self.model is None else shape_of(self.model),
            None if self.speed is None else StepProfile.load(self.speed),
        )
        server.deployment(Workload.of_calls([1], [1]))
        return server


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """What a load leaves of the GPUs that serve it.

    Args:
        rate: requests a second.
        limit: requests a second of all GPUs: stable below, whatever the scheduler.
        needed: GPUs that the rate needs at the planned utilisation.
        binding: what keeps the limit from rising: `memory`, `sequences` or `compute`.
    """

    rate: float
    limit: float
    needed: int
    binding: str

    @property
    def used(self) -> float:
        """Share of the limit."""
        return self.rate / self.limit if self.limit > 0 else math.inf


@dataclass(frozen=True, slots=True)
class CapacityServer:
    """Settings with what their files say."""

    settings: CapacitySettings
    gpu: Gpu | None
    model: ModelShape | None
    measured: StepProfile | None

    @property
    def gpus(self) -> int:
        """GPUs that serve the requests."""
        return self.settings.gpus or self.settings.tensor_parallel

    def __str__(self) -> str:
        kind = "GPU" if self.gpus == 1 else "GPUs"
        return f"{self.gpus} {kind if self.gpu is None else self.gpu.name}"

    def headroom(self, workload: Workload, rate: float) -> Headroom:
        """How near these requests, so many a second, bring the GPUs to their limit. Raises BadInput."""
        deployment, _ = self.deployment(workload)
        capacity = Capacity(workload, deployment)
        plan = CapacityPlan(capacity=capacity, rate=rate, utilisation=self.settings.utilisation, gpus=self.gpus)
        limit = capacity.effective * self.gpus / deployment.gpus
        return Headroom(rate=rate, limit=limit, needed=plan.replicas * deployment.gpus, binding=capacity.binding)

    def deployment(self, workload: Workload) -> tuple[Deployment, list[str]]:
        """One replica for these requests, and what to know of its numbers. Raises BadInput."""
        settings = self.settings
        self._refuse_beyond_context(workload)
        profile, notes = self._profile(workload)
        budget = settings.max_batched_tokens
        if budget is None and profile.engine == ROOFLINE:
            budget = _BUDGET
            notes.append(f"a step computes at most {_BUDGET:,} tokens, as vLLM does by default (`max_batched_tokens`)")
        # Without a model memory is counted in tokens.
        full, windowed, window = 1, 0, 0
        if self.model is not None:
            size = self.model.kv_size(KV_BYTES[settings.kv_type])
            full, windowed, window = round(size.full), round(size.windowed), self.model.window or 0
        deployment = Deployment(
            profile=profile,
            memory=self._memory(full + windowed),
            full=full,
            windowed=windowed,
            window=window,
            sequences=settings.max_sequences,
            batch_tokens=budget,
            gpus=settings.tensor_parallel,
            gpu_hour=settings.gpu_hour,
            watts=self.gpu.power if self.gpu else None,
        )
        return deployment, notes

    def _refuse_beyond_context(self, workload: Workload) -> None:
        longest, model = int((workload.prompt + workload.output).max()), self.model
        if model is not None and model.context is not None and longest > model.context:
            problem = f"has a request of {longest:,} tokens, beyond the context of {model.name} ({model.context:,})"
            raise BadInput("workload", longest, problem, "limit the lengths, or plan for a model of a longer context")

    def _memory(self, bytes_a_token: int) -> float | None:
        """Bytes for the cache, or tokens where nothing is known of the model; None where not even these are known."""
        settings = self.settings
        if settings.kv_tokens is not None:
            return settings.kv_tokens * bytes_a_token
        if self.model is None or self.gpu is None:
            return None
        share, kv = settings.memory_share, settings.kv_type
        return kv_capacity(self.model, self.gpu, settings.tensor_parallel, utilisation=share, kv=kv).bytes

    def _profile(self, workload: Workload) -> tuple[StepProfile, list[str]]:
        """Seconds of a step: measured, given, or by the roofline."""
        settings, notes = self.settings, list[str]()
        if self.measured is not None:
            profile = self.measured
        elif settings.step_seconds is not None:
            profile = StepProfile(base=((0.0, settings.step_seconds),))
        elif self.model is not None and self.gpu is not None:
            mean_prompt = float((workload.prompt.astype(float) ** 2).sum() / workload.prompt.sum())
            parallel, kv = settings.tensor_parallel, settings.kv_type
            # A prompt takes what a step has room for, as in vLLM.
            chunk = settings.max_batched_tokens or _BUDGET
            step = step_roofline(
                self.model, self.gpu, tensor_parallel=parallel, kv=kv, mean_prompt=mean_prompt, chunk=chunk
            )
            profile, notes = StepProfile(**asdict(step)), roofline_notes(parallel)
        else:
            remedy = "give `step_seconds`, `speed`, or `model` with `gpu`"
            raise BadInput("step_seconds", None, "is missing, and nothing else says how long a step takes", remedy)
        return profile if settings.chunk is None else replace(profile, chunk=settings.chunk), notes
