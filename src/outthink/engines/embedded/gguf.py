"""What the header of a GGUF file says: is it a whole language model, its weights, its sizes.

Knows the format (versions 2 and 3) and llama.cpp's names of tensors and keys; reads no weights. Does not know
llama.cpp itself, whose own errors for a bad file say nothing. Every size in the file is treated as hostile: nothing is
allocated that the file does not really hold.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from outthink.core.errors import BadInput

_REMEDY = "run `outthink pull`, or give the path of a whole .gguf file"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_DEPTH = 4  # arrays within arrays; real files have one level
_DIMENSIONS = 8  # of a tensor; llama.cpp has at most four
_TEXT = 1 << 16  # bytes of a key, name or value that is kept; longer ones are skipped (chat templates)
_PIECE = 1 << 20  # bytes read at a time
_BLOCKS = {  # tensor type: (elements in a block, bytes of a block), from llama.cpp's type traits
    kind: (elements, width)
    for elements, widths in {
        1: {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2},
        32: {2: 18, 3: 20, 6: 22, 7: 24, 8: 34, 9: 36, 20: 18, 39: 17},
        256: {10: 84, 11: 110, 12: 144, 13: 176, 14: 210, 15: 292, 16: 66, 17: 74, 18: 98, 19: 50}
        | {21: 110, 22: 82, 23: 136, 29: 56, 34: 54, 35: 66},
    }.items()
    for kind, width in widths.items()
}
_INPUT, _OUTPUT = "token_embd.weight", "output.weight"
# All experts of a layer in one tensor, or (Mixtral's first files) each in a tensor of its own.
_EXPERTS = re.compile(r"blk\.\d+\.ffn_\w+_exps\.|blk\.\d+\.ffn_(?:gate|up|down)\.\d+\.")
_KEYS = (
    "context_length",
    "block_count",
    "embedding_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_mla",
    "attention.value_length_mla",
    "attention.kv_lora_rank",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.shared_kv_layers",
    "rope.dimension_count",
    "ssm.state_size",
    "expert_count",
    "expert_used_count",
)
"""What is kept of the keys that begin with the architecture's name."""


@dataclass(frozen=True, slots=True)
class GGUFInfo:
    """A model file, by its header.

    Args:
        path: the file.
        context: tokens that the model was trained for.
        parameters: weights read per token (docs/contracts.md, Counting): the output head included, the input
            embedding only where it is the head too, of experts those that a token passes through.
        elements: of all tensors.
        size: bytes of all tensors, None where one has a type that is not known here.
        input_size, expert_size: bytes of an input embedding beside a separate output head, and of all experts.
        architecture: llama.cpp's name of its family.
        sizes: those of its layers, by llama.cpp's key; None where a key is there and gives every layer its own.
    """

    path: Path
    context: int
    parameters: int
    elements: int
    size: int | None
    input_size: int
    expert_size: int
    architecture: str
    sizes: Mapping[str, int | None]


def read_gguf(path: str | Path) -> GGUFInfo:
    """Check a model file and read its header.

    Raises BadInput, with path and remedy, for a file that is missing, no GGUF, truncated, or no
    language model.
    """
    path = Path(path)
    try:
        size = os.stat(path).st_size
        with path.open("rb", buffering=_PIECE) as file:
            return _read(file, path, size)
    except FileNotFoundError:
        raise BadInput("model", str(path), "does not exist", _REMEDY) from None
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise BadInput("model", str(path), problem, _REMEDY) from None
    except _Cut:
        raise BadInput("model", str(path), "is cut off: its header names more than it holds", _REMEDY) from None
    except _Broken as error:
        raise BadInput("model", str(path), f"is a damaged GGUF file ({error})", _REMEDY) from None


