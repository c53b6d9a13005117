"""The tested code's objects in the test's process: each keeps the methods of its class and is asked through the pipes.

Knows: numbers of objects, the classes made after the code's own, what may be handed over, and when the code is asked to
compare. Does not know the test or the verdict.
"""

from __future__ import annotations

import operator

from outthink.verifiers.code.inside.containers import Shared, changes, numbers_of, state, update
from outthink.verifiers.code.inside.exports import SPECIAL
from outthink.verifiers.code.inside.names import library, name_of, named, rebuilt
from outthink.verifiers.code.inside.values import BASES, Others, Value, pack, unpack
from outthink.verifiers.code.inside.wire import Malformed, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

_IMMUTABLE = BASES[:7]
_BINARY = frozenset((
    "lt", "le", "gt", "ge", "eq", "ne", "contains", "add", "radd", "sub", "rsub", "mul", "rmul", "truediv",
    "rtruediv", "floordiv", "rfloordiv", "mod", "rmod", "pow", "rpow", "and", "rand", "or", "ror", "xor",
    "rxor", "matmul", "rmatmul", "lshift", "rlshift", "rshift", "rrshift", "divmod", "rdivmod",
))  # fmt: skip
_PASSIVE = frozenset(("__repr__", "__str__", "__format__", "__hash__"))  # of a function they prove nothing
_COMPARING = frozenset(("startswith", "endswith", "issubset", "issuperset", "isdisjoint"))
"""Methods of plain values that say yes or no to what a test expects."""
PROBLEM = "problem"
"""The module that prompt and test run in."""
_READABLE = frozenset((
    "__name__", "__qualname__", "__doc__", "__dict__", "__annotations__", "__wrapped__", "__code__",
    "__defaults__", "__kwdefaults__", "__match_args__",
))  # fmt: skip
"""Names with underscores that are asked for; the others are Python's own business in the test's process."""


class Ended(BaseException):
    """The tested code gives no further values: nothing a test catches can make this a pass."""


class Gone(Ended):
    """The code's process is no more: it left, crashed, or used up its limits."""

    def __init__(self) -> None:
        super().__init__("the code's process ended")


class Broken(BaseException):
    """The test itself cannot be used."""


class RemoteClass(type):
    """A class of the tested code: calling it makes an object there."""

    far: Far

    def __call__(cls, *arguments: Value, **names: Value) -> Value:
        return cls.far.request("__call__", cls, *arguments, **names)

    def __getattr__(cls, name: str) -> Value:
        return cls.far.attribute(cls, name)

    def __setattr__(cls, name: str, value: Value) -> None:
        cls.far.request("set", cls, name, value)

    def __iter__(cls) -> Value:
        return cls.far.request("__iter__", cls)

    def __len__(cls) -> int:
        return cls.far.request("__len__", cls)  # type: ignore[no-any-return]

    def __bool__(cls) -> bool:
        return True

    def __getitem__(cls, key: Value) -> Value:
        return cls.far.request("__getitem__", cls, key)

    def __contains__(cls, item: Value) -> bool:
        return any(item is other for other in cls)

    def __repr__(cls) -> str:
        return f"<class 'solution.{cls.__name__}'>"


