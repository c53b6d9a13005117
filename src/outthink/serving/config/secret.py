"""Secrets by reference: a variable of the environment or a file. Knows where they are; never shows one."""

from __future__ import annotations

import os
from pathlib import Path

from outthink.core.errors import BadInput

_LONGEST = 1 << 16


def read_key(variable: str | None, file: Path | None, *, env: str = "key_env", path: str = "key_file") -> str | None:
    """The secret behind a reference, None without one. Raises BadInput that names the reference alone."""
    if variable is not None:
        told = os.environ.get(variable, "").strip()
        if not told:
            raise BadInput(env, variable, "is not set", "set that variable, or name another")
    elif file is not None:
        try:
            with file.open("rb") as source:
                told = source.read(_LONGEST).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise BadInput(path, str(file), f"cannot be read ({why})", "give a file with the secret") from None
        if not told:
            raise BadInput(path, str(file), "is empty", "write the secret into it")
    else:
        return None
    if not told.isprintable():
        raise BadInput(
            env if variable else path, variable or str(file), "holds more than one line", "keep the secret alone"
        )
    return told
