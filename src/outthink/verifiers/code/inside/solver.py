"""The process that runs the tested code: does with its objects what it is asked to, and sends back what comes of it.

Knows the program and the arguments of the calls. Does not know the test, what it expects, or the verdict;
there is nothing here that tested code could read or send to be judged a pass except right values.
"""

from __future__ import annotations

import sys
import types

from outthink.verifiers.code.inside.containers import Shared, changes, held_elsewhere, numbers, state, update
from outthink.verifiers.code.inside.exports import Exports, perform
from outthink.verifiers.code.inside.limits import confine
from outthink.verifiers.code.inside.names import name_of, rebuilt
from outthink.verifiers.code.inside.values import Others, Value, pack, unpack
from outthink.verifiers.code.inside.wire import Malformed, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

_PLAIN = Others()
_NAME = "solution"  # not `__main__`: a main guard does not run


def main() -> None:
    """Serve one program until the judge hangs up. Arguments: seconds of processor time, bytes of memory."""
    inward, outward = confine(int(sys.argv[1]), int(sys.argv[2]))
    send(outward, b"H")
    first = receive(inward)
    if first is None:
        return
    (program, entry_point, tested), _ = unpack(first[1], _PLAIN)
    server = _Server(inward, outward)
    try:
        server.load(_compiled(entry_point, tested, *program), entry_point)
    except BaseException as error:  # noqa: BLE001 - whatever the program raises is its verdict
        send(outward, b"E", _complaint(error))
        return
    send(outward, b"R")
    server.serve()


def _compiled(
    entry_point: str, tested: Sequence[str], prompt: str, code: str, others: Sequence[str], rest: Sequence[str]
) -> types.CodeType:
    """The program's code. Nearly all of them are Python as they stand; only the others pay for being looked into."""
    nested = code[:1].isspace() and entry_point in code  # perhaps the whole function, indented
    if not others and not nested:
        try:
            # Without dont_inherit this file's own `from __future__ import annotations` would hold in the program.
            return compile(prompt + code + "\n", "solution.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            pass  # no Python as it stands: `compiled` finds the code in it, or raises the error that is told
    from outthink.verifiers.code.inside.program import compiled

    return compiled(entry_point, tested, prompt, code, others, rest)


class _Server:
    """Answers the judge, also while the tested code waits for something that the judge has lent."""

    def __init__(self, inward: int, outward: int) -> None:
        self._inward, self._outward = inward, outward
        self._exports = Exports(self.ask)
        self._module = types.ModuleType(_NAME)
        self._shared = Shared()

    def load(self, program: types.CodeType, entry_point: str) -> None:
        """Run the program. Dataclasses, pickle and doctest look its module up by name."""
        sys.modules[_NAME] = sys.modules["__main__"] = self._module
        sys.argv[:] = ["solution.py"]
        exec(program, self._module.__dict__)  # noqa: S102 - what this process is for
        if entry_point not in self._module.__dict__:
            raise NameError(f"name '{entry_point}' is not defined")

    def serve(self) -> None:
        """Answer until the judge hangs up."""
        while (call := receive(self._inward)) is not None:
            self._answer(call[1])

    def ask(self, number: int, operation: str, arguments: tuple[Value, ...], names: dict[str, Value]) -> Value:
        """Have the judge call what it has lent; it may ask for more before it answers."""
        data, mine = pack((number, operation, arguments, names), self._exports)
        self._exports.told()
        send(self._outward, b"K", data)
        while (frame := receive(self._inward)) is not None:
            kind, reply = frame
            if kind == b"C":
                self._answer(reply)
                continue
            (value, changed), _ = unpack(reply, self._exports, mine)
            update(mine, changed)
            if kind == b"V":
                return value
            _raise(*value)
        raise SystemExit

    def _answer(self, data: bytes) -> None:
        known = list(self._shared.containers)
        found = known
        before: list[tuple[Value, ...]] = []
        try:
            (operation, arguments, *more), new = unpack(data, self._exports, known)
            if len(more) > 1:
                update(known, more.pop())
            found = [*known, *new]
            before = state(found)
            value = self._names(*arguments) if operation == "names" else perform(operation, arguments, *more)
            kind = b"W"
        except BaseException as error:  # noqa: BLE001 - handed on to the test, which decides
            kind, value = b"E", _said(error)
        arguments, more, new = (), [], []
        try:
            changed = changes(found, before)
            if kind == b"W" and not changed:
                kind = b"V"
            reply, made = pack(value if kind == b"V" else (value, changed), self._exports, found)
            found += made
            value, changed, before, made = None, [], [], []  # nothing here may hold on to what is looked for
            kept = held_elsewhere(found, len(known)) if len(found) > len(known) else []
            kept = self._shared.room_for(found, kept)
            self._shared.add(found, kept)
            reply = numbers(kept) + reply
            self._exports.told()
        except BaseException as error:  # noqa: BLE001 - a value that cannot be sent, or tested code that resists it
            self._exports.untold()
            kind, reply = b"E", numbers([]) + _complaint(error)
        send(self._outward, kind, reply)

    def _names(self, wanted: Sequence[str]) -> dict[str, Value]:
        """Those of the names that the program defines, for its test."""
        return {name: self._module.__dict__[name] for name in wanted if name in self._module.__dict__}


def _said(error: BaseException) -> tuple[Value, ...]:
    """An exception for the judge: its kinds, its message, and itself where its class is the program's own."""
    kinds = [kind.__name__ for kind in type(error).__mro__[:20]]
    try:
        message = str(error)[:500]
    except Exception:  # noqa: BLE001 - the tested code's own __str__
        message = ""
    own = name_of(type(error)) is None and not isinstance(error, Malformed)
    return kinds, message, error if own else error.args


def _complaint(error: BaseException) -> bytes:
    kinds, message, _ = _said(error)
    return pack(((kinds, message, ()), []), _PLAIN)[0]


def _raise(kinds: Sequence[str], message: str, value: Value) -> NoReturn:
    """Raise what a callable of the test has raised."""
    if isinstance(value, BaseException):
        raise value
    raise rebuilt(kinds, message, value) or Exception(message)
