"""The parent's handle on the child process. Knows how it is started and ended; does not know HTTP."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

from outthink.core.errors import EngineError
from outthink.core.paths import cache_dir, private_folder
from outthink.engines.embedded.server import Plan, ServerOptions
from outthink.workers.files import lives, log_file

_CACHE_MIB = 256  # memory for prompts whose slot was needed otherwise; llama.cpp's default is 8 GiB
_PATIENT = {"OMP_WAIT_POLICY": "passive"}
"""Threads that wait sleep instead of spinning. Spinning (the default) is faster on an idle machine and ruins
everything beside busy processes. Measured on two cores, eight completions at once, beside 0, 1 and 2 busy
processes: 61, 47 and 50 tokens a second asleep, 18, 12 and 9 spinning, 67, 26 and 30 with a single thread."""
_WAIT = 5.0  # seconds for the kernel to end a killed process
_SERVER = Path(__file__).with_name("server.py")
_numbers = itertools.count(1)


class Child:
    """A server process. `stop` ends it; so does collecting this object, and the end of this process.

    Attributes:
        plan: how it runs.
        key: what its requests must carry as bearer token.
        log: its log file.
        folder: where it saves and restores slots.
        port: where it listens, 0 until it is ready.
    """

    def __init__(self, plan: ServerOptions) -> None:
        self.plan, self.key, self.port = plan, secrets.token_hex(16), 0
        name = f"{os.getpid()}-{next(_numbers)}"
        try:
            self.log, self.folder = log_file("embedded", name), _slot_folder(name)
            self._process = _spawn(self.log)
        except OSError as error:
            where = error.filename or cache_dir()
            raise EngineError(f"cannot start the embedded server: {where}: {error.strerror}", fatal=True) from error
        # Runs at exit too. A forked copy of this process must not end its parent's server, hence the number.
        self._end = weakref.finalize(self, _end, self._process, self.folder, os.getpid())

    @property
    def url(self) -> str:
        """Where the OpenAI-compatible API is."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    async def ended(self, within: float = 0.25) -> bool:
        """Whether it has ended. A dying process closes its connections a moment before it is gone."""
        for _ in range(round(within / 0.01)):
            if not self.alive:
                return True
            await asyncio.sleep(0.01)
        return not self.alive

    async def ready(self) -> None:
        """Hand over the plan and wait until the model is loaded. Raises EngineError if that fails."""
        process = self._process
        sent: Plan = {
            **self.plan,
            "cache_mib": _CACHE_MIB,
            "slot_folder": f"{self.folder}{os.sep}",  # llama.cpp puts the file's name right behind it
            "key": self.key,
            "parent": os.getpid(),
            "signalled": threading.current_thread() is threading.main_thread(),
        }
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(sent).encode() + b"\n")
            process.stdin.flush()
            line = await asyncio.to_thread(process.stdout.readline)
        except BrokenPipeError:
            line = b""
        reply = json.loads(line) if line.endswith(b"\n") else {}
        self.port = reply.get("port", 0)
        if not self.port:
            reason = reply.get("error") or self.fate()
            raise EngineError(f"the embedded server did not start: {reason}; see {self.log}", fatal=True)

    def fate(self) -> str:
        """How the process ended, for people."""
        try:
            code = self._process.wait(_WAIT)
        except subprocess.TimeoutExpired:
            return "it does not answer"
        if code == -signal.SIGKILL:
            return "it was killed (out of memory?)"
        if code == -signal.SIGILL:
            return "this processor lacks instructions that xllamacpp was built with"
        return f"it was ended by signal {-code}" if code < 0 else f"it exited with code {code}"

    def stop(self) -> None:
        """End it now. There is nothing to save, and llama.cpp's own shutdown can hang."""
        self._end()


def _spawn(log: Path) -> subprocess.Popen[bytes]:
    environment = {**_PATIENT, **os.environ}
    with log.open("wb") as errors:
        # -P: modules in the working directory do not take the place of installed ones.
        return subprocess.Popen(  # noqa: S603 - fixed arguments, no shell
            [sys.executable, "-P", str(_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        )


def _end(process: subprocess.Popen[bytes], folder: Path, owner: int) -> None:
    if os.getpid() != owner:
        return
    process.kill()
    process.wait(_WAIT)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:  # the plan was never read
                continue
    shutil.rmtree(folder, ignore_errors=True)


def _slot_folder(name: str) -> Path:
    """A private folder; those of processes that were killed are removed."""
    folder = cache_dir() / "slots"
    private_folder(folder)
    for old in folder.iterdir():
        if not lives(old.name.partition("-")[0]):
            shutil.rmtree(old, ignore_errors=True)
    own = folder / name
    shutil.rmtree(own, ignore_errors=True)  # of an earlier process with this number
    return private_folder(own)
