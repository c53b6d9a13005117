"""What the controller's artefacts on disk have in common: plain JSON values, read strictly and written whole.

Knows: JSON objects, how one becomes a dataclass and is refused in one line where it is malformed, and how a file
appears all at once. Does not know what any artefact holds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from outthink.core.errors import BadInput
from outthink.core.text import writable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

JsonObject = Mapping[str, Any]
"""A JSON object that was read, or is about to be written."""
Json = str | float | None | Sequence["Json"] | Mapping[str, "Json"]


@contextmanager
def reading(
    field: str, remedy: str, problem: str = "is malformed", value: JsonObject | str | None = None
) -> Iterator[None]:
    """Turns whatever damaged plain values raise into BadInput.

    Args:
        value: what the error shows, None for the kind of the failure.
    """
    try:
        yield
    except BadInput:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        shown, reason = (type(error).__name__, str(error)) if value is None else (value, repr(error))
        raise BadInput(field, shown, f"{problem} ({reason})", remedy) from None


def plain_values(instance: DataclassInstance) -> JsonObject:
    """Plain values of a dataclass as they will be read again: lists for tuples."""
    values: JsonObject = json.loads(json.dumps(asdict(instance)))
    return values


def typed(kind: type[T], values: JsonObject) -> T:
    """A dataclass from plain values, each as the type of its field; further keys are passed over.

    Raises KeyError, TypeError or ValueError for what is malformed.
    """
    hints = get_type_hints(kind)
    return kind(**{field.name: _typed(hints[field.name], values[field.name]) for field in fields(kind)})


def _typed(hint: Any, value: Any) -> Any:
    parts = get_args(hint)
    if get_origin(hint) is UnionType:
        return None if value is None else _typed(parts[0], value)  # the only unions of these fields are `X | None`
    if get_origin(hint) is tuple:
        kinds = parts[:1] * len(value) if parts[-1] is ... else parts
        return tuple(_typed(part, item) for part, item in zip(kinds, value, strict=True))
    if isinstance(hint, type) and is_dataclass(hint):
        return typed(hint, value)
    return hint(value) if hint in (str, int, float) else value  # a Literal is checked by what holds it


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
