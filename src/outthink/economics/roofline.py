"""What a step of a continuous-batching server costs at least, by the roofline, and how much cache a GPU has room for.

Knows a model's sizes, a GPU's data sheet and tensor parallelism. A step reads every weight once and multiplies each
token by those that it passes through, whichever takes longer; attention is a kernel of its own that reads the caches;
several GPUs add two all-reduces a layer. Every token of a prompt is charged the output head, which servers compute for
its last one only. Does not know what kernels, launches and schedulers really take: shares of the data sheet's rates
and seconds a step are arguments, 1 and 0 unless measured. With these, Llama-3.1-8B in bf16 on
an H100 with contexts of 1,000 tokens takes 0.66 of the measured 7.3 ms a step at batch 8, 0.58 of 16.5 ms at batch
128 and 0.59 of 47.4 ms at batch 512 (ML.ENERGY, February 2026).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from outthink.core.errors import BadInput, need_known
from outthink.core.model_shape import ModelShape
from outthink.core.request import need_amount
from outthink.economics.gpus import GPUS, Gpu
from outthink.economics.hardware import Hardware, Shape, step_seconds

ROOFLINE = "roofline"
"""What a profile by a data sheet names as its engine."""
KV_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0}
"""Bytes of one number in the cache, by its type."""
ALL_REDUCE = 10e-6
"""Seconds that an all-reduce takes beside its bytes: an assumption, to be measured."""
WORKSPACE = 1.5e9
"""Bytes of activations, graphs and libraries on a GPU: an assumption; a server's log says its own."""
_SPACING = 1.2
"""Ratio of tokens between two knots of a curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineStep:
    """Seconds of a step: base(tokens computed) + per_context x contexts + per_prefill x tokens of prompts.

    Args:
        base: (tokens, seconds), linear in between, the last slope beyond; all-reduces and overhead included.
        per_sequence: of a sequence in the step: 0, the roofline knows none.
        per_context: of a token in the caches of decoding sequences, where one in a windowed layer counts only while
            it is in the window: contexts are (full x context + windowed x min(context, window)) / (full + windowed)
            tokens, by the bytes that either kind of layer keeps.
        per_prefill: of a token of a prompt, for attention alone.
        chunk: tokens of a prompt that a sequence reads in one step.
        gpu, model, engine: what it is of; several GPUs as `4 x H100-SXM`.
        measured: False.
    """

    base: tuple[tuple[float, float], ...]
    per_sequence: float = 0.0
    per_context: float
    per_prefill: float
    chunk: int
    gpu: str
    model: str
    engine: str = ROOFLINE
    measured: bool = False


def step_roofline(
    model: ModelShape,
    gpu: Gpu,
    *,
    tensor_parallel: int = 1,
    kv: str = "bf16",
    bandwidth_share: float = 1.0,
    flops_share: float = 1.0,
    overhead: float = 0.0,
    all_reduce: float = ALL_REDUCE,
    mean_prompt: float = 0.0,
    chunk: int = 512,
) -> RooflineStep:
    """The least that a step costs, in the form of a step profile: `StepProfile(**asdict(step))`.

    Args:
        tensor_parallel: GPUs that share every layer.
        kv: type of the numbers in the cache, `bf16`, `fp16` or `fp8`.
        bandwidth_share, flops_share: what kernels reach of the data sheet's rates, above 0 up to 1; of that for bf16
            up to 2 where they multiply in fp8.
        overhead: seconds that every step takes beside.
        all_reduce: seconds of one all-reduce beside its bytes; there are two a layer.
        mean_prompt: E[s^2] / E[s] of prompts of s tokens, for what attention computes; 0 leaves that out.

    Raises BadInput for heads that the GPUs cannot share, an unknown type, and numbers out of range.
    """
    _check_split(model, tensor_parallel)
    for name, share, most in (("bandwidth_share", bandwidth_share, 1), ("flops_share", flops_share, 2)):
        if not 0 < share <= most:
            raise BadInput(name, share, f"is not above 0 and up to {most}", "give the share of the data sheet's rate")
    for name, amount in {"overhead": overhead, "all_reduce": all_reduce, "mean_prompt": mean_prompt}.items():
        need_amount(name, amount, "is no number of 0 or more", "give seconds, or tokens for mean_prompt")
    bandwidth, flops = gpu.bandwidth * bandwidth_share, gpu.flops * flops_share
    together = Hardware(bandwidth=bandwidth * tensor_parallel, flops=flops * tensor_parallel)
    # A ring passes 2 (t - 1) / t of the activations (2 bytes a number) through every GPU.
    passed = 2 * (tensor_parallel - 1) / tensor_parallel * model.width * 2 / gpu.interconnect
    waited = all_reduce if tensor_parallel > 1 else 0.0

    def seconds(tokens: float) -> float:
        """Of a step beside attention."""
        shape = Shape(parameters=model.active, bytes_per_parameter=model.read_bytes(tokens) / model.active)
        return step_seconds(together, shape, tokens) + 2 * model.layers * (waited + passed * tokens) + overhead

    cache = model.kv_size(_kv_bytes(kv), tensor_parallel)
    return RooflineStep(
        base=tuple((tokens, seconds(tokens)) for tokens in _knots(model, together)),
        per_context=(cache.full + cache.windowed) / bandwidth,
        per_prefill=_attention_flops(model, mean_prompt) / together.flops,
        chunk=chunk,
        gpu=gpu.name if tensor_parallel == 1 else f"{tensor_parallel} x {gpu.name}",
        model=model.name,
    )


def roofline_notes(tensor_parallel: int = 1) -> list[str]:
    """What a reader of roofline numbers has to know."""
    told = ["the step is a roofline by the data sheet, a bound from below: measure one to plan with"]
    if tensor_parallel > 1:
        told.append("the time of all-reduces is modelled, not measured")
    return told


def _knots(model: ModelShape, hardware: Hardware) -> list[float]:
    """Tokens at which a step's curve bends: the knee, and beside it where experts come in one after the other."""

    def margin(tokens: float) -> float:
        return 2 * model.active * tokens / hardware.flops - model.read_bytes(tokens) / hardware.bandwidth

    knee = _root(margin)
    if not model.experts:
        return [0.0, knee, 2 * knee]
    curve = [1.0]
    while curve[-1] * _SPACING < knee:
        curve.append(curve[-1] * _SPACING)
    return [0.0, *(tokens for tokens in curve if tokens < knee), knee, 2 * knee]


