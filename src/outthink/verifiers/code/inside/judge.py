"""The process that runs the test, and alone says whether it ran to the end.

Knows the test and the problem's own prompt. Does not run the tested code: its function is asked through a
pipe to another sandbox, from which plain values come back and nothing else.
"""

from __future__ import annotations

import builtins
import sys
import traceback
import types
from collections.abc import Callable
from typing import NoReturn

from outthink.verifiers.code.inside.limits import confine
from outthink.verifiers.code.inside.wire import Malformed, Value, decode, encode, receive, send

_LONG = 300  # characters of an explanation


class Ended(BaseException):
    """The tested code gives no further values: nothing a test catches can make this a pass."""


class Gone(Ended):
    """The code's process is no more: it left, crashed, or used up its limits."""

    def __init__(self) -> None:
        super().__init__("the code's process ended")


class Broken(BaseException):
    """The test itself cannot be used."""


class Far:
    """The tested code behind its pipes."""

    def __init__(self, calls: int, replies: int) -> None:
        self.calls, self.replies = calls, replies
        self.asked = 0
        self.end: BaseException | None = None

    def take(self) -> tuple[bytes, bytes]:
        """The next frame. Raises Ended where there is none."""
        try:
            frame = receive(self.replies)
        except (Malformed, OSError) as error:
            self.stop(Ended(f"the code sent no value: {error}"))
        if frame is None:
            self.stop(Gone())
        return frame

    def stop(self, why: BaseException) -> NoReturn:
        """Give up for good."""
        self.end = self.end or why
        raise self.end

    def call(self, *arguments: Value, **names: Value) -> Value:
        """What the tested function returns, or raise what it raises."""
        if self.end is not None:
            raise self.end
        try:
            data = encode((arguments, names), strict=True)
        except Malformed as error:
            self.stop(Broken(str(error)))
        self.asked += 1
        try:
            send(self.calls, b"C", data)
        except OSError:
            self.stop(Gone())
        kind, content = self.take()
        try:
            value = decode(content)
            if kind == b"V":
                return value
            kinds, message = value
            raised = _exception(list(kinds), str(message))
        except (Malformed, RecursionError, TypeError, ValueError) as bad:
            self.stop(Ended(f"the code sent no value: {bad}"))
        if not isinstance(raised, Exception):
            self.stop(raised)
        raise raised


def _exception(kinds: list[str], message: str) -> BaseException:
    """A built-in exception of the nearest kind; what is no Exception (SystemExit) ends the check."""
    if "Exception" not in kinds:
        return Ended(f"{kinds[0]}: {message}")
    for name in kinds:
        kind = vars(builtins).get(name)
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(message)
            except TypeError:  # it wants more than a message, such as UnicodeDecodeError
                continue
    return Exception(message)


def main() -> None:
    """Judge once. Arguments: seconds of processor time, bytes of memory, and the two pipes to the code."""
    cpu, memory, calls, replies = (int(argument) for argument in sys.argv[1:])
    inward, outward = confine(cpu, memory)
    first = receive(inward)
    far = Far(calls, replies)
    far.take()  # the solver's first frame is sent before any tested code runs
    send(outward, b"H")
    if first is None:
        return
    program, prompt, entry_point, test = decode(first[1])
    word, message = _verdict(far, program, prompt, entry_point, test)
    send(outward, b"V", encode((word, message[:_LONG])))


def _verdict(far: Far, program: str, prompt: str, entry_point: str, test: str) -> tuple[str, str]:
    try:
        send(far.calls, b"P", encode((program, entry_point)))
        kind, content = far.take()
        if kind != b"R":
            kinds, message = decode(content)
            return "failed", f"the code cannot be run: {next(iter(kinds))}: {message}"
    except (Gone, OSError) as error:
        return "gone", str(Gone() if isinstance(error, OSError) else error)
    except (Ended, Malformed, TypeError, ValueError, StopIteration, RecursionError) as error:
        return "failed", str(error)
    try:
        _test(far.call, prompt, entry_point, test)
    except Broken as error:
        return "broken", str(error)
    except BaseException as error:  # noqa: BLE001 - a test says no by raising, whatever it raises
        if far.end is None and far.asked == 0 and not isinstance(error, AssertionError):
            return "broken", _where(error, test)
        return _word(far), _where(far.end or error, test)
    if far.end is not None:  # a test that catches everything
        return _word(far), str(far.end)
    return "passed", ""


def _word(far: Far) -> str:
    return {Gone: "gone", Broken: "broken"}.get(type(far.end), "failed")


def _test(candidate: Callable[..., Value], prompt: str, entry_point: str, test: str) -> None:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    names = module.__dict__
    try:  # tests use the imports and helpers of the prompt, which ends in the head of the function
        source = compile(prompt, "prompt.py", "exec", dont_inherit=True)
    except SyntaxError:
        try:
            source = compile(prompt + "\n    pass\n", "prompt.py", "exec", dont_inherit=True)
        except SyntaxError:
            source = compile("", "prompt.py", "exec", dont_inherit=True)
    exec(source, names)  # noqa: S102 - the problem's own text
    names[entry_point] = candidate
    exec(compile(test, "test.py", "exec", dont_inherit=True), names)  # noqa: S102 - the problem's own text
    names["check"](candidate)


def _where(error: BaseException, test: str) -> str:
    """The error with the last line of the test that it came through."""
    message = f"{type(error).__name__}: {error}" if not isinstance(error, Ended) else str(error)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "test.py"]
    source = test.splitlines()
    if not lines or not lines[-1] or lines[-1] > len(source):
        return message
    return f"{message.rstrip(': ')} at line {lines[-1]} of the test: {source[lines[-1] - 1].strip()}"
