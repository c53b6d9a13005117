"""How many weights a model reads for each token, from its files: GGUF, safetensors, or a configuration alone.

Knows: that a tied embedding counts once and an input embedding beside a separate output head not at all, that of a
mixture's experts only the used ones count, how quantised weights are packed, and the shapes of a few families whose
configuration says everything. Reads headers only, never weights, and imports neither torch nor transformers.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from outthink.core.errors import BadInput
from outthink.engines.embedded.gguf import read_gguf

_REMEDY = "give a GGUF file, a folder with safetensors or a config.json"
_LONGEST = 100 << 20
"""Bytes of a header: the format's own limit."""
_INPUT = re.compile(r"(?:embed_tokens|tok_embeddings|wte|embed_in|word_embeddings)\.weight\Z")
_HEAD = re.compile(r"(?:lm_head|embed_out|(?:\A|model\.)output)\.weight\Z")
_EXPERT = re.compile(r"\.experts\.")
_BESIDE = re.compile(
    r"\.(?:scales?|qzeros|zeros|g_idx|weight_scale(?:_inv)?|weight_zero_point|weight_shape|weight_g_idx|input_scale"
    r"|absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.\w+|SCB|weight_format|inv_freq|masked_bias|attn\.bias)\Z"
    r"|_scales\Z"
)
"""Tensors that describe others, or none that is learned."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What a model's files say.

    Args:
        parameters: weights read per token.
        elements: of all tensors, input embedding and unused experts included; None where only shapes are known.
    """

    parameters: int
    elements: int | None


def read_weights(path: Path) -> Weights:
    """Weights of a model's file or folder. Raises BadInput where they cannot be told."""
    if path.is_dir():
        if files := sorted(path.glob("*.safetensors")):
            return _of_tensors(path, files)
        if (config := path / "config.json").is_file():
            return Weights(count_by_config(_json(config), str(config)), None)
        raise BadInput("model", str(path), "holds no weights and no config.json", _REMEDY)
    if path.suffix == ".safetensors":
        return _of_tensors(path.parent, [path])
    if path.suffix == ".json":
        return Weights(count_by_config(_json(path), str(path)), None)
    info = read_gguf(path)
    return Weights(info.parameters, info.elements)


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput("model", str(path), f"cannot be read ({error.strerror})", _REMEDY) from None
    except ValueError as error:
        raise BadInput("model", str(path), f"is no JSON ({error})", "fetch it again") from None
    if not isinstance(values, dict):
        raise BadInput("model", str(path), "is no JSON object", "fetch it again")
    return values


# Safetensors: eight bytes with the length of a JSON header, which names each tensor with its type and shape.


def _of_tensors(folder: Path, files: list[Path]) -> Weights:
    config = _json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if isinstance(text := config.get("text_config"), dict):  # of a model that also sees or hears
        config = text
    bits = _quantised_bits(config)
    tensors = {name: _elements(name, row, bits) for path in files for name, row in _header(path)}
    halved = {name.removesuffix(".absmax") for name in tensors if name.endswith(".absmax")}  # two of four bits a byte
    counted = {
        name: count * 2 if name in halved and bits == 4 else count
        for name, count in tensors.items()
        if not _BESIDE.search(name)
    }
    elements = sum(counted.values())
    headed = any(_HEAD.search(name) for name in counted)  # so that its input embedding is only looked up
    unread = sum(count for name, count in counted.items() if headed and _INPUT.search(name))
    experts = sum(count for name, count in counted.items() if _EXPERT.search(name))
    if experts:
        number, used = _experts(config)
        if not number or not used:
            problem = "has experts, and no config.json says how many of them are used"
            raise BadInput("model", str(folder), problem, "put its config.json beside it")
        unread += experts * (number - used) // number
    return Weights(elements - unread, elements)


