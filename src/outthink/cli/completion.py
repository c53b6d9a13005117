"""`outthink --print-completion`: what a shell needs to complete verbs, flags, choices and file names.

Knows which arguments are files and folders, by their types and names. The script is written by shtab, of the extra
`completion`, which is imported when it is asked for.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from outthink.core.errors import BadInput
from outthink.core.plugins import need_extra

SHELLS = ("bash", "zsh", "tcsh", "fish", "powershell")
_FILE = re.compile(r"\b(FILE|PATH|TRACES|DATASET)\b")


class Completion(argparse.Action):
    """Prints the script and ends; one line names the extra where it is missing."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, shell: Any, *_: Any) -> None:
        try:
            need_extra("completion", "--print-completion", shell)
        except BadInput as error:
            parser.exit(error.exit_code, f"{parser.prog}: {error}\n")
        import shtab

        for action in _actions(parser):
            name = str(action.metavar)
            if name in ("FOLDER", "DIR"):
                vars(action)["complete"] = shtab.DIRECTORY
            elif action.type is Path or _FILE.search(name):
                vars(action)["complete"] = shtab.FILE
        print(shtab.complete(parser, shell))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Arguments of a command and of all below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
        else:
            yield action
