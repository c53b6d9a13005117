"""Sizes of models by their configurations and headers, compared with what is published of them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from embedded_files import F32, MODEL, Tensor, gguf
from hypothesis import given
from hypothesis import strategies as st

from outthink.core.errors import BadInput
from outthink.core.model_shape import ModelShape
from outthink.engines.shapes import read_shape
from support import model_configs as known

SMALL = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
SMALL |= {"intermediate_size": 128, "vocab_size": 512}


def shape_of(folder: Path, config: dict[str, Any], **more: Any) -> ModelShape:
    (folder / "config.json").write_text(json.dumps(config | more))
    return read_shape(folder)


# Parameters in billions as published (of Gemma 3 without its vision tower, of DeepSeek-V3 without the layer that
# predicts further tokens), those read per token, and bytes of a token's cache in full and in windowed layers.
@pytest.mark.parametrize(
    ("config", "billions", "active", "full", "windowed", "window"),
    [
        (known.LLAMA_3_8B, 8.03, 7.5, 131_072, 0, None),
        (known.LLAMA_3_70B, 70.55, 69.5, 327_680, 0, None),
        (known.MISTRAL_7B, 7.24, 7.11, 0, 131_072, 4096),
        (known.GEMMA_2_9B, 9.24, 9.24, 172_032, 172_032, 4096),
        (known.GEMMA_3_27B, 27.0, 27.0, 81_920, 425_984, 1024),
        (known.QWEN_2_5_HALF_B, 0.494, 0.494, 12_288, 0, None),
        (known.MIXTRAL_8X7B, 46.7, 12.75, 131_072, 0, None),
        (known.QWEN_3_30B, 30.53, 3.04, 98_304, 0, None),
        (known.DEEPSEEK_V3, 671.0, 36.6, 70_272, 0, None),
        (known.GPT_OSS_20B, 20.91, 3.61, 24_576, 24_576, 128),
    ],
)
def test_published_models(
    tmp_path: Path,
    config: dict[str, Any],
    billions: float,
    active: float,
    full: int,
    windowed: int,
    window: int | None,
) -> None:
    shape = shape_of(tmp_path, config)
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.002)
    assert shape.active / 1e9 == pytest.approx(active, rel=0.01)
    assert shape.kv_size() == (full, windowed)
    assert shape.kv_size(1.0) == (full / 2, windowed / 2)
    assert shape.window == window


def test_an_input_embedding_is_held_and_not_read(tmp_path: Path) -> None:
    apart, tied = shape_of(tmp_path, known.LLAMA_3_8B), shape_of(tmp_path, known.GEMMA_2_9B)
    assert (apart.input_bytes, tied.input_bytes) == (2 * 4096 * 128_256, 0)


def test_bytes_of_weights_follow_their_type(tmp_path: Path) -> None:
    def size(config: dict[str, Any], **more: Any) -> float:
        return shape_of(tmp_path, config, **more).weight_bytes / 1e9

    assert size(known.LLAMA_3_8B) == pytest.approx(16.06, rel=0.001)
    assert size(known.LLAMA_3_8B, torch_dtype="float32") == pytest.approx(32.12, rel=0.001)
    assert size(known.GPT_OSS_20B) == pytest.approx(13.76, rel=0.002), "of its files"
    assert size(known.DEEPSEEK_V3) == pytest.approx(672.9, rel=0.001), "but for its vocabulary, 8 bits"
    awq = {"quant_method": "awq", "bits": 4, "group_size": 128}
    assert size(known.LLAMA_3_8B, quantization_config=awq) == pytest.approx(5.73, rel=0.01), "of its files"


def test_layers_share_heads_among_gpus_and_hold_too_few_of_them_twice(tmp_path: Path) -> None:
    eight, four = shape_of(tmp_path, known.LLAMA_3_8B), shape_of(tmp_path, known.QWEN_3_30B)
    assert [eight.kv_size(gpus=gpus).full for gpus in (1, 2, 4, 8)] == [131_072, 65_536, 32_768, 16_384]
    assert [four.kv_size(gpus=gpus).full for gpus in (4, 8)] == [24_576, 24_576]
    latent = shape_of(tmp_path, known.DEEPSEEK_V3)
    assert latent.kv_size(gpus=8) == latent.kv_size(), "each GPU needs the whole latent"


def test_experts_are_read_as_tokens_choose_them(tmp_path: Path) -> None:
    shape = shape_of(tmp_path, known.MIXTRAL_8X7B)
    beside = shape.weight_bytes - shape.input_bytes - shape.expert_bytes
    assert shape.read_bytes(0) == beside
    assert shape.read_bytes(1) == pytest.approx(2 * shape.active), "bf16"
    assert shape.read_bytes(2) == pytest.approx(beside + shape.expert_bytes * (1 - 0.75**2))
    assert shape.read_bytes(1000) == pytest.approx(shape.weight_bytes - shape.input_bytes)
    dense = shape_of(tmp_path, known.LLAMA_3_8B)
    assert dense.read_bytes(0) == dense.read_bytes(99) == 2 * dense.active


@pytest.mark.parametrize(
    ("more", "full", "windowed"),
    [
        ({"sliding_window": 32}, 0, 4),
        ({"sliding_window": None}, 4, 0),
        ({"sliding_window": 32, "use_sliding_window": False}, 4, 0),
        ({"sliding_window": 32, "sliding_window_pattern": 3}, 1, 3),
        ({"model_type": "qwen2", "sliding_window": 32, "use_sliding_window": True, "max_window_layers": 3}, 3, 1),
        ({"model_type": "qwen2", "sliding_window": 32, "max_window_layers": 3}, 4, 0),
        ({"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2, "sliding_window": 32}, 2, 2),
        ({"layer_types": ["linear_attention"] * 3 + ["full_attention"], "linear_num_value_heads": 2}, 1, 0),
        ({"layer_types": ["mamba"] * 3 + ["attention"], "mamba_d_state": 2}, 1, 0),
        ({"model_type": "gemma3_text", "num_hidden_layers": 7, "head_dim": 16, "sliding_window": 32}, 1, 6),
        ({"num_kv_shared_layers": 1}, 3, 0),
        ({"model_type": "llama4_text", "attention_chunk_size": 32, "num_local_experts": 2}, 1, 3),
        ({"model_type": "llama4_text", "attention_chunk_size": 32, "no_rope_layers": [1, 0, 1, 0]}, 2, 2),
    ],
)
def test_which_layers_keep_a_window(tmp_path: Path, more: dict[str, Any], full: int, windowed: int) -> None:
    shape = shape_of(tmp_path, SMALL | {"num_experts_per_tok": 1}, **more)
    assert (shape.full_layers, shape.windowed_layers) == (full, windowed)
    assert shape.window == (32 if windowed else None)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"num_hidden_layers": None}, "does not say num_hidden_layers; fetch it again"),
        ({"num_attention_heads": None}, "does not say num_attention_heads"),
        ({"sliding_window": "long"}, "does not say sliding_window"),
        (
            {"mamba_d_state": 2},
            r"has layers without attention \(mamba_d_state\) and does not say which; add layer_types",
        ),
        ({"layer_types": ["mamba"] * 4}, "has no layer with attention"),
        ({"layer_types": ["odd"] * 4}, "has layers of the type 'odd'"),
        ({"global_head_dim": 512}, r"has layers of different widths \(global_head_dim\)"),
        ({"model_type": "new"}, "whose count it does not tell alone"),
        ({"dtype": "int3"}, "has weights of a type that is not known here; give its safetensors"),
        ({"quantization_config": {"quant_method": "new"}}, "has weights of a type that is not known here"),
        ({"model_type": "mixtral", "num_local_experts": 8}, "model used: 0 is none to 8 experts"),
    ],
)
def test_what_a_configuration_does_not_say_is_named(tmp_path: Path, more: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput, match=line):
        shape_of(tmp_path, SMALL | more)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 70) | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
CONFIGS = [known.DEEPSEEK_V3, known.GPT_OSS_20B, known.GEMMA_3_27B["text_config"], known.QWEN_3_30B]
FIELDS = ("layer_types", "quantization_config", "no_rope_layers", "num_kv_shared_layers", "decoder_sparse_step")


@given(data=st.data(), config=st.sampled_from(CONFIGS))
def test_a_configuration_gives_a_shape_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, config: dict[str, Any]
) -> None:
    changed = data.draw(st.dictionaries(st.sampled_from([*config, *FIELDS]), JSON, min_size=1, max_size=3))
    with contextlib.suppress(BadInput):
        shape = shape_of(tmp_path_factory.getbasetemp(), config | changed)
        assert shape.weight_bytes >= shape.read_bytes(1) > 0


def test_parameters_may_be_said_for_a_family_that_nobody_counts(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SMALL | {"model_type": "new", "torch_dtype": "float16"}))
    shape = read_shape(path, parameters=1000)
    assert (shape.parameters, shape.active, shape.weight_bytes) == (1000, 1000, 2000)
    assert shape.name == tmp_path.name


def test_the_cache_of_the_hub_says_the_name_above(tmp_path: Path) -> None:
    folder = tmp_path / "models--meta-llama--Llama-3-8B" / "snapshots" / "0f3a"
    folder.mkdir(parents=True)
    assert shape_of(folder, known.LLAMA_3_8B).name == "meta-llama/Llama-3-8B"


@pytest.mark.skipif(MODEL is None, reason="needs `outthink pull`")
def test_the_embedded_model() -> None:
    assert MODEL is not None
    shape = read_shape(MODEL)
    assert (shape.layers, shape.heads, shape.kv_heads, shape.key, shape.context) == (30, 9, 3, 64, 8192)
    assert shape.parameters == shape.active == 134_515_008
    assert 0.95 < shape.weight_bytes / MODEL.stat().st_size < 1, "the rest is the header"
    assert shape.kv_size() == (30 * 2 * 3 * 64 * 2, 0)


LAYER: Tensor = ("blk.0.attn_q.weight", (8, 8), F32)
SIZES = {"block_count": 12, "embedding_length": 64, "attention.head_count": 4}


def by_header(folder: Path, architecture: str = "llama", **keys: int | list[str]) -> ModelShape:
    named = {f"{architecture}.{key}": value for key, value in {"context_length": 512, **SIZES, **keys}.items()}
    path = folder / "small.gguf"
    path.write_bytes(gguf({"general.architecture": architecture, **named}, [LAYER]))
    return read_shape(path)


def test_headers_say_less_than_configurations(tmp_path: Path) -> None:
    plain = by_header(tmp_path, **{"attention.sliding_window": 32})
    assert (plain.full_layers, plain.windowed_layers, plain.kv_heads, plain.key) == (12, 0, 4, 16)
    gemma = by_header(tmp_path, "gemma3", **{"attention.sliding_window": 32, "attention.head_count_kv": 2})
    assert (gemma.full_layers, gemma.windowed_layers, gemma.window, gemma.kv_heads) == (2, 10, 32, 2)
    mla = {"attention.kv_lora_rank": 48, "rope.dimension_count": 8, "attention.head_count_kv": 1}
    assert by_header(tmp_path, "deepseek2", **mla).kv_size() == (12 * 2 * 56, 0)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"attention.head_count_kv": ["2", "1"]}, r"does not say one llama\.attention\.head_count_kv for all layers"),
        ({"ssm.state_size": 16}, "has layers without attention"),
    ],
)
def test_a_header_that_does_not_suffice_is_refused(tmp_path: Path, keys: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput, match=line):
        by_header(tmp_path, **keys)
