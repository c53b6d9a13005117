"""What the controller's artefacts on disk have in common: plain JSON values, in files that are written whole.

Knows: JSON objects, and how a file appears all at once. Does not know what any artefact holds, or how one is read
(`outthink.validation`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outthink.core.text import writable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

JsonObject = Mapping[str, Any]
"""A JSON object that was read, or is about to be written."""
Json = str | float | None | Sequence["Json"] | Mapping[str, "Json"]


def plain_values(instance: DataclassInstance) -> JsonObject:
    """Plain values of a dataclass as they will be read again: lists for tuples."""
    values: JsonObject = json.loads(json.dumps(asdict(instance)))
    return values


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, each lone surrogate as U+FFFD; a device, pipe or link is written to.

    Raises OSError.
    """
    if isinstance(content, str):
        content = writable(content).replace("\n", os.linesep).encode()
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_bytes(content)
        return
    # The process's number keeps two writers of one file apart: each replaces it by a draft of its own.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
