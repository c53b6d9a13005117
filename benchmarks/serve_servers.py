"""The servers that are measured, each in a process of its own: ours, its-hub's and optillm's.

Knows: how each is installed from the package index into a virtual environment of its own, started,
and told where its backend is. A peer that cannot be installed or started is recorded with the
reason. Does not know what is measured.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serve_backend import MODEL

ITS_HUB = ("its_hub[iaas]==1.2.0",)
OPTILLM = ("optillm==0.4.0",)
OPTILLM_NEEDS = (
    *("flask", "cerebras_cloud_sdk", "openai", "networkx", "requests", "pyyaml", "numpy", "math-verify", "aiohttp"),
    *("httpx2", "scikit-learn", "z3-solver", "sympy", "nbformat", "nbconvert", "ipykernel", "beautifulsoup4", "lxml"),
    *("tiktoken", "azure-identity"),
)
"""What its server imports. Its metadata asks for torch and thirty more, none of which pass-through needs."""
_START = 90  # seconds
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outthink" / "peers"


class Missing(Exception):
    """A peer cannot be measured here, and why."""


@dataclass
class Server:
    """A running server.

    Args:
        url: what its clients are told.
        passing: fields of a pass-through request; `eight` those of self-consistency with eight samples.
        headers: of such a request with eight samples.
    """

    name: str
    url: str
    pid: int
    passing: dict[str, Any] = field(default_factory=dict)
    eight: dict[str, Any] = field(default_factory=dict)


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], url: str, environment: dict[str, str] | None = None, *, seconds: float = _START
) -> Iterator[int]:
    """The process id of a server that answers at `url` within so long. Raises Missing with the end of what it said."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=said, cwd=tempfile.gettempdir(), env={**os.environ, **(environment or {})}
        )
        try:
            ends = time.monotonic() + seconds
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > ends:
                    said.seek(0)
                    lines = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
                    raise Missing(f"it does not start: {' | '.join(lines[-2:])[:300]}")
                time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


_OUTTHINK = str(Path(sys.executable).with_name("outthink"))


@contextmanager
def ours(backend: str, *, ledger: str | None = None, source: Path | None = None) -> Iterator[Server]:
    """`outthink serve` as a user starts it, with its SQLite ledger in a folder that is removed afterwards.

    Args:
        source: folder that holds the package `outthink`, for another version of it.
    """
    port = free_port()
    environment = {} if source is None else {"PYTHONPATH": str(source)}
    with tempfile.TemporaryDirectory() as folder:
        environment["OUTTHINK_STATE"] = folder  # where the ledger lies that nobody names
        command = [_OUTTHINK, "serve", "--model", backend, "--port", str(port)]
        command += [] if ledger is None else ["--ledger", ledger, "--new-ledger"]
        url = f"http://127.0.0.1:{port}"
        with running(command, f"{url}/readyz", environment) as pid:
            eight = {"model": "outthink/self-consistency@8"}
            yield Server("outthink", f"{url}/v1", pid, {"model": MODEL}, eight)


@contextmanager
def ours_after_doctor(backend: str) -> Iterator[Server]:
    """The same where `outthink doctor` was run before, so that samples of one prompt share a call."""
    told = subprocess.run([_OUTTHINK, "doctor", backend], capture_output=True, text=True)
    if told.returncode:
        raise Missing(f"outthink doctor: {told.stderr.strip()[-300:]}")
    with ours(backend) as server:
        yield replace(server, name="outthink, after doctor", passing={})


def _installed(name: str, *steps: Sequence[str]) -> Path:
    """The Python of an environment that was made once. Raises Missing."""
    home = CACHE / name
    python, mark = home / "bin" / "python", home / ".complete"
    wanted = json.dumps(steps)
    if not mark.exists() or mark.read_text() != wanted:
        venv.create(home, with_pip=True, clear=True)
        for step in steps:
            command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *step]
            done = subprocess.run(command, capture_output=True, text=True, timeout=900)
            if done.returncode:
                errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
                raise Missing(f"pip install {' '.join(step)}: {' | '.join(errors or ['failed'])[:300]}")
        mark.write_text(wanted)
    return python


@contextmanager
def its_hub(backend: str) -> Iterator[Server]:
    """Its HTTP service, told to use self-consistency on the boxed answer; a budget of 1 draws one sample."""
    python = _installed("its-hub", ITS_HUB)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(python), "-m", "its_hub.integration.iaas.app_server", "--port", str(port), "--log-level", "WARNING"]
    with running(command, f"{url}/v1/models") as pid:
        told = {
            "endpoint": backend,
            "api_key": "none",
            "model": MODEL,
            "alg": "self-consistency",
            "regex_patterns": [r"\\boxed\{([^}]*)\}"],
            "budget": 1,
        }
        request = urllib.request.Request(
            f"{url}/configure", json.dumps(told).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                reply.read()
        except urllib.error.HTTPError as error:
            raise Missing(f"/configure answers {error.code}: {error.read()[:200]!r}") from None
        fields = {"model": MODEL}
        yield Server("its-hub", f"{url}/v1", pid, {**fields, "budget": 1}, {**fields, "budget": 8})


@contextmanager
def optillm(backend: str) -> Iterator[Server]:
    """Its Flask server with the approach `none`, which is its pass-through."""
    python = _installed("optillm", ("--no-deps", *OPTILLM), OPTILLM_NEEDS)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(python), "-m", "optillm.server", "--port", str(port), "--base-url", backend, "--log", "error"]
    command += ["--approach", "none"]
    with running(command, f"{url}/v1/models", {"OPENAI_API_KEY": "none"}) as pid:
        yield Server("optillm", f"{url}/v1", pid, {"model": MODEL}, {})
