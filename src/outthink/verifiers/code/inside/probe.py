"""The self-test seen from inside: tries what must not work, and says which wall is open.

Knows what the walls promise. Does not know how they are built.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import NoReturn


def main() -> None:
    """Print `walls stand` or `open: ...`. Arguments: the caller's process id, a file of its."""
    host, canary = int(sys.argv[1]), sys.argv[2]
    tries: dict[str, Callable[[], object]] = {
        "reads /etc/passwd": lambda: open("/etc/passwd").close(),
        "reads the caller's files": lambda: open(canary).close(),
        "sees processes": lambda: os.listdir("/proc"),
        "writes to the root folder": lambda: os.mkdir("/written"),
        "writes to its own program": lambda: os.rmdir("/sandbox"),
        "makes a child": _fork,
        "makes a socket": lambda: socket.socket().close(),
        "finds its caller": lambda: os.kill(host, 0) if host > 10 else _fail(),
    }
    open_walls = [name for name, attempt in tries.items() if _works(attempt)]
    if "OUTTHINK_PROBE" in os.environ:
        open_walls.append("sees the environment")
    if len(socket.if_nameindex() if hasattr(socket, "if_nameindex") and _works(socket.socket) else []) > 1:
        open_walls.append("sees the network")
    print("open: " + ", ".join(open_walls) if open_walls else "walls stand", flush=True)


def _fail() -> NoReturn:
    raise OSError


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()
