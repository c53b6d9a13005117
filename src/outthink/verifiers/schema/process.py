"""Checks that may take long, in a process of their own with a limit in processor time.

Knows how one is started, what it tells, and what becomes of a text at which it ended. Does not know schemas.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from outthink.core.errors import EngineError
from outthink.verifiers.schema.rules import Outcome, judged

LIMIT = 1.0  # seconds of processor time for one text
_BACKSTOP = 60.0  # seconds by the wall clock for the start and for each text, on a busy machine
_MEMORY = 2 * 2**30  # bytes of address space
_POSIX = sys.platform != "win32"


def judge_apart(schema: str, texts: Sequence[str]) -> list[tuple[Outcome, str]]:
    """What becomes of each text; one that takes more than the limit is `unscored`. Blocks. All are JSON.

    Raises EngineError where no process can start.
    """
    outcomes: list[tuple[Outcome, str]] = []
    while len(outcomes) < len(texts):
        told = _told(schema, texts[len(outcomes) :])
        outcomes += told
        if len(outcomes) < len(texts):
            outcomes.append(("unscored", f"the check took more than {LIMIT:g} s"))
    return outcomes


def _told(schema: str, texts: Sequence[str]) -> list[tuple[Outcome, str]]:
    """What one process says before it ends."""
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.append({str(Path(__file__).parents[3])!r}); "
               f"from {__name__} import main; main()"]  # fmt: skip
    sent = json.dumps([schema, list(texts)])
    limit = _BACKSTOP if _POSIX else LIMIT * 10
    try:
        done = subprocess.run(  # noqa: S603 - our own code
            command, input=sent, capture_output=True, text=True, timeout=limit, check=False
        )
        output = done.stdout
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode() if isinstance(late.stdout, bytes) else ""
    except OSError as error:
        raise EngineError(f"schema: no process can start ({error}); check the machine") from None
    lines = output.splitlines()
    if not lines:
        raise EngineError("schema: the process that checks it did not start; check the installation")
    return [(word, message) for word, message in map(json.loads, lines[1:])]


def main() -> None:
    """The process: one line when it has started, then one a text."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    schema, texts = json.load(sys.stdin)
    print("started", flush=True)
    for text in texts:
        print(json.dumps(limited(schema, text)), flush=True)


def limited(schema: str, text: str) -> tuple[Outcome, str]:
    """What becomes of one JSON text; ends the process, which must be one for such checks, at the limit."""
    if _POSIX:
        signal.setitimer(signal.ITIMER_PROF, LIMIT)  # nobody handles SIGPROF: it ends this process at once
    outcome = judged(schema, text)
    if _POSIX:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return outcome
