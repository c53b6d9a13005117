"""What the controller's artefacts on disk have in common: plain JSON values, read strictly and written whole.

Knows: JSON objects, how a malformed one is refused in one line, and how a file appears all at once. Does not
know what any artefact holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from outthink.core.errors import BadInput

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


def write_file(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
