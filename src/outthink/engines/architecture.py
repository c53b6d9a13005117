"""What a model's config.json says alone: how many weights it has, how they are stored, and which layers keep a cache.

Knows the counts of some families, which tests compare with the models' own, and the rules by which transformers gives
layers a sliding window. Does not know weights: where their files are at hand, weights.py reads those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from outthink.core.errors import BadInput

REMEDY = "give a GGUF file, a folder with safetensors or a config.json"
_DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1}
_METHODS = {"fp8": 8, "fbgemm_fp8": 8, "mxfp4": 4, "bitsandbytes": 8}
"""Bits of ways to quantise that do not say them."""
_CACHED = {"full_attention": False, "attention": False, "sliding_attention": True, "chunked_attention": True}
"""Kinds of layers that keep keys and values, and whether only those of a window."""
_UNCACHED = ("linear_attention", "mamba", "conv", "recurrent")
"""Kinds of layers that keep a state of one size instead, which is not counted."""
_STATES = ("mamba_", "ssm_", "linear_", "hybrid_", "attn_layer_", "layers_block_type", "block_types")
"""Begin the fields of models some of whose layers have no attention."""
_PATTERNS = {"gemma2": 2, "gpt_oss": 2, "cohere2": 4, "gemma3_text": 6}
"""Every how manieth layer of a family has no window, where the configuration does not say it."""
_GATED = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3_text")
_MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "llama4_text", "deepseek_v2", "deepseek_v3")
FAMILIES = (*_GATED, *_MIXTURES)
"""Whose weights are counted by a configuration alone."""
_LARGEST, _DEEPEST = 1 << 48, 10_000
"""No size is as large, no model has as many layers."""


class WeightCounts(NamedTuple):
    """Weights of a model: all, those of layers' matrices, of routed experts, of one vocabulary table; is it shared."""

    parameters: int
    matrices: int
    experts: int
    table: int
    tied: bool


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The language model's part of a configuration of transformers.

    Args:
        values: by field.
        source: what errors call it.
    """

    values: Mapping[str, Any]
    source: str

    @property
    def family(self) -> str:
        """Its `model_type`, empty where it has none."""
        return str(self.values.get("model_type") or "")

    def refusal(self, problem: str, remedy: str = "fetch it again") -> BadInput:
        """What is wrong with it."""
        return BadInput("model", self.source, problem, remedy)

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number of 0 or more. Raises BadInput where it is none, or missing without a default."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
            raise self.refusal(f"does not say {name}")
        return value

    def listed(self, name: str) -> list[Any]:
        """A list, empty where there is none."""
        value = self.values.get(name)
        return value if isinstance(value, list) else []

    @property
    def experts(self) -> tuple[int, int]:
        """How many experts a layer has, and how many of them a token uses; 0 where that is not said."""

        def said(*names: str) -> int:
            return next((value for name in names if isinstance(value := self.values.get(name), int) and value > 0), 0)

        # As Mixtral, Qwen, DeepSeek and their kin call them.
        number = said("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
        used = said("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k")
        return number, min(used, number)

    @property
    def plain_bytes(self) -> int | None:
        """Bytes of a weight that is not quantised; None for a type that is not known here."""
        named = self.values.get("dtype") or self.values.get("torch_dtype") or "bfloat16"
        return _DTYPES.get(str(named).removeprefix("torch."))

    @property
    def head(self) -> int:
        """Length of a head; of keys and values where they do not say their own."""
        return self.size("head_dim", self.size("hidden_size") // max(self.size("num_attention_heads"), 1))


def read_config(path: Path) -> ModelConfig:
    """A config.json; what it says of the text model (`text_config`) goes before what it says of all."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput("model", str(path), f"cannot be read ({error.strerror})", REMEDY) from None
    except ValueError as error:
        raise BadInput("model", str(path), f"is no JSON ({error})", "fetch it again") from None
    if not isinstance(values, dict):
        raise BadInput("model", str(path), "is no JSON object", "fetch it again")
    text = values.get("text_config")
    return ModelConfig({**values, **text} if isinstance(text, dict) else values, str(path))


def quantised_bits(config: ModelConfig) -> float | None:
    """Bits of a weight in a quantised matrix, None where nothing says them."""
    told = config.values.get("quantization_config")
    if not isinstance(told, dict):
        return None
    if told.get("load_in_4bit"):
        return 4
    groups = told.get("config_groups")
    parts = groups.values() if isinstance(groups, dict) else ()
    for row in (told, *(part.get("weights") for part in parts if isinstance(part, dict))):
        bits = row.get("bits", row.get("num_bits")) if isinstance(row, dict) else None
        if isinstance(bits, int) and 1 <= bits <= 8:
            return bits
    return _METHODS.get(str(told.get("quant_method")))


class StoredBytes(NamedTuple):
    """What weights take in memory: all, routed experts, an input embedding beside a separate output head."""

    size: float
    experts: float
    looked_up: float


def stored_bytes(config: ModelConfig, counts: WeightCounts) -> StoredBytes | None:
    """Bytes of weights, scales of quantised ones counted by group; None where their types are not known."""
    plain, bits, told = config.plain_bytes, quantised_bits(config), config.values.get("quantization_config")
    if plain is None or (bits is None and isinstance(told, dict)):
        return None
    looked_up = 0 if counts.tied else counts.table * plain
    if bits is None or not isinstance(told, dict):
        return StoredBytes(plain * counts.parameters, plain * counts.experts, looked_up)
    mxfp4 = told.get("quant_method") == "mxfp4"
    group = 32 if mxfp4 else told.get("group_size")
    if isinstance(group, int) and group > 0:  # a scale of 8 bits, or one of 16 and a zero point
        bits += (8 if mxfp4 else 16 + bits) / group
    packed = counts.experts if mxfp4 else counts.matrices
    return StoredBytes(packed * bits / 8 + (counts.parameters - packed) * plain, counts.experts * bits / 8, looked_up)


