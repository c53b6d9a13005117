"""What one replica of a plan is: a model on a GPU by its data sheet, a measured profile, or bare numbers.

Knows flags and which of them go together. Does not know files of models, rooflines, or how a plan is made.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from outthink.cli.options import refuse_below_one
from outthink.core.errors import BadInput, need_known

if TYPE_CHECKING:
    from outthink.core.model_shape import ModelShape
    from outthink.economics.capacity.plan import Deployment
    from outthink.economics.gpus import Gpu
    from outthink.economics.step_profile import StepProfile
    from outthink.economics.workload import Workload


_BUDGET = 2048
"""Tokens of a step where a data sheet stands for the server: without a limit whole queues of prompts would be read at
once, in steps of seconds."""


def deployment_arguments(add: Callable[..., argparse.Action]) -> None:
    """Flags of `chosen_deployment`."""
    add("--model", metavar="CONFIG|GGUF", help="config.json, its folder, or a GGUF file: what is served")
    add("--gpu", metavar="NAME|FILE", help="its data sheet by name, or a JSON file with the same fields")
    add("--tensor-parallel", type=int, default=1, metavar="N", help="GPUs of one replica: 1, 2, 4 or 8 (default 1)")
    add("--kv-type", default="bf16", metavar="TYPE", help="numbers in the cache: bf16, fp16 or fp8 (default bf16)")
    add(
        "--memory-share",
        type=float,
        default=0.9,
        metavar="SHARE",
        help="of a GPU's memory for the server (default 0.9)",
    )
    add("--kv-tokens", type=float, metavar="N", help="tokens that the cache holds, as the server's log says")
    add("--max-sequences", type=int, metavar="N", help="requests inside at once; slots of llama.cpp")
    add("--max-batched-tokens", type=int, metavar="N", help="tokens that one step computes at most")
    add("--chunk", type=int, metavar="N", help="tokens of a prompt read in one step (default 512, or the profile's)")
    add("--step-seconds", type=float, metavar="S", help="of one step, whatever is in it")
    add("--speed", metavar="FILE", help="measured step profile")


def chosen_deployment(chosen: argparse.Namespace, workload: Workload) -> tuple[Deployment, list[str]]:
    """The replica for these flags, and what to know of its numbers. Raises BadInput before anything is computed."""
    from outthink.economics.capacity.plan import Deployment
    from outthink.economics.gpus import find_gpu
    from outthink.economics.roofline import KV_BYTES, ROOFLINE

    refuse_below_one(chosen, "max_sequences", "max_batched_tokens", "chunk", "tensor_parallel")
    need_known("--kv-type", chosen.kv_type, KV_BYTES)
    gpu = find_gpu(chosen.gpu) if chosen.gpu is not None else None
    model = _model(chosen, workload)
    profile, notes = _profile(chosen, workload, model, gpu)
    budget = chosen.max_batched_tokens
    if budget is None and profile.engine == ROOFLINE:
        budget = _BUDGET
        notes = [*notes, f"a step computes at most {_BUDGET:,} tokens, as vLLM does by default (--max-batched-tokens)"]
    # Without a model memory is counted in tokens.
    full, windowed, window = 1, 0, 0
    if model is not None:
        size = model.kv_size(KV_BYTES[chosen.kv_type])
        full, windowed, window = round(size.full), round(size.windowed), model.window or 0
    deployment = Deployment(
        profile=profile,
        memory=_memory(chosen, model, gpu, full + windowed),
        full=full,
        windowed=windowed,
        window=window,
        sequences=chosen.max_sequences,
        batch_tokens=budget,
        gpus=chosen.tensor_parallel,
        gpu_hour=chosen.gpu_hour,
        watts=gpu.power if gpu else None,
    )
    return deployment, notes


def _memory(chosen: argparse.Namespace, model: ModelShape | None, gpu: Gpu | None, bytes_a_token: int) -> float | None:
    """Bytes for the cache, or tokens where nothing is known of the model; None where not even these are known."""
    from outthink.economics.roofline import kv_capacity

    if chosen.kv_tokens is not None:
        if not (math.isfinite(chosen.kv_tokens) and chosen.kv_tokens > 0):
            raise BadInput("--kv-tokens", chosen.kv_tokens, "is not a positive number", "give the cache's tokens")
        return float(chosen.kv_tokens * bytes_a_token)
    if model is None or gpu is None:
        return None
    share, kv = chosen.memory_share, chosen.kv_type
    return kv_capacity(model, gpu, chosen.tensor_parallel, utilisation=share, kv=kv).bytes


def _model(chosen: argparse.Namespace, workload: Workload) -> ModelShape | None:
    """The shape of the model; BadInput for requests beyond its context."""
    if chosen.model is None:
        return None
    from outthink.engines.shapes import read_shape

    model = read_shape(chosen.model)
    longest = int((workload.prompt + workload.output).max())
    if model.context is not None and longest > model.context:
        problem = f"has a request of {longest:,} tokens, beyond the context of {model.name} ({model.context:,})"
        raise BadInput("workload", longest, problem, "limit the lengths, or plan for a model of a longer context")
    return model


def _profile(
    chosen: argparse.Namespace, workload: Workload, model: ModelShape | None, gpu: Gpu | None
) -> tuple[StepProfile, list[str]]:
    """Seconds of a step: measured, given, or by the roofline."""
    from outthink.economics.roofline import roofline_notes, step_roofline
    from outthink.economics.step_profile import StepProfile

    if chosen.step_seconds is not None and chosen.speed is not None:
        raise BadInput("--step-seconds", chosen.step_seconds, "does not go with --speed", "leave one of them out")
    chunk = {} if chosen.chunk is None else {"chunk": chosen.chunk}
    if chosen.speed is not None:
        return replace(StepProfile.load(chosen.speed), **chunk), []
    if chosen.step_seconds is not None:
        if not (math.isfinite(chosen.step_seconds) and chosen.step_seconds > 0):
            raise BadInput("--step-seconds", chosen.step_seconds, "is not a positive number", "give seconds")
        return StepProfile(base=((0.0, chosen.step_seconds),), **chunk), []
    if model is None or gpu is None:
        remedy = "give --step-seconds, --speed FILE, or --model with --gpu"
        raise BadInput("--step-seconds", None, "is missing, and nothing else says how long a step takes", remedy)
    mean_prompt = float((workload.prompt.astype(float) ** 2).sum() / workload.prompt.sum())
    step = step_roofline(
        model, gpu, tensor_parallel=chosen.tensor_parallel, kv=chosen.kv_type, mean_prompt=mean_prompt, **chunk
    )
    return StepProfile(**asdict(step)), roofline_notes(chosen.tensor_parallel)
