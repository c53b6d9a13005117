"""Writing result files. Knows how to write a file whole or not at all; does not know what is in it."""

from __future__ import annotations

import os
from pathlib import Path

from outthink.core.errors import BadInput


def write_whole(path: Path, text: str) -> None:
    """Write a file at once or not at all; BadInput where it cannot be written."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise BadInput("file", str(path), f"cannot be written ({error.strerror})", "check the folder") from None
