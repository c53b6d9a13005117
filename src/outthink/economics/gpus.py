"""GPUs by name: memory, rates and power as their makers' data sheets say them, and any other from a JSON file.

Knows dense bf16 rates (data sheets print twice as much, with structured sparsity) and which variant a short name
means: `h100` is the SXM board, `a100` the SXM board of 80 GB. Does not know what kernels reach, nor prices.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from difflib import SequenceMatcher
from pathlib import Path
from typing import ClassVar

from outthink.core.errors import BadInput
from outthink.core.request import need_amount
from outthink.economics.hardware import Hardware


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu(Hardware):
    """One GPU by its data sheet.

    Args:
        name: what it is called here.
        flops: dense bf16 operations a second, accumulated in fp32.
        bandwidth: bytes a second from memory.
        memory: bytes, a GB of the data sheet as 10^9; drivers show 0 to 7 % more (an H200 150.8e9 for its 141 GB).
        power: W of the board at its limit.
        interconnect: bytes a second to other GPUs in one direction, half of the sum that data sheets print. Bridges
            of PCIe boards join two or four GPUs only; without any it is PCIe.
        source: where the numbers stand.
    """

    name: str
    memory: float
    power: float
    interconnect: float
    source: str
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise BadInput("name", self.name, "is empty", "give the GPU a name")
        for field, value in asdict(self).items():
            if field not in ("name", "source"):
                need_amount(field, value, "is not a positive number", "give what its data sheet says", zero=False)


def _row(name: str, memory: float, bandwidth: float, flops: float, power: float, link: float, source: str) -> Gpu:
    """A row in the data sheet's units: GB, GB/s, dense TFLOP/s, W, GB/s in both directions together."""
    return Gpu(
        name=name,
        memory=memory * 1e9,
        bandwidth=bandwidth * 1e9,
        flops=flops * 1e12,
        power=power,
        interconnect=link / 2 * 1e9,
        source=source,
    )


GPUS = {
    gpu.name: gpu
    for gpu in (
        _row("A10", 24, 600, 125, 150, 64, "NVIDIA A10 data sheet; PCIe 4.0"),
        _row("A100-40GB", 40, 1555, 312, 400, 600, "NVIDIA A100 data sheet, SXM4 40 GB"),
        _row("A100-80GB", 80, 2039, 312, 400, 600, "NVIDIA A100 data sheet, SXM4 80 GB"),
        _row("L4", 24, 300, 121, 72, 64, "NVIDIA L4 data sheet (242 with sparsity); PCIe 4.0"),
        _row("L40S", 48, 864, 362.05, 350, 64, "NVIDIA L40S data sheet; PCIe 4.0"),
        _row("H100-SXM", 80, 3350, 989, 700, 900, "NVIDIA H100 data sheet, SXM5 (1,979 with sparsity)"),
        _row("H100-PCIe", 80, 2000, 756, 350, 600, "NVIDIA H100 data sheet, PCIe (1,513 with sparsity); NVLink bridge"),
        _row("H100-NVL", 94, 3900, 835, 400, 600, "NVIDIA H100 data sheet, NVL (1,671 with sparsity); NVLink bridge"),
        _row("H200", 141, 4800, 989, 700, 900, "NVIDIA H200 data sheet, SXM (1,979 with sparsity)"),
        _row(
            "B200", 180, 8000, 2250, 1000, 1800, "NVIDIA HGX and DGX B200 data sheets, a GPU of 8 (4,500 with sparsity)"
        ),
        _row("RTX-4090", 24, 1008, 165.2, 450, 64, "NVIDIA Ada GPU architecture, appendix; PCIe 4.0, through the host"),
        _row("MI300X", 192, 5300, 1307.4, 750, 896, "AMD Instinct MI300X data sheet; 7 Infinity Fabric links"),
        _row("MI325X", 256, 6000, 1307.4, 1000, 896, "AMD Instinct MI325X data sheet; 7 Infinity Fabric links"),
    )
}
"""By name; each row says its source."""

_SHORT = {"h100": "H100-SXM", "a100": "A100-80GB", "4090": "RTX-4090", "h100sxm5": "H100-SXM", "a100sxm": "A100-80GB"}
_MAKER = re.compile(r"^(?:nvidia|amd|instinct|geforce)+|[^a-z0-9]")

H200 = GPUS["H200"]
"""Dense bf16 and HBM3e of one NVIDIA H200, from its data sheet; real kernels reach less."""


def find_gpu(name: str) -> Gpu:
    """A GPU of the table, or of a JSON file (a name that ends in `.json`) with the fields of `Gpu` in its units.

    Case, spaces and hyphens do not count. Raises BadInput for an unknown name, with the nearest known ones first,
    and for a file that cannot be used.
    """
    if name.lower().endswith(".json"):
        return _of_file(Path(name))
    asked = _plain(name)
    known = {_plain(each): each for each in GPUS} | _SHORT
    if asked in known:
        return GPUS[known[asked]]
    near = sorted(GPUS, key=lambda each: -SequenceMatcher(None, asked, _plain(each)).ratio())
    raise BadInput("gpu", name, "is not known", f"use one of {', '.join(near)}, or FILE.json with its numbers")


def _plain(name: str) -> str:
    return _MAKER.sub("", re.sub(r"[^a-z0-9]", "", name.lower()))


def _of_file(path: Path) -> Gpu:
    from outthink.validation import Border, read_json

    remedy = f"give a JSON object with {', '.join(each.name for each in fields(Gpu))}"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadInput("gpu", str(path), f"cannot be read ({error.strerror})", remedy) from None
    return read_json(Gpu, text, Border(source=str(path)))
