"""The roofline of a server's step against hand-computed numbers and a published measurement; room for caches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.core.errors import BadInput
from outthink.core.model_shape import ModelShape
from outthink.economics.gpus import GPUS, H200, find_gpu
from outthink.economics.hardware import Shape, step_seconds
from outthink.economics.roofline import RooflineStep, kv_capacity, roofline_notes, step_roofline

H100 = find_gpu("h100")
LLAMA = ModelShape(
    name="Llama-3-8B",
    layers=32,
    width=4096,
    heads=32,
    kv_heads=8,
    key=128,
    value=128,
    parameters=8_030_261_248,
    active=7_504_924_672,
    weight_bytes=16_060_522_496,
    input_bytes=1_050_673_152,
    full_layers=32,
)
LARGE = replace(
    LLAMA,
    name="Llama-3-70B",
    layers=80,
    width=8192,
    heads=64,
    parameters=70_553_706_496,
    active=69_503_033_344,
    weight_bytes=141_107_412_992,
    input_bytes=2_101_346_304,
    full_layers=80,
)
MIXTURE = replace(
    LLAMA,
    name="Mixtral-8x7B",
    parameters=46_702_792_704,
    active=12_748_853_248,
    weight_bytes=93_405_585_408,
    input_bytes=262_144_000,
    expert_bytes=90_194_313_216,
    experts=8,
    used=2,
)
WINDOWED = replace(LLAMA, full_layers=8, windowed_layers=24, window=1024)


def base(step: RooflineStep, tokens: float) -> float:
    """Linear between knots, the last slope beyond."""
    at, cost = np.array(step.base).T
    if tokens <= at[-1]:
        return float(np.interp(tokens, at, cost))
    return float(cost[-1] + (tokens - at[-1]) * (cost[-1] - cost[-2]) / (at[-1] - at[-2]))


def test_the_knee_is_where_arithmetic_takes_as_long_as_memory() -> None:
    (start, least), (knee, same), (_, twice) = step_roofline(LLAMA, H200).base
    assert (start, least, twice) == (0, same, pytest.approx(2 * same))
    assert knee == pytest.approx(206, abs=0.1)
    assert least == pytest.approx((16_060_522_496 - 1_050_673_152) / 4.8e12)
    eight = replace(LLAMA, weight_bytes=LLAMA.weight_bytes / 2, input_bytes=LLAMA.input_bytes / 2)
    assert step_roofline(eight, H200).base[1][0] == pytest.approx(103, abs=0.1)


# Llama-3.1-8B in bf16, ML.ENERGY's leaderboard, vLLM: batch and ms between tokens.
@pytest.mark.parametrize(("batch", "measured"), [(8, 7.3), (32, 8.9), (128, 16.5), (512, 47.4)])
def test_a_measured_step_takes_longer(batch: int, measured: float) -> None:
    step = step_roofline(LLAMA, H100)
    assert step.per_context == 131_072 / 3.35e12
    for context in (250, 500, 1000):
        least = 1000 * (base(step, batch) + step.per_context * batch * context)
        assert 0.25 * measured < least < 0.7 * measured


@given(tokens=st.floats(0, 5000), gpu=st.sampled_from(sorted(GPUS)), gpus=st.sampled_from([1, 2, 4, 8]))
def test_a_dense_step_is_the_roofline_exactly(tokens: float, gpu: str, gpus: int) -> None:
    step = step_roofline(LLAMA, GPUS[gpu], tensor_parallel=gpus, all_reduce=0.0)
    shape = Shape(parameters=LLAMA.active, bytes_per_parameter=2)
    ring = 2 * 32 * 2 * (gpus - 1) / gpus * tokens * 4096 * 2 / GPUS[gpu].interconnect
    assert base(step, tokens) == pytest.approx(step_seconds(GPUS[gpu], shape, tokens) / gpus + ring)


@given(tokens=st.floats(1, 2000))
def test_experts_come_in_one_after_the_other(tokens: float) -> None:
    step = step_roofline(MIXTURE, H100)
    exact = max(MIXTURE.read_bytes(tokens) / 3.35e12, 2 * MIXTURE.active * tokens / 989e12)
    assert base(step, tokens) == pytest.approx(exact, rel=0.01)
    costs = [seconds for _, seconds in step.base]
    assert costs == sorted(costs)


def test_all_reduces_wait_and_pass_bytes() -> None:
    alone, four = step_roofline(LARGE, H100), step_roofline(LARGE, H100, tensor_parallel=4, all_reduce=20e-6)
    ring = 2 * 80 * (20e-6 + 2 * 3 / 4 * 100 * 8192 * 2 / 450e9)
    assert base(four, 100) == pytest.approx(base(alone, 100) / 4 + ring)
    assert four.per_context == pytest.approx(alone.per_context / 4)
    assert (alone.gpu, four.gpu, four.model, four.measured) == ("H100-SXM", "4 x H100-SXM", "Llama-3-70B", False)
    assert len(roofline_notes()) == 1
    assert "all-reduces is modelled" in roofline_notes(4)[1]


def test_shares_of_the_data_sheet_and_overhead() -> None:
    whole = step_roofline(LLAMA, H100, mean_prompt=1000)
    step = step_roofline(LLAMA, H100, mean_prompt=1000, bandwidth_share=0.8, flops_share=0.5, overhead=0.002)
    assert base(step, 1) == pytest.approx(base(whole, 1) / 0.8 + 0.002)
    assert base(step, 4000) == pytest.approx(base(whole, 4000) / 0.5 + 0.002)
    assert step.per_context == pytest.approx(whole.per_context / 0.8)
    assert step.per_prefill == pytest.approx(whole.per_prefill / 0.5)
    assert step_roofline(LLAMA, H100, kv="fp8").per_context == whole.per_context / 2


def test_attention_of_a_prompt() -> None:
    prompt = 3000
    step = step_roofline(LLAMA, H100, mean_prompt=prompt)
    assert step.per_prefill * prompt == pytest.approx(32 * 2 * prompt**2 * 128 * 32 / 989e12), "2 s^2 d H a layer"
    assert step_roofline(LLAMA, H100).per_prefill == 0
    seen = sum(8 * at + 24 * min(at, 1024) for at in range(prompt))
    capped = step_roofline(WINDOWED, H100, mean_prompt=prompt)
    assert capped.per_prefill * prompt == pytest.approx(seen * 4 * 128 * 32 / 989e12, rel=0.002)
    short = step_roofline(WINDOWED, H100, mean_prompt=512)
    assert short.per_prefill == pytest.approx(step_roofline(LLAMA, H100, mean_prompt=512).per_prefill)


def test_a_window_is_weighed_by_bytes() -> None:
    assert WINDOWED.kv_size() == (32_768, 98_304)
    assert step_roofline(WINDOWED, H100).per_context == step_roofline(LLAMA, H100).per_context


def test_room_for_caches() -> None:
    room = kv_capacity(LLAMA, H100, workspace=2e9)
    assert room.bytes == pytest.approx(0.9 * 80e9 - 2e9 - 16_060_522_496)
    assert room.tokens == int(room.bytes / 131_072)
    assert kv_capacity(LLAMA, H100, workspace=2e9, kv="fp8").tokens == pytest.approx(2 * room.tokens, abs=1)
    pair = kv_capacity(LLAMA, H100, 2, workspace=2e9)
    assert pair.bytes == pytest.approx(2 * (0.9 * 80e9 - 2e9) - 16_060_522_496)


def test_heads_that_are_held_twice_take_room_twice() -> None:
    few = replace(LLAMA, kv_heads=4)
    four, eight = (kv_capacity(few, H100, gpus, workspace=0) for gpus in (4, 8))
    free = 0.9 * 80e9 - LLAMA.weight_bytes / 8
    assert eight.tokens == int(free / 16_384), "one head for each GPU"
    assert eight.bytes == pytest.approx(eight.tokens * 65_536, rel=1e-5), "counted once"
    assert eight.tokens < 1.1 * four.tokens


@pytest.mark.parametrize(
    ("gpu", "gpus", "line"),
    [
        (
            "h100",
            1,
            r"gpu: 'H100-SXM' is 70\.6 GB short of what Llama-3-70B needs \(142\.6 GB on each of its GPUs\); "
            r"use 4 GPUs or weights of 4 bits or B200 \(180 GB\)",
        ),
        ("h200", 1, r"15\.7 GB short .*; use 2 GPUs or weights of 8 bits or B200"),
        ("a10", 2, r"50\.5 GB short .* \(72\.1 GB on each of its GPUs\); use 8 GPUs or weights of 4 bits or H100-NVL"),
        ("l4", 1, r"121\.0 GB short .*; use 8 GPUs or B200"),
    ],
)
def test_weights_that_do_not_fit_say_what_would(gpu: str, gpus: int, line: str) -> None:
    with pytest.raises(BadInput, match=line):
        kv_capacity(LARGE, find_gpu(gpu), gpus)


def test_weights_that_nothing_holds() -> None:
    with pytest.raises(BadInput, match="use a smaller model"):
        kv_capacity(replace(LARGE, parameters=10**13, weight_bytes=2e13), H200, 8)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"tensor_parallel": 3}, "tensor_parallel: 3 does not divide the 32 heads; use one of 1, 2, 4, 8"),
        ({"kv": "int3"}, "kv: 'int3' is not known; use one of bf16, fp16, fp8"),
        ({"flops_share": 2.5}, r"flops_share: 2.5 is not above 0 and up to 2"),
        ({"bandwidth_share": 0.0}, r"bandwidth_share: 0.0 is not above 0"),
        ({"overhead": -1.0}, r"overhead: -1.0 is no number of 0 or more"),
        ({"mean_prompt": float("nan")}, "mean_prompt: nan is no number"),
    ],
)
def test_numbers_out_of_range_are_refused(change: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput, match=line):
        step_roofline(LLAMA, H100, **change)


@pytest.mark.parametrize("change", [{"utilisation": 1.5}, {"workspace": -1.0}, {"kv": "fp7"}, {"tensor_parallel": 5}])
def test_room_of_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(change))):
        kv_capacity(LLAMA, H100, **change)


def test_a_model_whose_heads_do_not_divide() -> None:
    with pytest.raises(BadInput, match=r"tensor_parallel: 2 does not divide the 9 heads; use one of 1$"):
        step_roofline(replace(LLAMA, heads=9, kv_heads=3), H100, tensor_parallel=2)