class Remote:
    """An object of the tested code."""

    far: Far

    def __getattr__(self, name: str) -> Value:
        return self.far.attribute(self, name)

    def __setattr__(self, name: str, value: Value) -> None:
        if name[:2] == "__":  # such as the traceback of an exception
            super().__setattr__(name, value)
        else:
            self.far.request("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        self.far.request("del", self, name)

    def __repr__(self) -> str:
        return str(self.far.request("__repr__", self))

    def __str__(self) -> str:
        return str(self.far.request("__str__", self))

    def __format__(self, form: str) -> str:
        return str(self.far.request("__format__", self, form))

    def __copy__(self) -> Value:
        return self.far.request("copy", self)

    def __deepcopy__(self, memo: Value) -> Value:
        return self.far.request("deepcopy", self)


def is_remote(value: Value) -> bool:
    """Whether a value is the tested code's own."""
    return issubclass(type(value), (Remote, RemoteClass))


class Far(Others):
    """The tested code behind its pipes.

    Args:
        calls, replies: where it is asked, and where it answers.
    """

    def __init__(self, calls: int, replies: int) -> None:
        self.calls, self.replies = calls, replies
        self.asked = 0
        self.given = self.touched = False
        """Whether the test has names of the program besides the entry point, and whether anything of the code's has
        reached it, so that what goes wrong may be the code's doing."""
        self.end: BaseException | None = None
        self.trusted: set[type] = set()
        self.entry: Value = None
        self._objects: dict[int, Value] = {}
        self._numbers: dict[int, int] = {}
        self._mutable: dict[type, bool] = {}
        self._lent: list[Value] = []
        self._lent_as: dict[int, int] = {}
        self._shared = Shared()

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

    def request(self, operation: str, /, *arguments: Value, **names: Value) -> Value:
        """What an operation on the code's objects returns, or raise what it raises."""
        if self.end is not None:
            raise self.end
        changed = self._shared.changed()
        message: Value = (operation, arguments, names, changed) if changed or names else (operation, arguments)
        try:
            data, mine = pack(message, self, self._shared.containers)
        except Malformed as error:
            # Once the test has anything of the code, that may be what it cannot hand back.
            self.stop(Ended(str(error)) if self.touched else Broken(str(error)))
        known = [*self._shared.containers, *mine]
        self.asked += operation not in _PASSIVE
        self.touched = True
        self._send(b"C", data)
        while True:
            kind, content = self.take()
            if kind == b"K":
                self._call_lent(content)
                continue
            try:
                kept, content = numbers_of(content)
                value, made = unpack(content, self, known)
                if kind != b"V":
                    value, changed = value
                    update(known, changed)
                if kept or self._shared.containers:
                    self._shared.add([*known, *made], kept)
                if kind != b"E":
                    return value
                raised = _raised(*value)
            except Exception as bad:  # noqa: BLE001 - whatever comes of bytes that are no values
                self.stop(Ended(f"the code sent no value: {bad}"))
            if not isinstance(raised, Exception):
                self.stop(raised)
            if isinstance(raised, StopIteration) and operation == "__call__" and arguments[0] is self.entry:
                raise RuntimeError("the code raised StopIteration") from raised  # it would end the test's own loops
            raise raised

    def attribute(self, target: Value, name: str) -> Value:
        """An attribute that the test asks for by name."""
        if name[:2] == "__" and name not in _READABLE:
            raise AttributeError(name)
        kind = type(target)
        if name in _COMPARING and issubclass(kind, Remote) and self.trusted.isdisjoint(kind.__mro__):
            return getattr(self.request("held", target), name)
        value = self.request("get", target, name)
        self.asked -= name[:2] == "__"  # what a function is called proves nothing of it
        return value

    def binary(self, name: str, left: Value, right: Value) -> Value:
        """A binary operation of an object with another value.

        What a test expects is not shown to code that could then say it is equal: only objects of the code's own, or
        of a class that the problem asks for, are compared there. Others compare by their plain content, if at all.
        """
        operation = "__" + name.removeprefix("r") + "__" if name[0] == "r" and name != "rshift" else f"__{name}__"
        pair = (right, left) if operation != f"__{name}__" else (left, right)
        kind = type(left)
        if is_remote(right) or (not self.trusted.isdisjoint(kind.__mro__) and self._crosses(right)):
            return self.request(operation, *pair)
        if self._mutable.get(kind):
            held = self.request("held", left)
            pair = (right, held) if operation != f"__{name}__" else (held, right)
            return getattr(operator, operation)(*pair)
        base = next((base for base in _IMMUTABLE if issubclass(kind, base)), object)
        method = getattr(base, f"__{name}__", None)
        if name == "contains" and method is None:
            return any(right is item or right == item for item in left)
        return NotImplemented if method is None else method(left, right)

    def _crosses(self, value: Value) -> bool:
        try:
            pack(value, self)
        except (Malformed, RecursionError):
            return False
        return True

    def describe(self, value: Value) -> tuple[Value, ...] | int | None:
        """How the code is told of a value that is not plain."""
        if is_remote(value):
            number = self._numbers.get(id(value))
            if number is None:
                raise Malformed("a class that the test derives from the code's own cannot be handed over")
            return number
        where = name_of(value, everything=True)
        if where is not None:
            return "named", *where
        if isinstance(value, Exception):
            return "error", *_told(value)
        word = _lending(value)
        if word is None:
            return None
        number = self._lent_as.setdefault(id(value), len(self._lent))
        if number == len(self._lent):
            self._lent.append(value)
        about = getattr(value, "__doc__", None)
        name = str(getattr(value, "__name__", type(value).__name__))
        return word, number, name, about if isinstance(about, str) else None

    def meet(self, description: Value) -> Value:
        """The value that the code has described: a proxy, something of the library, or what was lent."""
        word, *rest = description
        if word == "object":
            number, kind, held = rest
            known = self._objects.get(number)
            return self._made(number, self.meet(kind), held) if known is None else known
        if word == "class":
            number, about = rest
            return self._objects[number] if about is None else self._make_class(number, *about)
        if word == "named":
            return named(*rest)
        return library(*rest)

    def own(self, number: int) -> Value:
        """What was lent."""
        return self._lent[number]

    def _send(self, kind: bytes, data: bytes) -> None:
        try:
            send(self.calls, kind, data)
        except OSError:
            self.stop(Gone())

    def _made(self, number: int, kind: type, held: Value) -> Value:
        if not issubclass(type(kind), RemoteClass):
            raise ValueError("an object of no class")
        value: Value
        if issubclass(kind, BaseException):
            value = kind.__new__(kind, *held)
        else:
            make: Value = next((base for base in _IMMUTABLE if issubclass(kind, base)), None)
            value = object.__new__(kind) if make is None else make.__new__(kind, held)
        return self._keep(number, value)

    def _keep(self, number: int, value: Value) -> Value:
        self._objects[number] = value
        self._numbers[id(value)] = number
        return value

    def _make_class(self, number: int, name: str, bases: Sequence[Value], specials: Sequence[str], like: Value) -> type:
        kinds = [base for base in bases if issubclass(type(base), RemoteClass)]
        plain = [
            base for base in bases if base in _IMMUTABLE or (isinstance(base, type) and issubclass(base, Exception))
        ]
        kinds += [base for base in plain if not issubclass(type(base), RemoteClass)]
        if not any(issubclass(type(base), RemoteClass) for base in kinds):
            kinds.insert(0, Remote)
        members: dict[str, Value] = {f"__{word}__": _method(word) for word in SPECIAL if f"__{word}__" in specials}
        members["__doc__"] = _DOC
        members.setdefault("__hash__", None if "-hash" in specials else _hash)
        resembles = named(*like) if like is not None else None
        if resembles is not None and not (isinstance(resembles, type) and issubclass(resembles, BaseException)):
            members["__class__"] = property(lambda self: resembles)
        try:
            kind = type.__new__(RemoteClass, str(name), tuple(kinds), members)
        except TypeError:  # bases that do not go together here
            kind = type.__new__(RemoteClass, str(name), (Remote,), members)
        type.__setattr__(kind, "far", self)
        self._mutable[kind] = any(base in BASES[7:] or self._mutable.get(base) for base in bases)
        return self._keep(number, kind)  # type: ignore[no-any-return]

    def _call_lent(self, content: bytes) -> None:
        """Do what the code asks of something that it was handed, and tell it what came of it."""
        containers: list[Value] = []
        before: list[tuple[Value, ...]] = []
        try:
            (number, operation, arguments, names), containers = unpack(content, self)
            before = state(containers)
            target = self._lent[number]
        except Exception as bad:  # noqa: BLE001 - whatever comes of bytes that are no values
            self.stop(Ended(f"the code sent no value: {bad}"))
        try:
            kind, value = b"V", _use(target, operation, arguments, names)
        except Exception as error:  # noqa: BLE001 - handed on to the code, as it would be in one process
            kinds, message, given = _told(error)
            kind, value = b"E", (kinds, message, error if is_remote(error) else given)
        try:
            reply, _ = pack((value, changes(containers, before)), self, containers)
        except (Malformed, RecursionError) as error:  # the code has called, so the value may be its own
            self.stop(Ended(f"what the test gives back cannot be handed over: {error}"))
        self._send(kind, reply)


def _lending(value: Value) -> str | None:
    """What the code may do with a value of the test: call it, await it, take its items, or read and set attributes."""
    if callable(value):
        return "callable"
    if hasattr(type(value), "__await__"):
        return "awaitable"
    if hasattr(type(value), "__next__"):
        return "iterator"
    own = type(value).__module__ == PROBLEM and not issubclass(type(value), BASES)
    return "object" if own else None


def _use(target: Value, operation: str, arguments: tuple[Value, ...], names: dict[str, Value]) -> Value:
    if operation == "__next__":
        return next(target)
    if operation == "__call__":
        return target(*arguments, **names)
    if operation == "__await__":
        return _awaited(target)
    name, *value = arguments
    if _lending(target) != "object" or type(name) is not str or name.startswith("_"):
        raise AttributeError(name)
    return setattr(target, name, value[0]) if operation == "set" else getattr(target, name)


def _awaited(target: Value) -> Value:
    """What an awaitable of the test gives, in a loop of its own: the test's loop waits for the code meanwhile."""
    asyncio = library("asyncio")
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(target)
    finally:
        loop.close()
        asyncio._set_running_loop(running)


def _told(error: Exception) -> tuple[list[str], str, tuple[Value, ...]]:
    """Kinds, message and plain arguments of an exception of the test."""
    message = str(error)[:500]
    try:
        pack(error.args, Others())
    except (Malformed, RecursionError):
        return [part.__name__ for part in type(error).__mro__], message, (message,)
    return [part.__name__ for part in type(error).__mro__], message, error.args


def _raised(kinds: Sequence[str], message: str, value: Value) -> BaseException:
    """What the code raised; what is no Exception (SystemExit) ends the check."""
    if is_remote(value) and isinstance(value, Exception):
        return value
    return rebuilt(kinds, message, value if isinstance(value, tuple) else ()) or Ended(f"{kinds[0]}: {message}")


class _Documentation:
    """What a class or an object of the tested code says of itself."""

    def __get__(self, value: Value, kind: Value) -> Value:
        return kind.far.attribute(kind if value is None else value, "__doc__")


_DOC = _Documentation()


def _hash(self: Remote) -> int:
    return self.far.request("__hash__", self)  # type: ignore[no-any-return]


def _method(word: str) -> Callable[..., Value]:
    """A special method that asks the code."""
    if word in ("exit", "aexit"):  # a traceback is no matter of the code's
        return lambda self, kind, error, _: self.far.request(f"__{word}__", self, kind, error, None)
    if word in _BINARY:
        return lambda self, other: self.far.binary(word, self, other)
    name = f"__{word}__"
    return lambda self, *arguments, **names: self.far.request(name, self, *arguments, **names)
