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
    process = subprocess.Popen([*COMMAND, "serve", "--port", "0", *arguments], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        yield process, process.stderr.readline()
    finally:
        process.kill()
        process.communicate(timeout=10)
