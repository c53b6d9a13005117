"""Where files of this user live, how those that hold what people and models said are made, and how one is written.

Knows the environment variables, that such files are their owner's alone whatever the umask is, and how a file appears
all at once. Does not know what stands in any of them.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from outthink.core.text import writable


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