def _read(file: BinaryIO, path: Path, size: int) -> GGUFInfo:
    cursor = _Cursor(file, size)
    if size < 4 or cursor.take(4) != b"GGUF":
        raise BadInput("model", str(path), "is not a GGUF file", _REMEDY)
    version = cursor.number("I")
    if version not in (2, 3):
        problem = f"has GGUF version {version}, which is not known here (big-endian files are not either)"
        raise BadInput("model", str(path), problem, "convert it with a current llama.cpp")
    count, keys = cursor.number("Q"), cursor.number("Q")
    metadata = _metadata(cursor, keys)
    tensors = _read_tensors(cursor, count)
    kind = metadata.get("general.type", "model")
    architecture = metadata.get("general.architecture")
    context = metadata.get(f"{architecture}.context_length")
    if kind != "model" or not isinstance(architecture, str) or not isinstance(context, int) or context < 1:
        raise BadInput("model", str(path), "holds no language model", "give the GGUF file of a chat model")
    if isinstance(parts := metadata.get("split.count"), int) and parts > 1:
        remedy = "merge the parts with llama.cpp's gguf-split"
        raise BadInput("model", str(path), f"is one of {parts} parts of a model", remedy)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _PIECE:
        raise _Broken(f"alignment {alignment}")
    if -(-cursor.position // alignment) * alignment + tensors.reach > size:
        raise _Cut
    sizes = _sizes(metadata, architecture)
    return GGUFInfo(
        path=path,
        context=context,
        parameters=tensors.read_per_token(sizes.get("expert_count") or 0, sizes.get("expert_used_count") or 0),
        elements=tensors.elements,
        size=tensors.bytes if tensors.known else None,
        input_size=tensors.embedding_bytes if tensors.head else 0,
        expert_size=tensors.expert_bytes,
        architecture=architecture,
        sizes=sizes,
    )


_Metadata = dict[str, str | int | float | None]


def _sizes(metadata: _Metadata, architecture: str) -> dict[str, int | None]:
    found = {key: metadata[name] for key in _KEYS if (name := f"{architecture}.{key}") in metadata}
    return {key: value if isinstance(value, int) and value >= 0 else None for key, value in found.items()}


@dataclass(slots=True)
class _Tensors:
    """Sums over the tensor table.

    Args:
        elements, experts, embedding: of all tensors, of those of experts, of the input embedding.
        bytes, expert_bytes, embedding_bytes: of the same.
        known: the types of all are.
        head: the output head is stored apart from the input embedding.
        reach: bytes of data up to the end of the last tensor.
    """

    elements: int = 0
    experts: int = 0
    embedding: int = 0
    bytes: int = 0
    expert_bytes: int = 0
    embedding_bytes: int = 0
    known: bool = True
    head: bool = False
    reach: int = 0

    def add(self, name: str | None, sides: tuple[int, ...], kind: int, offset: int) -> None:
        size = prod(sides)
        block, width = _BLOCKS.get(kind, (1, 0))  # a type that is newer than this table reaches nowhere
        taken = size // block * width
        self.elements += size
        self.bytes += taken
        self.known = self.known and kind in _BLOCKS
        self.reach = max(self.reach, offset + taken)
        if name == _INPUT:
            self.embedding, self.embedding_bytes = size, taken
        elif name == _OUTPUT:
            self.head = True
        elif name is not None and _EXPERTS.match(name):
            self.experts += size
            self.expert_bytes += taken

    def read_per_token(self, experts: int, used: int) -> int:
        idle = self.experts * (experts - used) // experts if 0 < used <= experts else 0
        return self.elements - idle - (self.embedding if self.head else 0)


def _read_tensors(cursor: _Cursor, count: int) -> _Tensors:
    tensors = _Tensors()
    for _ in range(count):
        name, dimensions = cursor.text(), cursor.number("I")
        if dimensions > _DIMENSIONS:
            raise _Broken(f"a tensor of {dimensions} dimensions")
        sides = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions))
        tensors.add(name, sides, cursor.number("I"), cursor.number("Q"))
    return tensors


def _metadata(cursor: _Cursor, count: int) -> _Metadata:
    kept: _Metadata = {}
    for _ in range(count):
        key = cursor.text()
        value = _value(cursor, cursor.number("I"))
        # Only what is asked for above is kept: a hostile file may list millions of keys.
        if key is not None and (key.startswith(("general.", "split.")) or key.partition(".")[2] in _KEYS):
            kept[key] = value
    return kept


def _value(cursor: _Cursor, kind: int, depth: int = 0) -> str | int | float | None:
    """One metadata value; arrays are skipped and read as None."""
    if kind == _STRING:
        return cursor.text()
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind])
    if kind != _ARRAY or depth >= _DEPTH:
        raise _Broken(f"metadata of unknown type {kind}")
    inner, count = cursor.number("I"), cursor.number("Q")
    if inner in _SCALARS:
        cursor.skip(count * struct.calcsize("<" + _SCALARS[inner]))
    elif inner == _STRING:
        for _ in range(count):  # ends by `_Cut` if the count is a lie
            cursor.skip(cursor.number("Q"))
    else:
        for _ in range(count):
            _value(cursor, inner, depth + 1)
    return None


class _Cut(Exception):
    """The header wants more bytes than the file has."""


class _Broken(Exception):
    """The header contradicts the format."""


class _Cursor:
    """Reads onwards through a file; its end is a `_Cut`, however much is asked for."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self.position = file, size, 0

    def _advance(self, count: int) -> None:
        if count > self._size - self.position:
            raise _Cut
        self.position += count

    def take(self, count: int) -> bytes:
        self._advance(count)
        taken = self._file.read(count)
        if len(taken) < count:
            raise _Cut
        return taken

    def skip(self, count: int) -> None:
        self._advance(count)
        self._file.seek(self.position)

    def number(self, code: str) -> int:
        value: int = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]
        return value

    def text(self) -> str | None:
        """A string, None (and skipped) where it is too long to be of interest here."""
        length = self.number("Q")
        if length > _TEXT:
            self.skip(length)
            return None
        return self.take(length).decode("utf-8", "replace")
