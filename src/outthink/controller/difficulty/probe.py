"""A linear probe: what a hidden state at the end of a prompt says about the answer to come.

Knows: one layer's direction and its calibration. Does not know the model whose state it is, nor how it
was fitted. Plain Python: one dot product is too little work to pay for numpy's import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outthink.controller.router.model import sigmoid
from outthink.core.errors import BadInput


@dataclass(frozen=True, slots=True)
class Probe:
    """Probability that a sample of `model` is right, read off the state of `reader`.

    Args:
        reader: whose states it reads.
        layer: of the reader, 0 the embedding.
        direction, bias: the logit is their dot product with the state plus the bias; calibrated already.
        flops: of reading a prompt of the training up to this layer, on average.
    """

    model: str
    reader: str
    layer: int
    direction: tuple[float, ...]
    bias: float
    flops: float

    def right(self, state: Sequence[float]) -> float:
        """Expected share of right samples, 0 to 1; BadInput for a state of another width."""
        if len(state) != len(self.direction):
            raise BadInput(
                "state", len(state), f"does not fit the probe's {len(self.direction)}", f"read {self.reader}'s states"
            )
        return sigmoid(sum([a * b for a, b in zip(self.direction, state, strict=True)]) + self.bias)

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model,
            "reader": self.reader,
            "layer": self.layer,
            "direction": list(self.direction),
            "bias": self.bias,
            "flops": self.flops,
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Probe:
        """From plain values; BadInput for what is malformed."""
        try:
            direction = tuple(float(value) for value in values["direction"])
            numbers = int(values["layer"]), direction, float(values["bias"]), float(values["flops"])
            return cls(str(values["model"]), str(values["reader"]), *numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput("probe", type(error).__name__, f"is malformed ({error})", "fit it again") from None
