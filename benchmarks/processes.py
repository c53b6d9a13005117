"""Watches a process and all its descendants through /proc (Linux). Knows nothing else."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def descendants(pid: int) -> list[int]:
    """The process and everything below it."""
    found, waiting = [], [pid]
    while waiting:
        now = waiting.pop()
        found.append(now)
        for task in _numbers(Path(f"/proc/{now}/task")):
            waiting += [int(child) for child in _read(f"/proc/{now}/task/{task}/children").split()]
    return found


def resident(pid: int) -> int:
    """Bytes in memory; pages shared between processes are counted in each."""
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * PAGE if fields else 0


def processor_seconds(pid: int) -> float:
    """User and system time of a process and of its children that have ended."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICK if fields else 0.0


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(entry.name) for entry in folder.iterdir()]
    except OSError:
        return []  # it has ended


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""  # it has ended


@dataclass
class Usage:
    """What a command took. `peak` is the largest sum over the process tree seen at one look."""

    code: int
    seconds: float
    processor: float
    peak: int


def run(command: list[str], *, cwd: Path | None = None, interval: float = 0.1) -> Usage:
    """Run a command with its output thrown away and look at its process tree every `interval` seconds."""
    before = os.times()
    began = time.monotonic()
    child = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ended = threading.Event()
    peak = 0

    def look() -> None:
        nonlocal peak
        while not ended.wait(interval):
            peak = max(peak, sum(resident(pid) for pid in descendants(child.pid)))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    code = child.wait()
    seconds = time.monotonic() - began
    ended.set()
    watcher.join()
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Usage(code, seconds, used, peak)
