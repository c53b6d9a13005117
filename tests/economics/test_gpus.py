"""The table of GPUs: names as people type them, units, and GPUs of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outthink.core.errors import BadInput
from outthink.economics.gpus import GPUS, H200, find_gpu
from outthink.economics.hardware import free_branches

OWN = {
    "name": "X1",
    "memory": 64e9,
    "bandwidth": 2e12,
    "flops": 5e14,
    "power": 500,
    "interconnect": 1e11,
    "source": "me",
}


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("h100", "H100-SXM"),
        ("NVIDIA H100 SXM", "H100-SXM"),
        ("h100 pcie", "H100-PCIe"),
        ("H100NVL", "H100-NVL"),
        ("a100", "A100-80GB"),
        ("A100 40gb", "A100-40GB"),
        ("geforce rtx 4090", "RTX-4090"),
        ("AMD Instinct MI300X", "MI300X"),
        *((name, name) for name in GPUS),
        *((name.lower().replace("-", "_"), name) for name in GPUS),
    ],
)
def test_names_as_they_are_typed(typed: str, name: str) -> None:
    assert find_gpu(typed) is GPUS[name]


def test_rates_are_dense_and_in_units_of_one() -> None:
    assert (H200.memory, H200.bandwidth, H200.flops, H200.power) == (141e9, 4.8e12, 989e12, 700)
    assert H200.interconnect == 450e9, "in one direction"
    assert free_branches(H200) == pytest.approx(206, abs=0.1)
    for gpu in GPUS.values():
        # Kernels of any of them turn from memory to arithmetic between 80 and 420 operations a byte: what a number
        # with sparsity, or in another unit, would leave.
        assert 80 < gpu.flops / gpu.bandwidth < 420, gpu.name
        assert 0.2e12 < gpu.bandwidth < 10e12, gpu.name
        assert 20e9 < gpu.memory < 300e9, gpu.name
        assert 50 < gpu.power <= 1000, gpu.name
        assert gpu.interconnect < gpu.bandwidth / 3, gpu.name
        assert "data sheet" in gpu.source or "architecture" in gpu.source


def test_an_unknown_name_lists_the_nearest_first() -> None:
    with pytest.raises(BadInput, match=r"^gpu: 'h20' is not known; use one of H200, .*L4.*, or FILE\.json"):
        find_gpu("h20")


def test_a_gpu_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "x1.json"
    path.write_text(json.dumps(OWN))
    gpu = find_gpu(str(path))
    assert {name: getattr(gpu, name) for name in OWN} == OWN


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"memory": -1.0}, r"x1\.json: memory: -1\.0 is not a positive number; give what its data sheet says"),
        ({"flops": "989T"}, r"x1\.json: flops: '989T' is no number; give a number"),
        ({"power": True}, r"x1\.json: power: True is no number"),
        ({"bandwidth": float("nan")}, r"x1\.json: .* is no JSON"),
        ({"name": " "}, r"x1\.json: name: ' ' is empty; give the GPU a name"),
        ({"memroy": 3}, r"x1\.json: 'memroy' is not known; did you mean memory\?"),
        ({"source": ...}, r"x1\.json: source: None is missing; give it"),
    ],
)
def test_a_file_that_cannot_be_used_names_the_field(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    path = tmp_path / "x1.json"
    path.write_text(json.dumps({name: value for name, value in (OWN | change).items() if value is not ...}))
    with pytest.raises(BadInput, match=line):
        find_gpu(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"none\.json' cannot be read .*; give a JSON object with flops, bandwidth, name"
    ):
        find_gpu(str(tmp_path / "none.json"))
