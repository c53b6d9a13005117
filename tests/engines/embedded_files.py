"""Small files for the embedded engine's tests: GGUF headers written by hand, and wheels that hold them."""

from __future__ import annotations

import hashlib
import importlib.util
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from outthink.engines.embedded.fetch import Published, find_model

MODEL = find_model()
HAS_SERVER = importlib.util.find_spec("xllamacpp") is not None
needs_model = pytest.mark.skipif(
    MODEL is None or not HAS_SERVER, reason="needs `outthink pull` and the extra outthink[local]"
)

F32, Q4_1 = 0, 3
UNKNOWN_TYPE = 999  # of a tensor: the file need not hold its data
Tensor = tuple[str, tuple[int, ...], int]
TENSORS: tuple[Tensor, ...] = (("token_embd.weight", (32, 100), F32), ("blk.0.attn_q.weight", (32, 32), Q4_1))
KEYS = {"general.architecture": "llama", "general.name": "Tiny", "llama.context_length": 512}


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def pair(key: str, value: str | int | list[str]) -> bytes:
    if isinstance(value, str):
        return string(key) + struct.pack("<I", 8) + string(value)
    if isinstance(value, int):
        return string(key) + struct.pack("<II", 4, value)
    return string(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(string, value))


def gguf(
    keys: dict[str, str | int | list[str]] | None = None, tensors: Iterable[Tensor] = TENSORS, *, version: int = 3
) -> bytes:
    """A whole file: header and zeros for weights."""
    keys = {**KEYS, **(keys or {})}
    listed, reach = b"", 0
    tensors = list(tensors)
    for name, shape, kind in tensors:
        count = 1
        for side in shape:
            count *= side
        listed += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, reach)
        reach += count * {F32: 32 * 4, Q4_1: 20}.get(kind, 0) // 32
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    head += b"".join(pair(key, value) for key, value in keys.items()) + listed
    return head + bytes(-len(head) % 32) + bytes(reach)


def wheel(folder: Path, content: bytes) -> tuple[Path, Published]:
    """A wheel with a model inside, and how it is published."""
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/__init__.py", "raise ImportError('must not be imported')\n")
        archive.writestr("tiny_model/tiny.gguf", content)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: no-such-thing\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path, Published(
        package="tiny_model",
        distribution="tiny-model",
        version="1.0",
        wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        wheel_size=path.stat().st_size,
        file="tiny.gguf",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )
