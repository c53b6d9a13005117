"""Where files of this user live. Knows the environment variables; creates nothing."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$OUTTHINK_CACHE`, else `$XDG_CACHE_HOME/outthink`, else `~/.cache/outthink`."""
    return _folder("OUTTHINK_CACHE", "XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """`$OUTTHINK_STATE`, else `$XDG_STATE_HOME/outthink`, else `~/.local/state/outthink`."""
    return _folder("OUTTHINK_STATE", "XDG_STATE_HOME", ".local/state")


def _folder(own: str, shared: str, usual: str) -> Path:
    """The folder that one variable names, ours in the one that another names, else ours in its usual place."""
    if folder := os.environ.get(own):
        return Path(folder)
    return Path(os.environ.get(shared) or Path.home() / usual) / "outthink"  # empty counts as unset, as XDG has it
