"""The command line: one verb, or a few that belong together, a file.

Knows which verbs there are and how errors become one line and an exit code. Does not know what any verb does; their
modules are imported when called, so that `--version` stays instant.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from types import ModuleType

from outthink.core import __version__
from outthink.core.errors import OutthinkError
from outthink.core.text import REPLACED

HOMES = {
    "batch": ("feedback",),
    "calibrate": ("policy",),
    "installation": ("strategies", "doctor", "pull", "cache"),
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
    "router": "train and judge a router between a weak and a strong model",
    "feedback": "tell a log of choices what was right, and see or undo what it has learned",
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
    chosen = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what a model wrote may hold half a surrogate pair
            stream.reconfigure(errors=REPLACED)
    try:
        code = vars(_home(chosen.verb))[f"run_{chosen.verb}"](chosen)
    except OutthinkError as error:
        print(f"outthink {chosen.verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"outthink {chosen.verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; nothing is wrong with us. Python must not complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return int(code)


def entry() -> None:
    """Console script."""
    code = main()
    from outthink.verifiers.protocol import LEFT_BEHIND  # which `main` has loaded by now

    if any(thread.name == LEFT_BEHIND for thread in threading.enumerate()):
        # A model is still being read for a request whose deadline has passed: nobody waits for it, neither do we.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
