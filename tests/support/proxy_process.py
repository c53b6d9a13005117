"""`outthink serve` as a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

COMMAND = [sys.executable, "-c", "from outthink.cli.main import entry; entry()"]


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its URL; its first line is read."""
    with announced(*arguments) as (process, line):
        result = re.search(r"http://\S+", line)
        assert result is not None, line
        yield process, result[0]


@contextmanager
def announced(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the first line that it writes."""
    with starting(*arguments) as process:
        assert process.stderr is not None
        yield process, process.stderr.readline()


@contextmanager
def starting(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The process, which has written nothing yet."""
    process = subprocess.Popen([*COMMAND, "serve", "--port", "0", *arguments], stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)
