"""Blocks of README and docs that run: which they are, and running them as a newcomer would.

    python docs/marked.py [--fast] [PAGE...]

Every block of commands has a comment above it: `fast` for what continuous integration runs, `heavy` for what takes
minutes, gigabytes or a port, `heavy server` for a server that stays until the page ends, and `shown: WHY` for what
needs something of the reader's own. Without --fast the heavy ones run too. They run in their order, in one copy of the
checkout, whose environment is the one that the first block builds; a page's commands find `.venv/bin` on their path.

Knows: marks, one copy of the checkout, and processes. Does not know what a block does, or how long it should take.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
FIRST = ("README.md", "docs/quickstart.md", "docs/record.md", "docs/compare.md", "docs/policy.md", "docs/verifiers.md")
"""What a newcomer reads first, in this order; the other pages follow by name."""
COMMANDS = ("sh", "bash")
_BLOCK = re.compile(r"^(?:<!-- (fast|heavy server|heavy|shown: [^>]*|run) -->\n)?```(\w+)\n(.*?)^```", re.M | re.S)
_FAST, _HEAVY = 240.0, 3600.0  # seconds until a block counts as hanging
_READY = "http://127.0.0.1:8000/healthz"
_UNREADABLE = 3  # `ask`: the small model has given no readable answer, which is no fault of the block
_AWAITED = """
import ast, asyncio, sys
code = compile(sys.stdin.read(), "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
result = eval(code, {"__name__": "__main__"})
if result is not None:
    asyncio.run(result)
"""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code of a page; `mark` is empty where it has none."""

    page: str
    line: int
    language: str
    mark: str
    text: str

    @property
    def fast(self) -> bool:
        """Whether continuous integration runs it."""
        return self.mark == "fast"

    @property
    def runs(self) -> bool:
        """Whether it is run at all by this script."""
        return self.mark in ("fast", "heavy", "heavy server")

    def __str__(self) -> str:
        return f"{self.page}:{self.line}  {self.text.strip().splitlines()[0][:70]}"


def pages() -> list[str]:
    """README and the pages of docs, in the order in which they are run."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    return [*FIRST, *(page for page in found if page not in FIRST)]


def blocks(page: str) -> list[Block]:
    """The code blocks of a page, marked or not."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start(2)].count("\n") + 1, found[2], found[1] or "", found[3])
        for found in _BLOCK.finditer(text)
    ]


def _files() -> list[Path]:
    """What belongs to the checkout, changes that are not committed included; without git all but environments."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        found = [path.relative_to(ROOT) for path in ROOT.rglob("*")]
        return [path for path in found if (ROOT / path).is_file() and ".venv" not in path.parts]
    return [Path(name) for name in listed if name and (ROOT / name).is_file()]


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a block: seconds, exit code, and the end of what it printed."""

    block: Block
    seconds: float
    code: int
    output: str


class Copy:
    """A copy of the checkout, as `git clone` would give it, with changes that are not committed yet."""

    def __init__(self, folder: Path, *, fresh: bool) -> None:
        self.folder = folder / "outthink"
        for name in _files():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.folder / name)
        inherited = {name: value for name, value in os.environ.items() if name not in _OWN}
        self.env = {**inherited, "PATH": f"{self.folder / '.venv/bin'}:{os.environ['PATH']}"}
        self.env["OUTTHINK_STATE"] = str(folder / "state")
        if fresh:  # the model too is fetched as by somebody who has never had it
            self.env["OUTTHINK_CACHE"] = str(folder / "cache")
        self._servers: list[subprocess.Popen[bytes]] = []
        self._page = ""

    def run(self, block: Block) -> Ran:
        """Run one block; what it leaves in the background lives until another page begins."""
        if block.page != self._page:
            self.end()
            self._page = block.page
        began = time.monotonic()
        with tempfile.TemporaryFile() as out:
            process = self._start(block, out.fileno())
            try:
                code = self._served(process) if block.mark == "heavy server" else self._waited(process, block)
            except subprocess.TimeoutExpired:
                code = -signal.SIGKILL
            out.seek(0)
            printed = out.read().decode(errors="replace")
        return Ran(block, time.monotonic() - began, code, printed)

    def end(self) -> None:
        """End what runs in the background."""
        for process in self._servers:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, number)
                except ProcessLookupError:
                    break
                time.sleep(0.5)
            process.wait()
        self._servers.clear()

    def _start(self, block: Block, out: int) -> subprocess.Popen[bytes]:
        if block.language == "python":
            command, text = [str(self.folder / ".venv/bin/python"), "-c", _AWAITED], block.text
        else:
            # Every command must succeed, also before the last; a reply that holds no answer is a success.
            rule = f"trap 'c=$?; [ $c = {_UNREADABLE} ] || exit $c' ERR\n"
            command, text = ["bash", "-c", f"{rule}{block.text}\nexit 0"], ""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(text.encode())
        process.stdin.close()
        self._servers.append(process)
        return process

    def _waited(self, process: subprocess.Popen[bytes], block: Block) -> int:
        return process.wait(_FAST if block.fast else _HEAVY)

    def _served(self, process: subprocess.Popen[bytes]) -> int:
        """0 once the server answers; its own exit code if it ends before."""
        ends = time.monotonic() + _FAST
        while time.monotonic() < ends:
            if process.poll() is not None:
                return process.returncode or 1
            with suppress(OSError), urlopen(_READY, timeout=5):
                return 0
            time.sleep(0.5)
        raise subprocess.TimeoutExpired("server", _FAST)


_OWN = frozenset({"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "OUTTHINK_MODEL", "OPENAI_BASE_URL", "MAKEFLAGS"})
"""Variables of whoever runs this that a newcomer has not set."""


def run(chosen: Sequence[Block], *, fresh: bool) -> Iterator[Ran]:
    """Run blocks in their order, in one copy of the checkout that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="outthink-blocks-") as folder:
        copy = Copy(Path(folder), fresh=fresh)
        try:
            for block in chosen:
                yield copy.run(block)
        finally:
            copy.end()


def told(ran: Ran) -> str:
    """A line about a block that has run, with the end of its output where it failed."""
    line = f"{'FAIL' if ran.code else 'ok  '} {ran.seconds:6.1f} s  {ran.block}"
    return line if not ran.code else f"{line}\n  exit code {ran.code}\n{ran.output[-4000:]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, say how it went; 1 where a block failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="only these and the first block, as in README.md")
    parser.add_argument("--fast", action="store_true", help="leave heavy blocks out")
    given = parser.parse_args(arguments)
    every = [block for page in pages() for block in blocks(page) if block.fast or (block.runs and not given.fast)]
    chosen = [block for block in every if not given.pages or block.page in given.pages or block is every[0]]
    failed = 0
    for ran in run(chosen, fresh=not given.fast):
        print(told(ran), flush=True)
        failed += ran.code != 0
    print(f"{len(chosen) - failed} of {len(chosen)} blocks run")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
