"""What the header of a GGUF file says. Knows the format (versions 2 and 3), reads no weights.

Does not know llama.cpp, whose own errors for a bad file say nothing. Every size in the file is
treated as hostile: nothing is allocated that the file does not really hold.
"""

from __future__ import annotations

import os
import struct
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


@dataclass(frozen=True, slots=True)
class GGUFInfo:
    """A model file, by its header.

    Args:
        path: the file.
        version: of the format.
        architecture: as llama.cpp names it, for example `llama`.
        name: what its makers call the model, None if they do not say.
        context: tokens that the model was trained for.
        parameters: elements of all tensors; a tied embedding is stored, and so counted, once.
        size: bytes of the file.
    """

    path: Path
    version: int
    architecture: str
    name: str | None
    context: int
    parameters: int
    size: int


class _Cut(Exception):
    """The header wants more bytes than the file has."""


class _Broken(Exception):
    """The header contradicts the format."""


class _Cursor:
    """Reads onwards through a file, a mebibyte at a time; its end is a `_Cut`, however much is asked for."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._data, self._start, self._at = b"", 0, 0

    @property
    def position(self) -> int:
        return self._start + self._at

    def take(self, count: int) -> bytes:
        if count > self._size - self.position:
            raise _Cut
        if self._at + count > len(self._data):
            self._start += self._at
            self._data = self._data[self._at :] + self._file.read(max(count, _PIECE))
            self._at = 0
            if count > len(self._data):
                raise _Cut
        self._at += count
        return self._data[self._at - count : self._at]

    def skip(self, count: int) -> None:
        if count > self._size - self.position:
            raise _Cut
        if self._at + count <= len(self._data):
            self._at += count
            return
        self._start += self._at + count
        self._file.seek(self._start)
        self._data, self._at = b"", 0

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


def _metadata(cursor: _Cursor, count: int) -> dict[str, str | int | float | None]:
    found: dict[str, str | int | float | None] = {}
    for _ in range(count):
        key = cursor.text()
        value = _value(cursor, cursor.number("I"))
        # Only what is asked for below is kept: a hostile file may list millions of keys.
        if key is not None and (key.startswith(("general.", "split.")) or key.endswith(".context_length")):
            found[key] = value
    return found


def _tensors(cursor: _Cursor, count: int) -> tuple[int, int]:
    """Elements of all tensors, and how many bytes of data they reach into."""
    elements, reach = 0, 0
    for _ in range(count):
        cursor.skip(cursor.number("Q"))
        dimensions = cursor.number("I")
        if dimensions > _DIMENSIONS:
            raise _Broken(f"a tensor of {dimensions} dimensions")
        size = prod(struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions)))
        kind, offset = cursor.number("I"), cursor.number("Q")
        block, width = _BLOCKS.get(kind, (1, 0))  # a type that is newer than this table reaches nowhere
        elements += size
        reach = max(reach, offset + size // block * width)
    return elements, reach


def read_gguf(path: str | Path) -> GGUFInfo:
    """Check a model file and read its header.

    Raises BadInput, with path and remedy, for a file that is missing, no GGUF, truncated, or no
    language model.
    """
    path = Path(path)
    try:
        size = os.stat(path).st_size
        with path.open("rb") as file:
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
    tensors, keys = cursor.number("Q"), cursor.number("Q")
    found = _metadata(cursor, keys)
    parameters, reach = _tensors(cursor, tensors)
    kind = found.get("general.type", "model")
    architecture = found.get("general.architecture")
    context = found.get(f"{architecture}.context_length")
    if kind != "model" or not isinstance(architecture, str) or not isinstance(context, int) or context < 1:
        raise BadInput("model", str(path), "holds no language model", "give the GGUF file of a chat model")
    if isinstance(parts := found.get("split.count"), int) and parts > 1:
        remedy = "merge the parts with llama.cpp's gguf-split"
        raise BadInput("model", str(path), f"is one of {parts} parts of a model", remedy)
    alignment = found.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _PIECE:
        raise _Broken(f"alignment {alignment}")
    if -(-cursor.position // alignment) * alignment + reach > size:
        raise _Cut
    name = found.get("general.name")
    return GGUFInfo(path, version, architecture, name if isinstance(name, str) else None, context, parameters, size)