def _root(rising: Callable[[float], float]) -> float:
    """Where a function that is below 0 at 0 and above it later is 0."""
    high = 1.0
    while rising(high) < 0:
        high *= 2
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high


def _attention_flops(model: ModelShape, prompt: float) -> float:
    """Operations of attention for one token of a prompt: 2 (key + value) for each head and token attended to."""
    if not prompt:
        return 0.0
    seen = min(prompt, model.window or prompt)
    attended = model.full_layers * prompt / 2 + model.windowed_layers * (seen - seen * seen / (2 * prompt))
    return 2 * (model.key + model.value) * model.heads * attended


def _kv_bytes(kv: str) -> float:
    need_known("kv", kv, KV_BYTES)
    return KV_BYTES[kv]


def _check_split(model: ModelShape, gpus: int) -> None:
    """Raise BadInput where GPUs cannot share the heads."""
    if gpus not in _splits(model):
        possible = ", ".join(map(str, _splits(model)))
        raise BadInput("tensor_parallel", gpus, f"does not divide the {model.heads} heads", f"use one of {possible}")


def _splits(model: ModelShape) -> list[int]:
    return [gpus for gpus in (1, 2, 4, 8) if model.heads % gpus == 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class KVRoom:
    """Room for keys and values on all GPUs of one replica.

    Args:
        bytes: of it, where what several GPUs hold a copy of counts once.
        tokens: of contexts that fit, all of them within the window of windowed layers.
    """

    bytes: float
    tokens: int


def kv_capacity(
    model: ModelShape,
    gpu: Gpu,
    tensor_parallel: int = 1,
    *,
    utilisation: float = 0.9,
    workspace: float = WORKSPACE,
    kv: str = "bf16",
) -> KVRoom:
    """What is left for caches beside the weights.

    Args:
        utilisation: share of a GPU's memory that the server takes.
        workspace: bytes of each GPU for activations, graphs and libraries.

    Raises BadInput where nothing is left, with what is missing and what would do.
    """
    _check_split(model, tensor_parallel)
    if not 0 < utilisation <= 1:
        raise BadInput("utilisation", utilisation, "is not above 0 and up to 1", "give a share of the memory")
    need_amount("workspace", workspace, "is no number of 0 or more", "give bytes")
    width = _kv_bytes(kv)

    def room(gpus: int, memory: float, weights: float = model.weight_bytes) -> float:
        """Tokens that fit, below 1 where nothing does."""
        return (memory * utilisation - workspace - weights / gpus) / sum(model.kv_size(width, gpus))

    tokens = room(tensor_parallel, gpu.memory)
    if tokens >= 1:
        return KVRoom(bytes=tokens * sum(model.kv_size(width)), tokens=int(tokens))
    needed = model.weight_bytes / tensor_parallel + workspace
    parallel = (f"{gpus} GPUs" for gpus in _splits(model) if gpus > tensor_parallel and room(gpus, gpu.memory) >= 1)
    lighter = ((bits, model.parameters * bits / 8) for bits in (8, 4))
    fewer = (
        f"weights of {bits} bits"
        for bits, size in lighter
        if size < model.weight_bytes and room(tensor_parallel, gpu.memory, size) >= 1
    )
    larger = sorted((each.memory, name) for name, each in GPUS.items() if room(tensor_parallel, each.memory) >= 1)
    ways = [next(parallel, None), next(fewer, None), *(f"{name} ({size / 1e9:g} GB)" for size, name in larger[:1])]
    short = needed - gpu.memory * utilisation
    problem = f"is {short / 1e9:.1f} GB short of what {model.name} needs ({needed / 1e9:.1f} GB on each of its GPUs)"
    remedy = f"use {' or '.join(way for way in ways if way)}" if any(ways) else "use a smaller model"
    raise BadInput("gpu", gpu.name, problem, remedy)
