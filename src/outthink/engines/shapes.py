"""The sizes of a model for capacity planning, from its files: a GGUF header, or a config.json with or without weights.

Knows where either kind says how a layer attends; weights.py says what the weights weigh. Layers whose heads differ
from layer to layer are refused rather than guessed.
"""

from __future__ import annotations

from pathlib import Path

from outthink.core.errors import BadInput
from outthink.core.model_shape import ModelShape
from outthink.engines.architecture import ModelConfig, attention_layers, read_config
from outthink.engines.embedded.gguf import GGUFInfo, read_gguf
from outthink.engines.weights import Weights, read_weights

_PATTERNS = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "cohere2": 4}
"""Every how manieth layer has no window where llama.cpp's code says it, not the file; other windows it leaves out."""
_UNEVEN = ("global_head_dim", "num_global_key_value_heads", "block_configs", "num_key_value_heads_per_layer")
"""Fields of models whose layers have caches of different widths."""


def read_shape(path: str | Path, parameters: int | None = None) -> ModelShape:
    """Sizes of a model: a `.gguf` file, a `config.json`, or a folder with one and perhaps its safetensors.

    Args:
        parameters: of a dense model whose configuration does not tell them alone and whose weights are not at hand.

    Raises BadInput for files that say too little, naming what is missing.
    """
    path = Path(path)
    config = path / "config.json" if path.is_dir() else path
    if config.suffix != ".json":
        return _of_gguf(read_gguf(path))
    read = read_config(config)
    if parameters is None:
        return _of_config(read, read_weights(path))
    size = None if read.plain_bytes is None else parameters * read.plain_bytes
    return _of_config(read, Weights(parameters, parameters, size, 0, 0))


def _of_config(config: ModelConfig, weights: Weights) -> ModelShape:
    if uneven := next((name for name in _UNEVEN if config.values.get(name) is not None), None):
        raise config.refusal(f"has layers of different widths ({uneven})", "take another model")
    full, windowed, window = attention_layers(config)
    heads, (experts, used) = config.size("num_attention_heads"), config.experts
    latent = config.size("kv_lora_rank", 0)
    rotary = config.size("qk_rope_head_dim") if latent else 0
    return ModelShape(
        name=_name(Path(config.source).resolve().parent),
        layers=config.size("num_hidden_layers"),
        width=config.size("hidden_size"),
        heads=heads,
        kv_heads=config.size("num_key_value_heads", heads),
        key=config.size("qk_nope_head_dim") + rotary if latent else config.head,
        value=config.size("v_head_dim") if latent else config.head,
        parameters=weights.elements,
        active=weights.parameters,
        weight_bytes=_known(weights, config.source),
        input_bytes=weights.input_size,
        expert_bytes=weights.expert_size,
        experts=experts,
        used=used,
        full_layers=full,
        windowed_layers=windowed,
        window=window,
        latent=latent + rotary,
        context=config.size("max_position_embeddings", 0) or None,
    )


def _of_gguf(info: GGUFInfo) -> ModelShape:
    source, sizes = str(info.path), info.sizes

    def size(key: str, default: int | None = None) -> int:
        value = sizes.get(key, default)
        if value is None:
            problem = f"does not say one {info.architecture}.{key} for all layers"
            raise BadInput("model", source, problem, "give its config.json, or another model")
        return value

    layers, width, heads = size("block_count"), size("embedding_length"), size("attention.head_count")
    if "ssm.state_size" in sizes:
        raise BadInput("model", source, "has layers without attention", "give its config.json, or another model")
    of_a_head, latent = width // max(heads, 1), size("attention.kv_lora_rank", 0)
    key, value = size("attention.key_length", of_a_head), size("attention.value_length", of_a_head)
    experts, used = size("expert_count", 0), size("expert_used_count", 0)
    cached = layers - size("attention.shared_kv_layers", 0)
    pattern = sizes.get("attention.sliding_window_pattern") or _PATTERNS.get(info.architecture, 0)
    window = size("attention.sliding_window", 0) if pattern else 0
    windowed = cached - cached // pattern if window else 0
    return ModelShape(
        name=info.path.stem,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=size("attention.head_count_kv", heads),
        key=size("attention.key_length_mla", key),
        value=size("attention.value_length_mla", value),
        parameters=info.elements,
        active=info.parameters,
        weight_bytes=_known(info, source),
        input_bytes=info.input_size,
        expert_bytes=info.expert_size,
        experts=experts,
        used=used if 0 < used <= experts else experts,
        full_layers=cached - windowed,
        windowed_layers=windowed,
        window=window if windowed else None,
        latent=latent + size("rope.dimension_count") if latent else 0,
        context=info.context,
    )


def _name(folder: Path) -> str:
    """Of a model's folder; the cache of the hub names the folder two above it."""
    if folder.parent.name == "snapshots":
        return folder.parents[1].name.removeprefix("models--").replace("--", "/")
    return folder.name


def _known(weights: Weights | GGUFInfo, source: str) -> float:
    """Bytes of all weights. Raises BadInput where some have a type of which nobody here knows the size."""
    if weights.size is None:
        remedy = "give its safetensors, or a config.json that says dtype and bits"
        raise BadInput("model", source, "has weights of a type that is not known here", remedy)
    return weights.size
