"""Where files of this user live. Knows the environment variables; creates nothing."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$OUTTHINK_CACHE`, else `$XDG_CACHE_HOME/outthink`, else `~/.cache/outthink`."""
    if own := os.environ.get("OUTTHINK_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "outthink"
    return Path.home() / ".cache" / "outthink"


def state_dir() -> Path:
    """`$OUTTHINK_STATE`, else `$XDG_STATE_HOME/outthink`, else `~/.local/state/outthink`."""
    if own := os.environ.get("OUTTHINK_STATE"):
        return Path(own)
    if shared := os.environ.get("XDG_STATE_HOME"):
        return Path(shared) / "outthink"
    return Path.home() / ".local" / "state" / "outthink"
