"""Reads models and tokenizers from folders, GGUF files and the hub, through transformers.

Knows: how to have them loaded quietly, and never with code that comes with the model. Does not know
formats or scores.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from outthink.core.errors import BadInput
from outthink.core.paths import cache_dir
from outthink.core.plugins import install_hint
from outthink.verifiers.reward_model.formats import Module, Tensor


class _OtherThreads(io.TextIOBase):
    """A stream for all threads but the one that makes it, whose writing is dropped.

    A model is read beside an event loop, and what that prints meanwhile must not be lost.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._silent = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._silent else self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """No progress bars, no report of heads that are about to be replaced, nothing on what will be renamed one day."""
    import transformers.utils

    logging: Any = transformers.utils.logging  # typed in part only
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(_OtherThreads(sys.stderr)), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers, for how peft calls it
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load(kind: str, source: str | Path, *, field: str = "verifier", **settings: Any) -> Any:
    """Load with one of transformers' Auto classes (`AutoModel`, `AutoTokenizer`, ...).

    A GGUF file gives its tokenizer as it is, and its weights from what `expand_gguf` made of them.

    Raises BadInput, which names `field`, where nothing usable is there.
    """
    path = Path(source)
    if path.suffix == ".gguf" and path.is_file():
        if kind != "AutoTokenizer":
            return load(kind, expand_gguf(path), field=field, **settings)
        source, settings = path.parent, {"gguf_file": path.name, **settings}
    import transformers

    try:
        with quietly():
            return getattr(transformers, kind).from_pretrained(str(source), trust_remote_code=False, **settings)
    except (OSError, ValueError, KeyError, ImportError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(field, str(path), f"cannot be loaded ({line})", "give a model's folder or hub name") from error


def keep_layers(model: Module, layers: int | None, *, field: str = "layers") -> None:
    """Drop all but the first so many layers, in place; the final norm stays. BadInput if there are not so many."""
    if layers is None:
        return
    body, config = model.base_model, model.config
    if not 1 <= layers <= len(body.layers):
        problem = "is below 1" if layers < 1 else f"is above the base's {len(body.layers)}"
        raise BadInput(field, layers, problem, "give how many of its layers to keep")
    body.layers = body.layers[:layers]
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]


def has_weights(source: str | Path, name: str) -> bool:
    """Whether a checkpoint holds a tensor of this name."""
    return name in _index(source)


def tensors(source: str | Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Single tensors of a checkpoint in safetensors files. Raises BadInput if one is missing."""
    from safetensors import safe_open

    index, loaded = _index(source), dict[str, Tensor]()
    for name in names:
        if name not in index:
            raise BadInput("verifier", str(source), f"holds no weights named {name!r}", "choose another format")
        with safe_open(index[name], framework="pt") as file:
            loaded[name] = file.get_tensor(name)
    return loaded


def _index(source: str | Path) -> dict[str, str]:
    """Tensor names and the file that holds each; empty for a checkpoint without safetensors."""
    import transformers.utils
    from safetensors import safe_open

    utils: Any = transformers.utils
    missing = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    single = utils.cached_file(str(source), "model.safetensors", **missing)
    if single is not None:
        with safe_open(single, framework="pt") as file:
            return dict.fromkeys(file.keys(), single)
    index = utils.cached_file(str(source), "model.safetensors.index.json", **missing)
    if index is None:
        return {}
    places: dict[str, str] = json.loads(Path(index).read_text())["weight_map"]
    files = {name: utils.cached_file(str(source), name) for name in set(places.values())}
    return {name: str(files[place]) for name, place in places.items()}


def expand_gguf(file: Path) -> Path:
    """A folder with the unquantised weights and the tokenizer of a GGUF file, made once.

    Expanding SmolLM2-135M takes 20 s and reading it back 1 s, for 540 MB in the cache folder. Raises
    BadInput where the file is missing or the `gguf` package is not installed.
    """
    if not file.is_file():
        raise BadInput("verifier", str(file), "is not there", "fetch it: outthink pull")
    status = file.stat()
    folder = cache_dir() / "expanded" / f"{file.stem}-{status.st_size}-{int(status.st_mtime)}"
    if folder.is_dir():
        return folder
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        remedy = install_hint("transformers")
        raise BadInput("verifier", "gguf", "is not installed, and expanding the base needs it", remedy) from error
    import transformers

    auto: Any = transformers.AutoModel
    model = load("AutoModel", file.parent, gguf_file=file.name)
    tokenizer = load("AutoTokenizer", file)
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with quietly():  # a model that came from a GGUF file refuses to be saved
        plain = auto.from_config(config)
        plain.load_state_dict(model.state_dict())
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        with quietly():
            plain.save_pretrained(unfinished)
            tokenizer.save_pretrained(unfinished)
        with contextlib.suppress(OSError):  # another process was faster
            os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
