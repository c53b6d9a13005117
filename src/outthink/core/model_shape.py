"""A transformer as capacity planning sees it: what its weights weigh, which of them a step reads, and its cache.

Knows sizes. Does not know the files that they were read from, nor any GPU.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

from outthink.core.errors import BadInput
from outthink.core.request import need_amount

_POSITIVE = ("layers", "width", "heads", "kv_heads", "key", "value", "parameters", "active", "weight_bytes")


class KVSize(NamedTuple):
    """Bytes that a token's keys and values take.

    Args:
        full: in the layers that attend to the whole context.
        windowed: in those that keep no more than the last `window` tokens.
    """

    full: float
    windowed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes of a transformer.

    Args:
        name: what messages call it.
        layers: all blocks, those without attention included.
        width: of the residual stream.
        heads, kv_heads: of attention.
        key, value: lengths of a head's key and value.
        parameters: all of them.
        active: those read per token (docs/contracts.md, Counting): without the input embedding where it is stored
            apart from the output head, of experts those that a token passes through.
        weight_bytes: of all weights in memory.
        input_bytes: of an input embedding that is only looked up; 0 where it is the output head, too.
        expert_bytes: of all routed experts.
        experts, used: of a layer, and for one token; 0 for a dense model.
        full_layers, windowed_layers: layers with a cache. Layers with linear attention or a state have none here.
        window: tokens that a windowed layer keeps; None where there is none.
        latent: numbers that a layer caches for a token with multi-head latent attention, 0 for heads.
        context: tokens that the model was made for, None where that is not said.
    """

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    key: int
    value: int
    parameters: int
    active: int
    weight_bytes: float
    full_layers: int
    input_bytes: float = 0.0
    expert_bytes: float = 0.0
    experts: int = 0
    used: int = 0
    windowed_layers: int = 0
    window: int | None = None
    latent: int = 0
    context: int | None = None

    def __post_init__(self) -> None:
        for field, value in asdict(self).items():
            if field in _POSITIVE:
                need_amount(f"model {field}", value, "is not a positive number", "take a whole model", zero=False)
        if self.full_layers + self.windowed_layers < 1:
            raise BadInput("model", self.name, "has no layer with attention", "give a transformer")
        if self.experts and not 0 < self.used <= self.experts:
            raise BadInput("model used", self.used, f"is none to {self.experts} experts", "say how many a token uses")
        if self.windowed_layers and not self.window:
            raise BadInput("model window", self.window, "is no number of tokens", "give the window of its layers")

    def kv_size(self, number: float = 2.0, gpus: int = 1) -> KVSize:
        """What one GPU holds of a token's keys and values.

        Args:
            number: bytes of one number: 2 for bf16, 1 for fp8.
            gpus: that share the heads; each holds whole heads, so fewer heads than GPUs are held several times, and
                a latent is held by all.
        """
        of_a_layer = number * (self.latent or -(-self.kv_heads // gpus) * (self.key + self.value))
        return KVSize(self.full_layers * of_a_layer, self.windowed_layers * of_a_layer)

    def read_bytes(self, tokens: float) -> float:
        """Bytes of weights that a step of so many tokens reads.

        Of E experts of which a token uses k, E (1 - (1 - k/E)^tokens) are expected to be used by any, where routing
        is even and tokens choose apart.
        """
        unused = (1 - self.used / self.experts) ** tokens if self.experts else 0.0
        return self.weight_bytes - self.input_bytes - self.expert_bytes * unused
