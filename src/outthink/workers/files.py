"""Files of child processes: their logs, and which of them belong to a process that has ended.

Knows names of files, their ages and numbers of processes. Does not know what is written into them.
"""

from __future__ import annotations

import os
from pathlib import Path

from outthink.core.paths import cache_dir, private_file, private_folder

_LOGS = 8  # log files of a kind that are kept


def log_file(kind: str, name: str) -> Path:
    """An empty private file for the log of a child process; the oldest of processes that are gone are removed.

    Args:
        name: begins with the number of the process that starts the child, and a hyphen.

    Raises OSError.
    """
    folder = private_folder(cache_dir() / "logs")
    for old in sorted(folder.glob(f"{kind}-*.log"), key=_age)[_LOGS - 1 :]:
        if not lives(old.name.split("-")[1]):
            old.unlink(missing_ok=True)
    return private_file(folder / f"{kind}-{name}.log")


def lives(pid: str) -> bool:
    """Whether there is a process of this number; False for what is none."""
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except FileNotFoundError:  # another process tidies up as well
        return 0.0