def attention_layers(config: ModelConfig) -> tuple[int, int, int | None]:
    """How many layers keep the keys and values of the whole context, how many those of a window, and the window."""
    values, family, layers = config.values, config.family, config.size("num_hidden_layers")
    if layers > _DEEPEST:
        raise config.refusal(f"says num_hidden_layers {layers}")
    chunk = config.size("attention_chunk_size", 0) if family.startswith("llama4") else 0
    window = chunk or config.size("sliding_window", 0)
    if values.get("use_sliding_window", not family.startswith("qwen")) is False:
        window = 0  # Qwen states a window that it does not use
    kinds = [str(kind) for kind in config.listed("layer_types")]
    pattern = values.get("sliding_window_pattern", values.get("_sliding_window_pattern")) or _PATTERNS.get(family)
    if len(kinds) == layers:
        if unknown := next((kind for kind in kinds if kind not in _CACHED and kind not in _UNCACHED), None):
            raise config.refusal(f"has layers of the type {unknown!r}, which is not known here", "take another model")
        capped = [_CACHED[kind] for kind in kinds if kind in _CACHED]
    elif state := next((name for name in values if name.startswith(_STATES) and values[name] is not None), None):
        problem = f"has layers without attention ({state}) and does not say which"
        raise config.refusal(problem, "add layer_types, one for each layer, or take another model")
    elif chunk:
        rotary = config.listed("no_rope_layers") or [(at + 1) % 4 for at in range(layers)]
        capped = [bool(rotates) for rotates in rotary]
    elif isinstance(pattern, int) and pattern > 0:
        capped = [(at + 1) % pattern != 0 for at in range(layers)]
    else:
        first = config.size("max_window_layers", 0) if family.startswith("qwen") else 0
        capped = [at >= first for at in range(layers)]
    capped = capped[: layers - config.size("num_kv_shared_layers", 0)]  # the last ones use an earlier layer's cache
    windowed = sum(capped) if window else 0
    return len(capped) - windowed, windowed, window if windowed else None


def count(config: ModelConfig) -> tuple[WeightCounts, int]:
    """Weights by a configuration alone, and how many are read per token.

    Raises BadInput for a family whose formula is not known here, and for one that lacks a size.
    """
    family = config.family
    if family not in FAMILIES:
        remedy = f"give its weights, or say them with --parameters; known are {', '.join(FAMILIES)}"
        named = config.values.get("model_type")
        raise config.refusal(f"is of the family {named!r}, whose count it does not tell alone", remedy)
    width, layers = config.size("hidden_size"), config.size("num_hidden_layers")
    number, used = config.experts
    sparse = _sparse_layers(config, layers) if family in _MIXTURES and number else 0
    inner = config.size("moe_intermediate_size", config.size("intermediate_size", 0))
    expert = 3 * width * inner + (2 * inner + width if family == "gpt_oss" else 0)
    beside = number * (width + (family == "gpt_oss"))  # a router
    if family == "qwen2_moe":
        beside += 3 * width * config.size("shared_expert_intermediate_size") + width
    shared = 1 if family == "llama4_text" else config.size("n_shared_experts", 0)
    dense = config.size("intermediate_size_mlp", config.size("intermediate_size", 0))
    plain = 3 * width * dense + (2 * dense + width if config.values.get("mlp_bias") else 0)
    experts = sparse * number * expert
    matrices = layers * _attention(config) + experts + sparse * (beside + shared * expert) + (layers - sparse) * plain
    norms = layers * width * (4 if family in ("gemma2", "gemma3_text") else 2) + width
    table = width * config.size("vocab_size")
    tied = bool(config.values.get("tie_word_embeddings", family.startswith("gemma")))
    counts = WeightCounts(matrices + norms + table * (1 if tied else 2), matrices, experts, table, tied)
    # The output head is read for every token; a tied embedding is that head, and an input embedding is looked up.
    return counts, matrices + norms + table - sparse * (number - used) * expert


def _sparse_layers(config: ModelConfig, layers: int) -> int:
    """How many layers have experts."""
    if config.family.startswith("deepseek"):
        return layers - config.size("first_k_dense_replace", 0)
    if config.family == "llama4_text":
        return layers // max(config.size("interleave_moe_layer_step", 1), 1)
    dense, step = config.listed("mlp_only_layers"), max(config.size("decoder_sparse_step", 1), 1)
    return sum(at not in dense and (at + 1) % step == 0 for at in range(layers))


def _attention(config: ModelConfig) -> int:
    """Weights of one layer's attention."""
    family, width, heads = config.family, config.size("hidden_size"), config.size("num_attention_heads")
    if latent := config.size("kv_lora_rank", 0):
        rotary, plain = config.size("qk_rope_head_dim"), config.size("qk_nope_head_dim")
        value, query = config.size("v_head_dim"), config.size("q_lora_rank", 0)
        queries = heads * (plain + rotary) * (query or width) + query * (width + 1)
        return queries + width * (latent + rotary) + latent + latent * heads * (plain + value) + heads * value * width
    of_a_head, keys = config.head, config.size("num_key_value_heads", heads)
    weights = width * of_a_head * (2 * heads + 2 * keys)
    if family.startswith("qwen2"):
        weights += of_a_head * (heads + 2 * keys)
    elif config.values.get("attention_bias", family == "gpt_oss"):
        weights += of_a_head * (heads + 2 * keys) + width
    if family.startswith(("qwen3", "gemma3")):
        weights += 2 * of_a_head  # a norm of queries and one of keys
    return weights + (heads if family == "gpt_oss" else 0)
