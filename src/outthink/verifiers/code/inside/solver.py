"""The process that runs the tested code: calls its function when asked, and sends back what it returns.

Knows the program and the arguments of the calls. Does not know the test, what it expects, or the verdict;
there is nothing here that tested code could read or send to be judged a pass except right values.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

from outthink.verifiers.code.inside.limits import confine
from outthink.verifiers.code.inside.wire import Value, decode, encode, receive, send


def main() -> None:
    """Serve one program until the judge hangs up. Arguments: seconds of processor time, bytes of memory."""
    inward, outward = confine(int(sys.argv[1]), int(sys.argv[2]))
    send(outward, b"H")
    first = receive(inward)
    if first is None:
        return
    program, entry_point = decode(first[1])
    try:
        candidate = _load(program, entry_point)
    except BaseException as error:  # noqa: BLE001 - whatever the program raises is its verdict
        send(outward, b"E", _said(error))
        return
    send(outward, b"R")
    while (call := receive(inward)) is not None:
        arguments, names = decode(call[1])
        try:
            reply = b"V", encode(candidate(*arguments, **names))
        except BaseException as error:  # noqa: BLE001 - handed on to the test, which decides
            reply = b"E", _said(error)
        send(outward, *reply)


def _load(program: str, entry_point: str) -> Callable[..., Value]:
    # A program expects to be the main module: dataclasses, doctest and `if __name__` look there.
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv[:] = ["solution.py"]
    # Without dont_inherit this file's own `from __future__ import annotations` would hold in the program.
    exec(compile(program, "solution.py", "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - what this process is for
    if entry_point not in module.__dict__:
        raise NameError(f"name '{entry_point}' is not defined")
    candidate: Callable[..., Value] = module.__dict__[entry_point]
    return candidate


def _said(error: BaseException) -> bytes:
    kinds = [kind.__name__ for kind in type(error).__mro__[:20]]
    try:
        message = str(error)[:500]
    except Exception:  # noqa: BLE001 - the tested code's own __str__
        message = ""
    return encode((kinds, message))
