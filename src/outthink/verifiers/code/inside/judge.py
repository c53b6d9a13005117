"""The process that runs the test, and alone says whether it ran to the end.

Knows the test and the problem's own prompt. Does not run the tested code: its objects are asked through a
pipe to another sandbox, from which plain values and numbers of objects come back and nothing else.
"""

from __future__ import annotations

import builtins
import sys
import traceback
import types
from types import CodeType

from outthink.verifiers.code.inside.limits import confine
from outthink.verifiers.code.inside.proxies import PROBLEM, Broken, Ended, Far, Gone, RemoteClass, is_remote
from outthink.verifiers.code.inside.values import Others, Value, pack, unpack
from outthink.verifiers.code.inside.wire import Malformed, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LONG = 300  # characters of an explanation
_PLAIN = Others()
NEVER_CALLS = "it never calls {}"


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
    (program, prompt, entry_point, test), _ = unpack(first[1], _PLAIN)
    word, message = _verdict(far, program, prompt, entry_point, test)
    send(outward, b"V", pack((word, message[:_LONG]), _PLAIN)[0])


def _verdict(far: Far, program: Value, prompt: str, entry_point: str, test: str) -> tuple[str, str]:
    try:
        send(far.calls, b"P", pack((program, entry_point, _left_to_the_code(program, test)), _PLAIN)[0])
        kind, content = far.take()
        if kind != b"R":
            (kinds, message, _), _ = unpack(content, _PLAIN)[0]
            why = f"the code cannot be run: {next(iter(kinds))}: {message}"
            return _unused(prompt, entry_point, test) or ("failed", why)
    except (Gone, OSError) as error:
        return "gone", str(Gone() if isinstance(error, OSError) else error)
    except (Ended, Malformed, TypeError, ValueError, StopIteration, RecursionError) as error:
        return "failed", str(error)
    try:
        _test(far, prompt, entry_point, test)
    except Broken as error:
        return "broken", str(error)
    except BaseException as error:  # noqa: BLE001 - a test says no by raising, whatever it raises
        if far.end is None and not far.touched and not isinstance(error, AssertionError):
            return _missing(error, test) or ("broken", _where(error, test))
        return _word(far), _where(far.end or error, test)
    if far.end is not None:  # a test that catches everything
        return _word(far), str(far.end)
    if not far.asked:  # whether it calls the code may hang on the code's own names
        return "failed" if far.given else "broken", NEVER_CALLS.format(entry_point)
    return "passed", ""


def _word(far: Far) -> str:
    return {Gone: "gone", Broken: "broken"}.get(type(far.end), "failed")


def _test(far: Far, prompt: str, entry_point: str, test: str) -> None:
    module = types.ModuleType(PROBLEM)
    sys.modules[PROBLEM] = sys.modules["__main__"] = module
    names = module.__dict__
    exec(_prompt(prompt), names)  # noqa: S102 - the problem's own text
    code = compile(test, "test.py", "exec", dont_inherit=True)
    _bind(far, names, entry_point, code, prompt, test)
    candidate = names[entry_point]
    exec(code, names)  # noqa: S102 - the problem's own text
    check = names.get("check")
    if check is candidate or check is None:
        if not far.touched:
            raise Broken("it defines no check(candidate)")
        return  # statements alone have judged
    if entry_point == "check":
        names["check"] = candidate  # the test's own calls of that name mean the tested function
    check(candidate)


def _bind(far: Far, names: dict[str, Value], entry_point: str, code: CodeType, prompt: str, test: str) -> None:
    """Make the names of the tested program visible that neither the problem nor Python defines."""
    classes = {name for name, value in names.items() if isinstance(value, type) and value.__module__ == PROBLEM}
    used = {name for name in _names(code) if name[:2] != "__" and name not in names and not hasattr(builtins, name)}
    try:
        found = far.request("names", sorted(used | classes | {entry_point}))
        if type(found) is not dict:
            raise TypeError("no names")
        far.entry = found.pop(entry_point)
        names[entry_point] = _callable(far)
    except Exception as error:  # noqa: BLE001 - values that cannot be sent, or none
        far.stop(Ended(f"the code gives no function {entry_point}: {error}"))
    far.asked, far.given = 0, not found.keys() <= classes
    far.touched = far.given
    for name, value in found.items():
        of_library = callable(value) and not is_remote(value)
        if name in classes and not isinstance(value, RemoteClass):
            continue
        if not of_library or value.__name__ == name:  # what is of the library goes by its own name only
            names[name] = value
    remote = {name for name, value in names.items() if isinstance(value, RemoteClass)}
    if remote:
        from outthink.verifiers.code.inside.program import classes_asked_for

        far.trusted |= {names[name] for name in classes_asked_for(prompt, test, entry_point) & remote}


def _callable(far: Far) -> Value:
    """The entry point; one of the library, such as `f = sorted`, is asked for there like any other."""
    if not callable(far.entry):
        raise TypeError(f"it is {far.entry!r:.100}")
    if is_remote(far.entry):
        return far.entry
    return lambda *arguments, **names: far.request("__call__", far.entry, *arguments, **names)


def _names(code: CodeType) -> Iterator[str]:
    """Every name that a piece of code and the functions in it look up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _prompt(prompt: str) -> CodeType:
    """A test uses the imports and helpers of the prompt, which ends in the head of a function, or is prose."""
    for source in (prompt, prompt + "\n    pass\n"):
        try:
            return compile(source, "prompt.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
    return compile("", "prompt.py", "exec", dont_inherit=True)


def _left_to_the_code(program: Value, test: str) -> list[str]:
    """Names that further blocks of the text may define for the test; without such blocks nobody asks."""
    if not program[2]:
        return []
    from outthink.verifiers.code.inside.program import left_to_the_code

    return sorted(left_to_the_code(test))


def _missing(error: BaseException, test: str) -> tuple[str, str] | None:
    """The verdict on code without a function or class that the test calls beside the entry point."""
    from outthink.verifiers.code.inside.program import calls

    if type(error) is not NameError or not calls(test, error.name or ""):
        return None
    return "failed", f"the code does not define {error.name}, which the test calls"


def _unused(prompt: str, entry_point: str, test: str) -> tuple[str, str] | None:
    """The verdict on a test that cannot call the code, whatever that is."""
    from outthink.verifiers.code.inside.program import never_named

    return ("broken", NEVER_CALLS.format(entry_point)) if never_named(test, entry_point) else None


def _where(error: BaseException, test: str) -> str:
    """The error with the last line of the test that it came through."""
    message = f"{type(error).__name__}: {_text(error)}" if not isinstance(error, Ended) else str(error)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "test.py"]
    source = test.splitlines()
    if not lines or not lines[-1] or lines[-1] > len(source):
        return message
    return f"{message.rstrip(': ')} at line {lines[-1]} of the test: {source[lines[-1] - 1].strip()}"


def _text(error: BaseException) -> str:
    """What an error says; one of the tested code is asked, and may answer anything."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - the verdict stands without it
        return ""
