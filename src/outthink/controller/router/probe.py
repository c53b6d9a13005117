"""A linear probe: what a hidden state at the end of a prompt says about the answer to come.

Knows: one dot product, in plain Python because numpy's import would cost more. Does not know how probes are fitted
(`outthink.evaluation.routing.probes`) or states read (`outthink.training.prompt_states`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outthink.controller.router.model import sigmoid
from outthink.controller.stored import JsonObject, plain_values
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

    def json(self) -> JsonObject:
        """Plain values."""
        return plain_values(self)

    @classmethod
    def of(cls, values: JsonObject) -> Probe:
        """From plain values; BadInput for what is malformed."""
        from outthink.validation import Border, read_values

        return read_values(cls, values, Border(source="probe", remedy="fit it again"))
