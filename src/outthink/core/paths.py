"""Where files of this user live, and how those that hold what people and models said are made.

Knows the environment variables, and that such files are their owner's alone whatever the umask is. Writes nothing.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
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


def private_folder(folder: Path) -> Path:
    """A folder, made with those above it that are missing, for its owner alone. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        with suppress(FileExistsError):  # another process was first
            each.mkdir()
            each.chmod(0o700)
    if not folder.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
    return folder


def private_file(path: Path) -> Path:
    """A file, made empty where it is missing, that its owner alone may read and write. Raises OSError.

    One that exists stays as it is and is not opened: closing it would drop the locks that this process's other
    connections hold on it (POSIX), and two writers of a database would damage it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        path.chmod(0o600)  # a umask can take rights away from the owner, too
    return path
