"""How many weights are read for each token: from headers of files, and from configurations of known families."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from outthink.core.errors import BadInput
from outthink.engines.architecture import ModelConfig
from outthink.engines.weights import count_by_config, read_weights

LLAMA = {"model_type": "llama", "tie_word_embeddings": True, "vocab_size": 49152}
QWEN = {"model_type": "qwen2", "tie_word_embeddings": True, "vocab_size": 151936, "num_key_value_heads": 2}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SMALL |= {"intermediate_size": 128, "vocab_size": 512}


def sized(width: int, layers: int, heads: int, inner: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
    }


# The last six were counted on models that transformers 5 builds from these configurations.
@pytest.mark.parametrize(
    ("config", "count"),
    [
        (LLAMA | sized(576, 30, 9, 1536) | {"num_key_value_heads": 3}, 134_515_008),
        (QWEN | sized(896, 24, 14, 4864), 494_032_768),
        (QWEN | sized(1536, 28, 12, 8960), 1_543_714_304),
        (SMALL | {"model_type": "llama", "attention_bias": True, "mlp_bias": True}, 107_840),
        (SMALL | {"model_type": "mistral", "head_dim": 32}, 131_392),
        (SMALL | {"model_type": "qwen3", "head_dim": 32}, 131_520),
        (SMALL | {"model_type": "qwen3", "head_dim": 32, "attention_bias": True}, 132_160),
        (SMALL | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}, 156_992),
        (
            SMALL
            | {"model_type": "qwen3_moe", "head_dim": 32, "moe_intermediate_size": 32}
            | {"num_experts": 16, "num_experts_per_tok": 4},
            133_568,
        ),
    ],
)
def test_a_configuration_of_a_known_family_says_everything(tmp_path: Path, config: dict[str, Any], count: int) -> None:
    assert count_by_config(ModelConfig(config, "config.json")).parameters == count
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_weights(tmp_path).parameters == read_weights(tmp_path / "config.json").parameters == count


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"model_type": "gpt5"}, "is of the family 'gpt5', whose count it does not tell alone; .* say them with --par"),
        ({}, "is of the family None"),
        ({"model_type": "llama"}, "does not say hidden_size"),
        (SMALL | {"model_type": "llama", "num_hidden_layers": True}, "does not say num_hidden_layers"),
    ],
)
def test_what_a_configuration_does_not_tell_is_no_guess(config: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput, match=line):
        count_by_config(ModelConfig(config, "config.json"))


def safetensors(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> Path:
    header = {"__metadata__": {"format": "pt"}}
    header |= {name: {"dtype": kind, "shape": shape, "data_offsets": [0, 0]} for name, (kind, shape) in tensors.items()}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


EMBEDDING, HEAD = {"model.embed_tokens.weight": ("BF16", [100, 8])}, {"lm_head.weight": ("BF16", [100, 8])}
LAYER = {"model.layers.0.mlp.up_proj.weight": ("BF16", [32, 8]), "model.rotary.inv_freq": ("F32", [4])}


def test_an_input_embedding_beside_an_output_head_is_not_read(tmp_path: Path) -> None:
    assert read_weights(safetensors(tmp_path / "tied.safetensors", EMBEDDING | LAYER)).parameters == 800 + 256
    separate = read_weights(safetensors(tmp_path / "apart.safetensors", EMBEDDING | LAYER | HEAD))
    assert (separate.parameters, separate.elements) == (800 + 256, 1600 + 256)
    assert (separate.size, separate.input_size) == (2 * (1600 + 256) + 4 * 4, 1600), "beside weights, a table of 4"
    assert read_weights(tmp_path / "tied.safetensors").input_size == 0, "read as the head"
    odd = safetensors(tmp_path / "odd.safetensors", LAYER | {"model.norm.weight": ("F3", [8])})
    assert read_weights(odd).size is None, "of a type that nobody knows"


def test_several_files_of_a_folder_count_together(tmp_path: Path) -> None:
    safetensors(tmp_path / "model-1.safetensors", EMBEDDING)
    safetensors(tmp_path / "model-2.safetensors", LAYER)
    assert read_weights(tmp_path).parameters == 800 + 256


def test_of_experts_only_the_used_ones_count(tmp_path: Path) -> None:
    experts = {f"model.layers.0.mlp.experts.{at}.up_proj.weight": ("BF16", [4, 8]) for at in range(8)}
    shared = {"model.layers.0.mlp.shared_expert.up_proj.weight": ("BF16", [4, 8])}
    safetensors(tmp_path / "model.safetensors", EMBEDDING | experts | shared)
    with pytest.raises(BadInput, match=r"no config\.json says how many of them are used; put its config\.json beside"):
        read_weights(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"num_experts": 8, "num_experts_per_tok": 2}))
    weights = read_weights(tmp_path)
    assert (weights.parameters, weights.elements) == (800 + 32 + 2 * 32, 800 + 32 + 8 * 32)
    assert (weights.size, weights.expert_size) == (2 * (800 + 32 + 8 * 32), 2 * 8 * 32)


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        (
            {"l.up.qweight": ("I32", [4, 32]), "l.up.scales": ("F16", [1, 32]), "l.up.qzeros": ("I32", [1, 4])},
            {"quant_method": "gptq", "bits": 4},
        ),
        (
            {"l.up.weight_packed": ("I32", [32, 4]), "l.up.weight_scale": ("BF16", [32, 1])},
            {"config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
        ),
        (
            {"l.up.weight": ("U8", [512, 1]), "l.up.weight.absmax": ("F32", [16])},
            {"load_in_4bit": True},
        ),
        ({"l.up.weight": ("F8_E4M3", [32, 32]), "l.up.weight_scale_inv": ("F32", [1, 1])}, {"quant_method": "fp8"}),
        ({"l.up_blocks": ("U8", [32, 16]), "l.up_scales": ("U8", [32])}, {"quant_method": "mxfp4"}),
    ],
)
def test_packed_weights_count_unpacked(
    tmp_path: Path, tensors: dict[str, tuple[str, list[int]]], config: dict[str, Any]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config}))
    safetensors(tmp_path / "model.safetensors", tensors)
    assert read_weights(tmp_path).parameters == 32 * 32


@pytest.mark.parametrize(
    "content", [b"", b"\x08", struct.pack("<Q", 1 << 60), struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 3) + b"{,}"]
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="is a damaged safetensors file") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no weights and no config\.json"):
        read_weights(tmp_path)