def _header(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names of the tensors of a file with what the header says of each."""
    try:
        with path.open("rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            if size > _LONGEST:
                raise ValueError(f"a header of {size} bytes")
            header = json.loads(file.read(size))
            for name, row in header.items():
                if name != "__metadata__":
                    yield name, {"dtype": str(row["dtype"]), "shape": [int(side) for side in row["shape"]]}
    except OSError as error:
        raise BadInput("model", str(path), f"cannot be read ({error.strerror})", _REMEDY) from None
    except (ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise BadInput("model", str(path), f"is a damaged safetensors file ({error})", "fetch it again") from None


def _elements(name: str, row: Mapping[str, Any], bits: int | None) -> int:
    """Weights of one tensor, packed ones unpacked."""
    count: int = prod(row["shape"])
    if row["dtype"] == "I32" and name.endswith((".qweight", ".weight_packed")) and bits:
        return count * (32 // bits)
    return count * 2 if name.endswith("_blocks") and row["dtype"] == "U8" else count  # MXFP4: two a byte


def _quantised_bits(config: Mapping[str, Any]) -> int | None:
    """Bits of a packed weight, None where nothing says them."""
    told = config.get("quantization_config")
    if not isinstance(told, dict):
        return None
    if told.get("load_in_4bit"):
        return 4
    groups = told.get("config_groups")
    rows = [told, *(group.get("weights") for group in groups.values() if isinstance(group, dict))] if groups else [told]
    for row in rows:
        bits = (row or {}).get("bits", (row or {}).get("num_bits"))
        if isinstance(bits, int) and 1 <= bits <= 8:
            return bits
    return None


def _experts(config: Mapping[str, Any]) -> tuple[int, int]:
    """How many experts a layer has, and how many of them a token uses; 0 where that is not said."""

    def said(names: tuple[str, ...]) -> int:
        return next((value for name in names if isinstance(value := config.get(name), int) and value > 0), 0)

    number = said(_NUMBER)
    return number, min(said(_USED), number)


_NUMBER = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_USED = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k")
"""As Mixtral, Qwen, DeepSeek and their kin call them."""


# A configuration alone: families of one shape, whose counts a test compares with the models' own.

_MIXTURES = ("mixtral", "qwen3_moe")
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", *_MIXTURES)


def count_by_config(config: Mapping[str, Any], source: str) -> int:
    """Weights read per token by a configuration of transformers.

    Raises BadInput for a family whose formula is not known here, and for one that lacks a size.
    """
    family = config.get("model_type")
    if family not in _FAMILIES:
        remedy = f"give its weights, or say them with --parameters; known are {', '.join(_FAMILIES)}"
        raise BadInput("model", source, f"is of the family {family!r}, whose count it does not tell alone", remedy)
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        raise BadInput("model", source, "mixes layers with experts and without", "give its weights, or --parameters")

    def size(name: str, default: int | None = None) -> int:
        value = config.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or value < 0:
            raise BadInput("model", source, f"does not say {name}", "fetch it again")
        return value

    width, layers, heads = size("hidden_size"), size("num_hidden_layers"), size("num_attention_heads")
    keys, of_a_head = size("num_key_value_heads", heads), size("head_dim", width // max(heads, 1))
    attention = width * of_a_head * (2 * heads + 2 * keys)
    if config.get("attention_bias") or family == "qwen2":
        attention += of_a_head * (heads + 2 * keys) + (0 if family == "qwen2" else width)
    if family.startswith("qwen3"):
        attention += 2 * of_a_head  # a norm of queries and one of keys
    feed_forward = 3 * width * size("intermediate_size", 0)
    if family in _MIXTURES:
        number, used = _experts(config)
        inner = size("moe_intermediate_size", size("intermediate_size", 0))
        feed_forward = number * width + used * 3 * width * inner
    elif config.get("mlp_bias"):
        feed_forward += 2 * size("intermediate_size") + width
    # The output head is read for every token; a tied embedding is that head, and an input embedding is looked up.
    return layers * (attention + feed_forward + 2 * width) + width + size("vocab_size") * width
