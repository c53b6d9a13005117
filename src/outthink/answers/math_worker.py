"""The worker process that parses and compares mathematics: one JSON object a line in, one out.

Knows math-verify and how to die: with its parent, on end of input, or when an operation overruns.
Does not know outthink, so it is run as a plain script: the parent's package is not imported again,
and the modules beside it (`text.py`, `number.py`) cannot shadow others (`python -P`).

Operations, each with a "limit" in seconds:
    {"op": "match", "answer": str, "against": [str]}: [index of the first equal one or -1, indices that
        took too long to compare], null where `answer` cannot be parsed or evaluated
    {"op": "grade", "pairs": [[gold, answer]]}: a list of booleans
"""

from __future__ import annotations

import cmath
import contextlib
import faulthandler
import json
import os
import signal
import sys
import time
import zlib
from functools import lru_cache
from typing import Any

_MEMORY = 3 << 30  # bytes of address space: a tower of powers must not take the machine down
_SOFT = 2  # seconds for one parse or one grade, by math-verify's own alarm
_QUICK = 1  # seconds for one comparison between answers: a missed merge costs less than the wait
_PDEATHSIG = 1


def _follow_parent(parent: int) -> None:
    # End of input is not enough: a worker deep in a big-integer power does not read it.
    with contextlib.suppress(OSError, AttributeError, ImportError):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent and os.name == "posix" and os.getppid() != parent:
        os._exit(0)


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


@lru_cache(maxsize=8192)
def parsed(latex: str) -> tuple[Any, ...]:
    """What math-verify reads: expressions and the string itself; empty if nothing."""
    from math_verify import parse

    return tuple(parse(rf"\boxed{{{latex}}}", parsing_timeout=_SOFT))


def same(gold: str, answer: str, limit: int = _SOFT) -> bool:
    """Whether `answer` is accepted for `gold`; not symmetric. TimeoutError after `limit` seconds."""
    from math_verify import verify
    from math_verify.errors import TimeoutException

    if gold == answer:
        return True
    golds, answers = list(parsed(gold)), list(parsed(answer))
    try:
        return bool(verify(golds, answers, timeout_seconds=limit, raise_on_error=True))
    except TimeoutException:
        raise TimeoutError from None
    except Exception:  # noqa: BLE001 - one way to compare failed; without the flag the others are tried too
        return bool(verify(golds, answers, timeout_seconds=limit))


@lru_cache(maxsize=8192)
def tame(latex: str) -> bool:
    """Whether an expression can be read and evaluated in time.

    `9^{9^{9^9}}` parses at once and hangs in every comparison: better to find out alone, before it stands
    among the answers that later ones are compared with.
    """
    from math_verify import parse, verify
    from math_verify.errors import TimeoutException

    try:
        found = parsed(latex)
        verify(parse("0"), list(found), timeout_seconds=_SOFT, raise_on_error=True)
    except (TimeoutException, MemoryError, RecursionError):
        return False
    except Exception:  # noqa: BLE001 - not comparable with a number, which is no fault
        return True
    return bool(found)


def _evaluated(expression: Any) -> complex | None:
    from sympy import Expr, Symbol

    if not isinstance(expression, Expr) or isinstance(expression, Symbol):
        return None  # sets, tuples, relations; and `east` may also be e*a*s*t
    names = sorted(expression.free_symbols, key=str)
    point = {name: 0.37 + zlib.crc32(str(name).encode()) % 1009 / 613 for name in names}
    value = complex(expression.evalf(15, subs=point))
    return value if cmath.isfinite(value) else None


@lru_cache(maxsize=8192)
def fingerprint(latex: str) -> complex | None:
    """An expression's value at a fixed point, None where it has none."""
    from math_verify.errors import TimeoutException
    from math_verify.utils import timeout

    found = parsed(latex)
    try:
        value: complex | None = timeout(_QUICK)(_evaluated)(found[0]) if found else None
    except (Exception, TimeoutException):  # noqa: BLE001 - then algebra decides
        return None
    return value


def unlike(one: str, other: str) -> bool:
    """True where two expressions clearly differ at a point: 0.1 ms that saves 10 ms of algebra."""
    a, b = fingerprint(one), fingerprint(other)
    return a is not None and b is not None and abs(a - b) > max(abs(a), abs(b), 1.0) / 1000


def match(answer: str, against: list[str], limit: float) -> tuple[int, list[int]] | None:
    """Index of the first of `against` that equals `answer` in either direction (-1: none), and the slow ones.

    Of a pair that takes too long the longer expression is to blame: if that is `answer`, no more are tried.
    Comparisons stop at `limit` seconds: what was not compared counts as different.
    """
    end = time.monotonic() + limit
    if not tame(answer):
        return None
    slow: list[int] = []
    for index, other in enumerate(against):
        if time.monotonic() > end:
            break
        if unlike(answer, other):
            continue
        try:
            if same(other, answer, _QUICK) or same(answer, other, _QUICK):
                return index, slow
        except TimeoutError:
            slow.append(index)
            if len(answer) >= len(other):
                break
    return -1, slow


def grade(gold: str, answer: str) -> bool:
    """Whether `answer` is right; what cannot be decided in time is wrong."""
    try:
        return same(gold, answer)
    except TimeoutError:
        return False


def answer(request: dict[str, Any]) -> Any:
    """The value for one request."""
    if request["op"] == "match":
        return match(request["answer"], request["against"], request["limit"] * 0.6)
    return [grade(gold, answer) for gold, answer in request["pairs"]]


def main() -> None:
    """Serve requests until the input ends."""
    _follow_parent(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    _limit_memory()
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    try:
        import math_verify  # noqa: F401
    except ImportError as error:
        print(json.dumps({"error": str(error)}), file=replies, flush=True)
        return
    import logging

    logging.disable(logging.CRITICAL)
    print(json.dumps({"ready": os.getpid()}), file=replies, flush=True)
    with os.fdopen(quiet, "w") as nowhere:
        for line in sys.stdin.buffer:
            request = json.loads(line)
            # The parent kills an overrun; this timer (a C thread, so no lock can stop it) covers its absence.
            faulthandler.dump_traceback_later(request["limit"] + 1, exit=True, file=nowhere)
            try:
                value = answer(request)
            except Exception:  # noqa: BLE001 - whatever odd mathematics raises, it is unreadable
                value = None
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps({"value": value}), file=replies, flush=True)


if __name__ == "__main__":
    main()
