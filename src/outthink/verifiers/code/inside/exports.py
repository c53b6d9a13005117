"""The tested code's objects as the test's process is told of them, and what that process may do with them.

Knows: objects by number, what is told of a class, the operations, and the callables of the test that code was handed.
Does not know the program, the test or the pipes' other end.
"""

from __future__ import annotations

import builtins
import operator
import types

from outthink.verifiers.code.inside.names import library, name_of, named, rebuilt
from outthink.verifiers.code.inside.values import BASES, Others, Value, content

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Ask = Callable[[int, str, tuple[Value, ...], dict[str, Value]], Value]

SPECIAL = frozenset((
    "lt", "le", "gt", "ge", "eq", "ne", "hash", "bool", "len", "iter", "next", "reversed", "contains",
    "getitem", "setitem", "delitem", "call", "enter", "exit", "int", "float", "complex", "index", "abs", "neg",
    "pos", "invert", "round", "trunc", "floor", "ceil", "bytes", "divmod", "rdivmod", "add", "radd", "iadd",
    "sub", "rsub", "isub", "mul", "rmul", "imul", "truediv", "rtruediv", "itruediv", "floordiv", "rfloordiv",
    "ifloordiv", "mod", "rmod", "imod", "pow", "rpow", "ipow", "and", "rand", "iand", "or", "ror", "ior", "xor",
    "rxor", "ixor", "lshift", "rlshift", "ilshift", "rshift", "rrshift", "irshift", "matmul", "rmatmul",
    "imatmul", "await", "aiter", "anext", "aenter", "aexit",
))  # fmt: skip
"""Special methods that an object of the tested code keeps in the test's process."""


def _held(value: Value) -> Value:
    base = next((base for base in BASES if issubclass(type(value), base)), None)
    if base is None:
        raise TypeError(f"a {type(value).__name__} holds nothing plain")
    return content(value, base)


async def _whole(value: Value) -> Value:
    """An awaitable that is over after one step: the test's process has another event loop than the tested code."""
    asyncio = library("asyncio")
    if asyncio._get_running_loop() is not None:
        return await value
    if not _loops:
        _loops.append(asyncio.new_event_loop())
    return _loops[0].run_until_complete(_whole(value))


_loops: list[Value] = []  # one at most, so that what is awaited now and later belongs together
_BUILTINS = ("iter", "next", "len", "bool", "hash", "repr", "str", "format", "reversed", "divmod", "pow")
_OPERATIONS: dict[str, Callable[..., Value]] = {
    "get": getattr,
    "set": setattr,
    "del": delattr,
    "held": _held,
    "copy": lambda value: library("copy").copy(value),
    "deepcopy": lambda value: library("copy").deepcopy(value),
    "__call__": lambda function, *arguments, **names: function(*arguments, **names),
    "__await__": lambda value: _whole(value).__await__(),
    **{f"__{name}__": vars(builtins)[name] for name in _BUILTINS},
}


def perform(operation: str, arguments: tuple[Value, ...], names: dict[str, Value] | None = None) -> Value:
    """Carry out one operation; what it raises is the tested code's own."""
    function = _OPERATIONS.get(operation) or getattr(operator, operation, None)
    if function is None:
        function = getattr(type(arguments[0]), operation)
    return function(*arguments, **names) if names else function(*arguments)


class Borrowed:
    """A callable of the test."""

    def __init__(self, number: int, name: str, about: str | None, ask: Ask) -> None:
        self._number, self._ask = number, ask
        self.__name__ = self.__qualname__ = name
        self.__doc__ = about

    def __call__(self, *arguments: Value, **names: Value) -> Value:
        """Call it, where it is."""
        return self._ask(self._number, "__call__", arguments, names)


class BorrowedIterator(Borrowed):
    """An iterator of the test."""

    def __iter__(self) -> BorrowedIterator:
        return self

    def __next__(self) -> Value:
        return self._ask(self._number, "__next__", (), {})


class BorrowedObject:
    """An object of the test: its attributes are where it is."""

    def __init__(self, number: int, name: str, about: str | None, ask: Ask) -> None:
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_ask", ask)

    def __getattr__(self, name: str) -> Value:
        return self._ask(self._number, "get", (name,), {})

    def __setattr__(self, name: str, value: Value) -> None:
        self._ask(self._number, "set", (name, value), {})


