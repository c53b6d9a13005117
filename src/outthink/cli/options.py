"""The flags that choose an engine, shared by every verb that needs one. Knows no engine."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.core.errors import BadInput
from outthink.core.plugins import installed
from outthink.core.request import ANSWER_KINDS

if TYPE_CHECKING:
    from outthink.engines.protocol import Engine


def engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `chosen_engine`."""
    add = parser.add_argument
    add("--model", metavar="URL|PATH|embedded", help="where tokens come from (default $OUTTHINK_MODEL or embedded)")
    add("--model-name", metavar="NAME", help="which model of the server (default its first)")
    add("--api-key-env", metavar="VAR", default="OPENAI_API_KEY", help="variable that holds the key")
    add("--idle-timeout", type=float, default=60.0, metavar="S", help="seconds without a byte before giving up (60)")


def chosen_engine(chosen: argparse.Namespace) -> Engine:
    """The engine for these flags: the model given, $OUTTHINK_MODEL, $OPENAI_BASE_URL, or the embedded one."""
    from outthink.engines.locate import locate

    if not chosen.idle_timeout > 0:
        raise BadInput("--idle-timeout", chosen.idle_timeout, "is not positive", "give seconds")
    model = chosen.model or os.environ.get("OUTTHINK_MODEL") or os.environ.get("OPENAI_BASE_URL") or "embedded"
    key = os.environ.get(chosen.api_key_env)
    return locate(model, name=chosen.model_name, api_key=key, idle_timeout=chosen.idle_timeout)


class Answers(tuple[str, ...]):
    """What `--answer` takes: the kinds, which help shows, and those of plugins."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or any(plugin.name == name for plugin in installed("answers"))


ANSWERS = Answers(ANSWER_KINDS)


# Writing result files. Knows how to write a file whole or not at all; does not know what is in it.


def write_whole(path: Path, text: str) -> None:
    """Write a file at once or not at all; BadInput where it cannot be written."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise BadInput("file", str(path), f"cannot be written ({error.strerror})", "check the folder") from None
