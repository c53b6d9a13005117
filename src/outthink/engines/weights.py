"""How many weights a model reads for each token, and what all of them weigh, from its files: GGUF, safetensors, a
configuration alone.

Knows: that a tied embedding counts once and an input embedding beside a separate output head not at all, that of a
mixture's experts only the used ones count, and how quantised weights are packed. Reads headers only, never weights,
and imports neither torch nor transformers. Does not know families: architecture.py does.
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
from outthink.engines.architecture import REMEDY, ModelConfig, count, quantised_bits, read_config, stored_bytes
from outthink.engines.embedded.gguf import read_gguf

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
_WIDTHS = (
    {
        kind: width
        for width, kinds in enumerate(("", "U8 I8 BOOL F8_E4M3 F8_E5M2 F8_E8M0", "BF16 F16 I16 U16"))
        for kind in kinds.split()
    }
    | dict.fromkeys(("F32", "I32", "U32"), 4)
    | dict.fromkeys(("F64", "I64", "U64"), 8)
)
"""Bytes of one number of a tensor's type."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What a model's files say.

    Args:
        parameters: weights read per token.
        elements: of all tensors, input embedding and unused experts included.
        size: bytes of all tensors; None where a type is not known.
        input_size, expert_size: bytes of an input embedding that is only looked up, and of all routed experts.
    """

    parameters: int
    elements: int
    size: float | None
    input_size: float
    expert_size: float


def read_weights(path: Path) -> Weights:
    """Weights of a model's file or folder. Raises BadInput where they cannot be told."""
    if path.is_dir():
        if files := sorted(path.glob("*.safetensors")):
            return _of_tensors(path, files)
        if (config := path / "config.json").is_file():
            return count_by_config(read_config(config))
        raise BadInput("model", str(path), "holds no weights and no config.json", REMEDY)
    if path.suffix == ".safetensors":
        return _of_tensors(path.parent, [path])
    if path.suffix == ".json":
        return count_by_config(read_config(path))
    info = read_gguf(path)
    return Weights(info.parameters, info.elements, info.size, info.input_size, info.expert_size)


def count_by_config(config: ModelConfig) -> Weights:
    """Weights by a configuration of transformers alone.

    Raises BadInput for a family whose formula is not known here, and for one that lacks a size.
    """
    counts, read = count(config)
    stored = stored_bytes(config, counts)
    if stored is None:
        return Weights(read, counts.parameters, None, 0, 0)
    return Weights(read, counts.parameters, stored.size, stored.looked_up, stored.experts)


# Safetensors: eight bytes with the length of a JSON header, which names each tensor with its type and shape.


def _of_tensors(folder: Path, files: list[Path]) -> Weights:
    path = folder / "config.json"
    config = read_config(path) if path.is_file() else ModelConfig({}, str(folder))
    bits = quantised_bits(config)
    rows = {name: row for path in files for name, row in _header(path)}
    halved = {name.removesuffix(".absmax") for name in rows if name.endswith(".absmax")}  # two of four bits a byte
    counted = {
        name: _elements(name, row, bits) * (2 if name in halved and bits == 4 else 1)
        for name, row in rows.items()
        if not _BESIDE.search(name)
    }
    sizes = {name: prod(row["shape"]) * _WIDTHS.get(row["dtype"], 0) for name, row in rows.items()}
    elements = sum(counted.values())
    headed = any(_HEAD.search(name) for name in counted)  # so that its input embedding is only looked up
    inputs = {name for name in counted if headed and _INPUT.search(name)}
    unread = sum(counted[name] for name in inputs)
    experts = sum(count for name, count in counted.items() if _EXPERT.search(name))
    if experts:
        number, used = config.experts
        if not number or not used:
            problem = "has experts, and no config.json says how many of them are used"
            raise BadInput("model", str(folder), problem, "put its config.json beside it")
        unread += experts * (number - used) // number
    return Weights(
        elements - unread,
        elements,
        sum(sizes.values()) if all(row["dtype"] in _WIDTHS for row in rows.values()) else None,
        sum(sizes[name] for name in inputs),
        sum(size for name, size in sizes.items() if _EXPERT.search(name)),
    )


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
        raise BadInput("model", str(path), f"cannot be read ({error.strerror})", REMEDY) from None
    except (ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise BadInput("model", str(path), f"is a damaged safetensors file ({error})", "fetch it again") from None


def _elements(name: str, row: Mapping[str, Any], bits: float | None) -> int:
    """Weights of one tensor, packed ones unpacked."""
    count: int = prod(row["shape"])
    if row["dtype"] == "I32" and name.endswith((".qweight", ".weight_packed")) and bits:
        return int(count * 32 // bits)
    return count * 2 if name.endswith("_blocks") and row["dtype"] == "U8" else count  # MXFP4: two a byte
