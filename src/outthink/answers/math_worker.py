"""The worker process that parses and compares mathematics: one JSON object a line in, one out.

Knows math-verify and how to die: with its parent, on end of input, or when an operation overruns. All limits are
processor time of this process: by the wall clock, other work on the cores would make right answers unreadable.
Does not know outthink, so it is run as a plain script: the parent's package is not imported again,
and the modules beside it (`kinds.py`, `number.py`) cannot shadow others (`python -P`).

Operations, each with a "limit" in seconds of processor time and a "backstop" in seconds by the wall clock:
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
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NotRequired, ParamSpec, TextIO, TypedDict, TypeVar

if TYPE_CHECKING:
    from types import FrameType

    from sympy import Basic

P = ParamSpec("P")
R = TypeVar("R")

_MEMORY = 3 << 30  # bytes of address space: a tower of powers must not take the machine down
_POSIX = os.name == "posix"  # elsewhere there are no interval timers, and math-verify's own limits hold
_SOFT = 2  # seconds for one parse or one grade
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


def timeout(seconds: float) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`math_verify.utils.timeout` by processor time; that one sets an alarm on the wall clock.

    The virtual timer interrupts the interpreter, so that sympy can be left. The profiling timer is the operation's.
    """

    def decorator(function: Callable[P, R]) -> Callable[P, R]:
        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            try:
                return function(*args, **kwargs)
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)

        return limited

    return decorator


def _use_processor_time() -> None:
    """Put our `timeout` in the place of math-verify's."""
    from math_verify import grader, parser
    from math_verify.errors import TimeoutException

    def overrun(number: int, frame: FrameType | None) -> None:
        raise TimeoutException("out of processor time")

    signal.signal(signal.SIGVTALRM, overrun)
    parser.timeout = lambda timeout_seconds: timeout(timeout_seconds)
    grader.timeout = lambda timeout_seconds: timeout(timeout_seconds)


@lru_cache(maxsize=8192)
def parsed(latex: str) -> tuple[Basic | str, ...]:
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
        expressions = parsed(latex)
        verify(parse("0"), list(expressions), timeout_seconds=_SOFT, raise_on_error=True)
    except (TimeoutException, MemoryError, RecursionError):
        return False
    except Exception:  # noqa: BLE001 - not comparable with a number, which is no fault
        return True
    return bool(expressions)


def _evaluated(expression: Basic | str) -> complex | None:
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
    from math_verify.utils import timeout as by_the_wall_clock

    expressions = parsed(latex)
    limited = (timeout if _POSIX else by_the_wall_clock)(_QUICK)
    try:
        value: complex | None = limited(_evaluated)(expressions[0]) if expressions else None
    except (Exception, TimeoutException):  # noqa: BLE001 - then algebra decides
        return None
    return value


def unlike(left: str, right: str) -> bool:
    """True where two expressions clearly differ at a point: 0.1 ms that saves 10 ms of algebra."""
    a, b = fingerprint(left), fingerprint(right)
    return a is not None and b is not None and abs(a - b) > max(abs(a), abs(b), 1.0) / 1000


def match(answer: str, against: list[str], limit: float) -> tuple[int, list[int]] | None:
    """Index of the first of `against` that equals `answer` in either direction (-1: none), and the slow ones.

    Of a pair that takes too long the longer expression is to blame: if that is `answer`, no more are tried.
    Comparisons stop after `limit` seconds of processor time: what was not compared counts as different.
    """
    end = time.process_time() + limit
    if not tame(answer):
        return None
    slow: list[int] = []
    for index, other in enumerate(against):
        if time.process_time() > end:
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


class Request(TypedDict):
    """One line of input; which fields beside the limits there are depends on `op`."""

    op: str
    limit: float
    backstop: float
    answer: NotRequired[str]
    against: NotRequired[list[str]]
    pairs: NotRequired[list[tuple[str, str]]]


def answer(request: Request) -> tuple[int, list[int]] | list[bool] | None:
    """The value for one request."""
    if request["op"] == "match":
        return match(request["answer"], request["against"], request["limit"] * 0.6)
    return [grade(gold, answer) for gold, answer in request["pairs"]]


def _start_limits(request: Request, nowhere: TextIO) -> None:
    if _POSIX:
        # Nobody handles SIGPROF: it ends this process at once, even within a power of big integers.
        signal.setitimer(signal.ITIMER_PROF, request["limit"])
    # The parent kills a worker that waits for ever; this timer (a C thread, so no lock can stop it) covers its absence.
    faulthandler.dump_traceback_later(request["backstop"] + 1, exit=True, file=nowhere)


def _end_limits() -> None:
    faulthandler.cancel_dump_traceback_later()
    if _POSIX:
        signal.setitimer(signal.ITIMER_PROF, 0)


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

        if _POSIX:
            _use_processor_time()
    except ImportError as error:
        print(json.dumps({"error": str(error)}), file=replies, flush=True)
        return
    import logging

    logging.disable(logging.CRITICAL)
    print(json.dumps({"ready": os.getpid()}), file=replies, flush=True)
    with os.fdopen(quiet, "w") as nowhere:
        for line in sys.stdin.buffer:
            request: Request = json.loads(line)
            _start_limits(request, nowhere)
            try:
                value = answer(request)
            except Exception:  # noqa: BLE001 - whatever odd mathematics raises, it is unreadable
                value = None
            _end_limits()
            print(json.dumps({"value": value}), file=replies, flush=True)


if __name__ == "__main__":
    main()
