"""One accelerator and one model on it, as a roofline sees them; and test-time compute against a larger model.

Knows rates and sizes, and Snell et al.'s exchange (arXiv 2408.03314, section 7). Plans nothing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from outthink.core.errors import BadInput
from outthink.core.request import need_amount


def _check(name: str, value: Hardware | Shape, zero: tuple[str, ...] = ()) -> None:
    """Raise BadInput for a number that is not above 0, or not 0 where that is allowed."""
    for field, number in asdict(value).items():
        problem, remedy = "is not a positive number", "give what the device does"
        need_amount(f"{name} {field}", number, problem, remedy, zero=field in zero)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Rates that a device sustains.

    Args:
        flops: floating-point operations a second at the precision in use.
        bandwidth: bytes a second from memory.
    """

    flops: float
    bandwidth: float

    def __post_init__(self) -> None:
        _check("hardware", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model as decoding loads it.

    Args:
        parameters: weights read per token.
        bytes_per_parameter: 2 for bf16, 1 for fp8, 0.5 for 4 bits.
        kv_bytes: key-value cache of one token, in bytes; 0 leaves its traffic out.
    """

    parameters: float
    bytes_per_parameter: float = 2.0
    kv_bytes: float = 0.0

    def __post_init__(self) -> None:
        _check("model", self, zero=("kv_bytes",))

    @property
    def weight_bytes(self) -> float:
        """Bytes of weights that one step reads, whatever the number of branches."""
        return self.parameters * self.bytes_per_parameter


def step_seconds(hardware: Hardware, shape: Shape, tokens: float, context: float = 0.0, branches: float = 1.0) -> float:
    """One decode step: the slower of memory and arithmetic.

    Args:
        tokens: computed in this step over all branches, drafted ones included.
        context: tokens that each branch attends to.
        branches: whose caches are read.
    """
    # A bound from below: launches, sampling and the host add to every step (docs/latency.md).
    memory = (shape.weight_bytes + branches * context * shape.kv_bytes) / hardware.bandwidth
    return max(memory, 2 * shape.parameters * tokens / hardware.flops)


def free_branches(hardware: Hardware, bytes_per_parameter: float = 2.0) -> float:
    """Tokens a step up to which arithmetic hides behind reading the weights: FLOPS / BW x bytes / 2."""
    return hardware.flops / hardware.bandwidth * bytes_per_parameter / 2  # 206 for an H200 in bf16


def exchange_value(larger: float, ratio: float) -> float:
    """How many times its inference compute a model may spend to cost what one M times larger costs.

    Pre-training takes 6 N D_pre FLOPs and inference 2 N D_inf; both models are trained on the same
    tokens, so the small one has 6 (M - 1) N D_pre to spare: M + 3 (M - 1) / R.

    Args:
        larger: M, parameters of the large model over those of the small one; at least 1.
        ratio: R, inference tokens over pre-training tokens.
    """
    if not (math.isfinite(larger) and larger >= 1):
        raise BadInput("larger", larger, "is below 1", "give the ratio of parameters, large over small")
    if not (math.isfinite(ratio) and ratio > 0):
        raise BadInput("ratio", ratio, "is not positive", "give inference tokens over pre-training tokens")
    return larger + 3 * (larger - 1) / ratio
