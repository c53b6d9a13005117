"""The command line: one verb, or a few that belong together, a file.

Knows which verbs there are and how errors become one line and an exit code. Does not know what any verb does; their
modules are imported when called, so that `--version` stays instant.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TextIO

from outthink.core import __version__
from outthink.core.errors import BadInput, OutthinkError
from outthink.core.plugins import need_extra
from outthink.core.text import REPLACED

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

HOMES = {
    "batch": ("feedback",),
    "calibrate": ("policy",),
    "installation": ("strategies", "doctor", "pull", "cache", "models"),
    "samples": ("record", "verify", "label"),
    "serve": ("keys",),
    "train": ("router",),
}
"""Verbs that stand in another verb's file, by file; each has a VERB_arguments and a run_VERB there."""

VERBS = {
    "ask": "answer one question within a budget, with a receipt",
    "serve": "a proxy in OpenAI's protocol: change one URL and every client gets it",
    "keys": "add, list and revoke the proxy's API keys, with budgets by day and month",
    "batch": "answer many questions within one budget, the next sample where it gains most",
    "compare": "replay strategies on recorded samples: accuracy against compute",
    "record": "sample a data set into a file that compare can replay",
    "verify": "score recorded samples with a verifier, for search and votes",
    "label": "label the steps of recorded samples by completing their prefixes (Math-Shepherd)",
    "train": "train a verifier on recorded samples",
    "calibrate": "learn from recorded samples when more compute pays: a policy for --strategy auto",
    "policy": "show a policy, or how two of them differ",
    "router": "train and judge a router among models",
    "plan": "how many GPUs a workload needs, with samples, early stopping and verifiers as part of it",
    "feedback": "tell a log of choices what was right, and see or undo what it has learned",
    "models": "list the models that can be named here, and what is known of them",
    "strategies": "list the strategies and their parameters",
    "doctor": "find out what a server or this installation can do",
    "pull": "fetch the embedded model, or another GGUF from a hub",
    "cache": "show or clear the response cache",
}


def _home(verb: str) -> ModuleType:
    """The module of a verb, imported now."""
    name = next((home for home, verbs in HOMES.items() if verb in verbs), verb)
    return import_module(f"outthink.cli.{name}")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="outthink",
        description="Decides how much an LLM should think about each request, and returns the answer with a receipt.",
    )
    top.add_argument("--version", action="version", version=f"outthink {__version__}")
    about = f"print a script that completes verbs, flags and files in {', '.join(SHELLS)}"
    top.add_argument("--print-completion", action=Completion, choices=SHELLS, metavar="SHELL", help=about)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, summary in VERBS.items():
        sub = verbs.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawTextHelpFormatter,
        )
        vars(_home(name))[f"{name}_arguments"](sub)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or what docs/contracts.md says of failures."""
    _open_streams()
    command = "outthink"
    try:
        try:
            chosen = parser().parse_args(arguments)
        except SystemExit:  # help, version or completion has been printed
            sys.stdout.flush()
            raise
        command = f"outthink {chosen.verb}"
        code = int(vars(_home(chosen.verb))[f"run_{chosen.verb}"](chosen))
        sys.stdout.flush()  # at exit a full disk or a reader that has gone would be a traceback
    except OutthinkError as error:
        return _refused(command, error)
    except KeyboardInterrupt:
        print(f"{command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return _unread()
    except SystemExit as end:  # what rich makes of a broken pipe
        if isinstance(end.__context__, BrokenPipeError):
            return _unread()
        raise
    except OSError as error:
        where = str(error.filename or "standard output")
        _discard(sys.stdout)
        problem = f"cannot be read or written ({error.strerror or error})"
        return _refused(command, BadInput("file", where, problem, "check its permissions and the space there"))
    return code


def _open_streams() -> None:
    """Standard streams that take all that a model may write; closed ones lead nowhere."""
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 - open until the process ends
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # half a surrogate pair, or letters that the terminal has not
            stream.reconfigure(errors=REPLACED)


def _refused(command: str, error: OutthinkError) -> int:
    print(f"{command}: {error}", file=sys.stderr)
    return error.exit_code


def _unread() -> int:
    """The reader of our output has gone; nothing is wrong with us."""
    for stream in (sys.stdout, sys.stderr):
        _discard(stream)
    return 141


def _discard(stream: TextIO) -> None:
    """Lose what a stream could not write, so that Python does not complain again at exit."""
    with suppress(OSError, ValueError):
        stream.flush()
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Messages(FileIO):
    """Standard error that loses what cannot be written: a full disk must not cost what was paid for."""

    def write(self, data: Buffer) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:  # nobody looks any more
            raise
        except OSError:
            return memoryview(data).nbytes


def entry() -> None:
    """The console script, and `python -m outthink`."""
    if sys.stderr is not None:
        raw = BufferedWriter(_Messages(sys.stderr.fileno(), "w", closefd=False))
        sys.stderr = TextIOWrapper(raw, sys.stderr.encoding, line_buffering=True)
    try:
        code = main()
    except KeyboardInterrupt:  # while the verbs were read; a verb's own end is told where it runs
        print("outthink: interrupted", file=sys.stderr)
        sys.exit(130)
    from outthink.verifiers.protocol import LEFT_BEHIND  # which `main` has loaded by now

    if any(thread.name == LEFT_BEHIND for thread in threading.enumerate()):
        # A model is still being read for a request whose deadline has passed: nobody waits for it, neither do we.
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


# `outthink --print-completion`: what a shell needs to complete verbs, flags, choices and file names. The script is
# written by shtab, of the extra `completion`, which is imported when it is asked for.

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