class BorrowedAwaitable(Borrowed):
    """An awaitable of the test, which waits for all of it at once."""

    def __await__(self) -> Generator[None, None, Value]:
        yield from ()
        return self._ask(self._number, "__await__", (), {})


_BORROWED = {
    "awaitable": BorrowedAwaitable,
    "callable": Borrowed,
    "iterator": BorrowedIterator,
    "object": BorrowedObject,
}


class Exports(Others):
    """What of the tested code has been told of. It holds every object that it has given a number.

    Args:
        ask: called with the number of what the test has lent, an operation and its arguments.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._objects: list[Value] = []
        self._numbers: dict[int, int] = {}
        self._numbered: list[Value] = []  # nothing else may get the address of one of them
        self._borrowed: dict[int, Value] = {}
        self._told: set[int] = set()
        self._telling: set[int] = set()

    def describe(self, value: Value) -> tuple[Value, ...] | int:
        """How the test's process is told of a value."""
        kind = type(value)
        if issubclass(kind, (Borrowed, BorrowedObject)):
            number: int = value._number
            return number
        where = name_of(value)
        if where is not None:
            return "named", *where
        if kind is types.ModuleType:
            return "module", str(vars(value).get("__name__"))
        if issubclass(kind, type):
            return self._class(value)
        base = next((base for base in BASES[:7] if issubclass(kind, base)), None)
        held: Value
        if issubclass(kind, BaseException):
            held = tuple(BaseException.__getattribute__(value, "args"))
        else:
            held = None if base is None else content(value, base)
        return "object", self._number(value), self._class(kind), held

    def told(self) -> None:
        """The last descriptions were sent: no class in them need be told of again."""
        self._told |= self._telling
        self._telling.clear()

    def untold(self) -> None:
        """The last descriptions were not sent."""
        self._telling.clear()

    def own(self, number: int) -> Value:
        """An object that was told of."""
        return self._objects[number]

    def meet(self, description: Value) -> Value:
        """A value of the test's process."""
        word, *rest = description
        if word == "named":
            return named(rest[0], rest[1], everything=True)
        if word == "error":
            return rebuilt(*rest) or Exception(rest[1])
        number, name, about = rest
        if number not in self._borrowed:
            self._borrowed[number] = _BORROWED[word](number, name, about, self._ask)
        return self._borrowed[number]

    def _number(self, value: Value) -> int:
        number = self._numbers.setdefault(id(value), len(self._objects))
        if number == len(self._objects):
            self._objects.append(_whole(value) if type(value) is types.CoroutineType else value)
            self._numbered.append(value)
        return number

    def _class(self, kind: type) -> tuple[Value, ...]:
        number = self._number(kind)
        if number in self._told or number in self._telling:
            return "class", number, None
        self._telling.add(number)
        return "class", number, (type.__dict__["__name__"].__get__(kind), _bases(kind), _specials(kind), _like(kind))


def _bases(kind: type) -> tuple[type, ...]:
    """The bases of a class that mean something elsewhere: the program's own, and Python's plain values and errors."""
    bases = (kind,) if name_of(kind) is not None else type.__dict__["__bases__"].__get__(kind)
    found: list[type] = []
    for base in bases:
        if base is not kind and name_of(base) is None:
            found.append(base)
        else:
            found += [part for part in type.__dict__["__mro__"].__get__(base) if _means(part)][:1]
    return tuple(dict.fromkeys(found))


def _means(kind: type) -> bool:
    return kind in BASES or (issubclass(kind, BaseException) and kind.__module__ == "builtins")


def _specials(kind: type) -> tuple[str, ...]:
    """The special methods that a class has of its own or from its bases; `-hash` where it cannot be hashed."""
    found: dict[str, bool] = {}
    for part in type.__dict__["__mro__"].__get__(kind):
        if part is object or part in BASES[:7]:
            continue
        for name, value in vars(part).items():
            if name[:2] == "__" == name[-2:] and name[2:-2] in SPECIAL:
                found.setdefault(name, value is not None)
    return (*(name for name, there in found.items() if there), *(["-hash"] if found.get("__hash__") is False else []))


def _like(kind: type) -> tuple[str, str] | None:
    """The class of the library that objects of a class are taken for."""
    for part in type.__dict__["__mro__"].__get__(kind):
        where = name_of(part)
        if where is not None and part is not object:
            return where
    return None
