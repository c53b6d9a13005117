"""Plain values as bytes, with their aliases.

Knows: None, bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict and its kinds in
`collections`, deque, range, slice, dates and times, Fraction, Decimal; reading them runs no code of the sender's. A
container that occurs twice in a message is one object on the other side too, and one that came with a call goes back
as a number: it is the caller's own. Everything else is described by the `Others` of each side. Does not know who
talks to whom.
"""

from __future__ import annotations

import struct
import sys

from outthink.verifiers.code.inside.wire import LIMIT, Malformed

# Two processes start for each check: what only annotations need is imported by nobody but the type checker.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Value = Any  # what the tested code makes: any Python object
else:
    Value = None

_LENGTH = struct.Struct("<I")
_FLOAT = struct.Struct("<d")
_CONSTANTS = {b"N": None, b"T": True, b"F": False, b"E": ..., b"I": NotImplemented}
_ROWS: dict[bytes, Value] = {b"l": list, b"t": tuple, b"S": set, b"Z": frozenset}
_FIXED = frozenset(_CONSTANTS)
_SIMPLE = frozenset((b"i", b"s", b"b", b"f", b"c", b"D", b"Q", *_CONSTANTS))
_MUTABLE = frozenset((b"l", b"S", b"d", b"B", b"C", b"O", b"U", b"q"))
_ITEMS = frozenset((b"l", b"t", b"S", b"Z", b"q"))
_FEW = 8
_WIDE = 2**63
_BUILTINS: dict[type, bytes] = {
    int: b"i", float: b"f", str: b"s", bytes: b"b", list: b"l", tuple: b"t", dict: b"d", set: b"S", frozenset: b"Z",
    complex: b"c", bytearray: b"B", range: b"x", slice: b"x",
    bool: b"T", type(None): b"N", type(...): b"E", type(NotImplemented): b"I",
    type({}.keys()): b"x", type({}.values()): b"x", type({}.items()): b"x",
}  # fmt: skip
_LIBRARY = {
    ("collections", "Counter"): b"C", ("collections", "OrderedDict"): b"O", ("collections", "defaultdict"): b"U",
    ("collections", "deque"): b"q", ("decimal", "Decimal"): b"D", ("fractions", "Fraction"): b"Q",
    ("datetime", "date"): b"x", ("datetime", "datetime"): b"x", ("datetime", "time"): b"x",
    ("datetime", "timedelta"): b"x", ("datetime", "timezone"): b"x",
}  # fmt: skip
_BUILT: dict[str, Callable[[Value], tuple[Value, ...]]] = {
    **dict.fromkeys(("range", "slice"), lambda value: (value.start, value.stop, value.step)),
    **dict.fromkeys(("dict_keys", "dict_values", "dict_items"), lambda value: (list(value),)),
}
_BUILDERS: dict[str, Callable[..., Value]] = {
    "range": range,
    "slice": slice,
    "dict_keys": lambda items: dict.fromkeys(items).keys(),
    "dict_values": lambda items: dict(enumerate(items)).values(),
    "dict_items": lambda items: dict(items).items(),
}
BASES = (int, float, complex, str, bytes, tuple, frozenset, list, dict, set, bytearray)
"""What a class may be derived from so that its instances have a plain content."""


class Others:
    """How one side tells of values that are not plain, and what it makes of those it is told of: here of none."""

    def describe(self, value: Value) -> tuple[Value, ...] | int | None:
        """A description in plain values and classes, the number of what is the receiver's own, None for the rest."""
        return None

    def own(self, number: int) -> Value:
        """What the sender knows by a number. Raises LookupError for a number that was never told."""
        raise LookupError(number)

    def meet(self, description: Value) -> Value:
        """The value of a description, whoever sent it. Raises ValueError or TypeError for anything else."""
        raise Malformed("a value that is not plain")


def pack(value: Value, others: Others, theirs: Sequence[Value] = ()) -> tuple[bytes, list[Value]]:
    """The bytes of a value, and its mutable containers in the order in which the reader meets them.

    Args:
        theirs: the receiver's own containers, which go back as their numbers.

    Raises Malformed for a value that is too large or has no description, RecursionError for one too deep.
    """
    writer = _Writer(others, theirs)
    writer.put(value)
    return b"".join(writer.parts), writer.mine


def unpack(data: bytes, others: Others, theirs: Sequence[Value] = ()) -> tuple[Value, list[Value]]:
    """The value of bytes, whoever made them, and its mutable containers.

    Raises Malformed for anything `pack` does not make.
    """
    reader = _Reader(data, others, theirs)
    try:
        value = reader.take()
    except (LookupError, struct.error, ValueError, TypeError, ArithmeticError) as error:
        raise Malformed(str(error)) from error
    if reader.at != len(data):
        raise Malformed("more bytes than a value")
    return value, reader.mine


class _Writer:
    """One message in the making."""

    def __init__(self, others: Others, theirs: Sequence[Value]) -> None:
        self.parts: list[bytes] = []
        self.mine: list[Value] = []
        self._others = others
        self._known = {id(value): b"r" + _LENGTH.pack(number) for number, value in enumerate(theirs)}
        self._size = 0

    def put(self, value: Value) -> None:
        """Append a value."""
        kind = type(value)
        tag = _BUILTINS.get(kind)
        if tag is None:
            tag = _rare(kind)
            if tag is None:
                self._describe(value)
                return
        if tag in _SIMPLE:
            self._add(_leaf(tag, value))
        elif tag in _MUTABLE and self._alias(value):
            return
        elif tag in _ITEMS:
            self._put_items(tag, value)
        elif tag == b"x":
            self._add(tag)
            self.put((kind.__name__, _built(value, kind)))
        elif tag == b"B":
            self._add(tag + _LENGTH.pack(len(value)) + value)
        else:
            self._add(tag + _LENGTH.pack(len(value)))
            if tag == b"U":
                self.put(value.default_factory)
            for key, item in list(value.items()):
                self.put(key)
                self.put(item)

    def _put_items(self, tag: bytes, value: Value) -> None:
        items = list(value)
        if len(items) > _FEW:  # of one kind: they are written at once
            kinds = set(map(type, items))
            letter = "q" if kinds == {int} else "d" if kinds == {float} else ""
            if letter and tag != b"q" and (letter == "d" or -_WIDE <= min(items) <= max(items) < _WIDE):
                self._add(b"n" + tag + letter.encode() + _LENGTH.pack(len(items)))
                self._add(struct.pack(f"<{len(items)}{letter}", *items))
                return
        self._add(tag + _LENGTH.pack(len(items)))
        if tag == b"q":
            self.put(value.maxlen)
        for item in items:
            self.put(item)

    def _add(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > LIMIT:
            raise Malformed(f"a value of more than {LIMIT} bytes is too large")
        self.parts.append(data)

    def _alias(self, value: Value) -> bool:
        """Whether a container has a number already, which is then enough; else it gets one."""
        known = self._known.get(id(value))
        if known is not None:
            self._add(known)
            return True
        self._known[id(value)] = b"a" + _LENGTH.pack(len(self.mine))
        self.mine.append(value)
        return False

    def _describe(self, value: Value) -> None:
        description = self._others.describe(value)
        if type(description) is int:
            self._add(b"h" + _LENGTH.pack(description))
            return
        if description is None:
            base = next((base for base in BASES if issubclass(type(value), base)), None)
            if base is None:
                raise Malformed(f"a {type(value).__name__} cannot be handed to the tested code")
            self.put(content(value, base))
            return
        self._add(b"o")
        self.put(description)


def content(value: Value, base: Value) -> Value:
    """What an instance of a derived class holds: by the base's own methods, so not what it claims."""
    if base is int or base is float:
        return base.__int__(value) if base is int else base.__float__(value)
    if base is complex:
        return complex(base.real.__get__(value), base.imag.__get__(value))
    if base is str or base is bytes:
        return base.__getitem__(value, slice(None))
    if base is dict:
        return {key: dict.__getitem__(value, key) for key in dict.__iter__(value)}
    return base(base.__iter__(value))


def _rare(kind: type) -> bytes | None:
    """The tag of a type in the library; no module is imported unless the program did."""
    for (module, name), tag in _LIBRARY.items():
        if getattr(sys.modules.get(module), name, None) is kind:
            _BUILTINS[kind] = tag
            return tag
    return None


def _leaf(tag: bytes, value: Value) -> bytes:
    data: bytes
    if tag == b"i":
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    elif tag == b"s":
        data = value.encode("utf-8", "surrogatepass")
    elif tag == b"f":
        return tag + _FLOAT.pack(value)
    elif tag == b"c":
        return tag + _FLOAT.pack(value.real) + _FLOAT.pack(value.imag)
    elif tag in _FIXED:
        return b"F" if value is False else tag
    else:
        data = value if tag == b"b" else str(value).encode()
    return tag + _LENGTH.pack(len(data)) + data


def _built(value: Value, kind: type) -> tuple[Value, ...]:
    """What a value of an immutable type is made from."""
    make = _BUILT.get(kind.__name__)
    if make is not None:
        return make(value)
    if kind.__name__ == "timezone":
        return value.__getinitargs__()  # type: ignore[no-any-return]
    return value.__reduce__()[1]  # type: ignore[no-any-return]


def _library(module: str, name: str) -> Value:
    return getattr(__import__(module), name)


_LEAVES: dict[bytes, Callable[[bytes], Value]] = {
    b"i": lambda data: int.from_bytes(data, "little", signed=True),
    b"s": lambda data: data.decode("utf-8", "surrogatepass"),
    b"b": bytes,
    b"D": lambda data: _library("decimal", "Decimal")(data.decode()),
    b"Q": lambda data: _library("fractions", "Fraction")(data.decode()),
}
_EMPTY: dict[bytes, Callable[[], Value]] = {
    b"l": list,
    b"S": set,
    b"d": dict,
    b"C": lambda: _library("collections", "Counter")(),
    b"O": lambda: _library("collections", "OrderedDict")(),
    b"U": lambda: _library("collections", "defaultdict")(),
}


_NUMBERED = frozenset((b"a", b"r", b"h"))
_SIZED = frozenset((*_LEAVES, *_EMPTY, *_NUMBERED, b"t", b"Z", b"B", b"q"))


class _Reader:
    """One message that is read."""

    def __init__(self, data: bytes, others: Others, theirs: Sequence[Value]) -> None:
        self.at = 0
        self.mine: list[Value] = []
        self._data, self._others, self._theirs = data, others, theirs

    def take(self) -> Value:
        """The next value."""
        data, at = self._data, self.at
        tag = data[at : at + 1]
        if tag in _SIZED:
            (count,) = _LENGTH.unpack_from(data, at + 1)
            self.at = at = at + 5
            if tag in _LEAVES:
                self.at = end = at + count
                if end > len(data):
                    raise Malformed("a value was cut")
                return _LEAVES[tag](data[at:end])
            return self._numbered(tag, count) if tag in _NUMBERED else self._fill(tag, count)
        self.at = at + 1
        if tag in _FIXED:
            return _CONSTANTS[tag]
        if tag == b"f":
            self.at += 8
            return _FLOAT.unpack_from(data, at + 1)[0]
        if tag == b"c":
            self.at += 16
            return complex(*struct.unpack_from("<dd", data, at + 1))
        if tag == b"o":
            return self._others.meet(self.take())
        if tag == b"x":
            return self._build()
        if tag == b"n":
            return self._row()
        raise Malformed(f"no value starts with {tag!r}")

    def _numbered(self, tag: bytes, number: int) -> Value:
        if tag == b"h":
            return self._others.own(number)
        return (self.mine if tag == b"a" else self._theirs)[number]

    def _row(self) -> Value:
        """Items of one kind."""
        tag, letter = self._data[self.at : self.at + 1], self._data[self.at + 1 : self.at + 2]
        if tag not in _ROWS or letter not in (b"q", b"d"):
            raise Malformed("no row of numbers")
        (count,) = _LENGTH.unpack_from(self._data, self.at + 2)
        self.at += 6
        made = _ROWS[tag](struct.unpack_from(f"<{count}{letter.decode()}", self._data, self.at))
        self.at += 8 * count
        if tag in _MUTABLE:
            self.mine.append(made)
        return made

    def _fill(self, tag: bytes, count: int) -> Value:
        """A container. A mutable one is known before its items, one of which may be the container itself."""
        if count > len(self._data) - self.at:
            raise Malformed("a value was cut")
        number = len(self.mine)
        if tag == b"t" or tag == b"Z":
            items = []
            for _ in range(count):
                items.append(self.take())
            return _ROWS[tag](items)
        if tag == b"B":
            self.mine.append(bytearray(self._data[self.at : self.at + count]))
            self.at += count
            return self.mine[number]
        if tag == b"q":
            self.mine.append(None)  # its length belongs to its making
            made = self.mine[number] = _library("collections", "deque")(maxlen=self.take())
        else:
            made = _EMPTY[tag]()
            self.mine.append(made)
        if tag == b"U":
            made.default_factory = self.take()
        if tag in b"lq":
            for _ in range(count):
                made.append(self.take())
        elif tag == b"S":
            for _ in range(count):
                made.add(self.take())
        else:
            for _ in range(count):
                key = self.take()
                made[key] = self.take()
        return made

    def _build(self) -> Value:
        name, arguments = self.take()
        if name in _BUILDERS:
            if name[:5] == "dict_" and type(arguments[0]) is not list:
                raise Malformed("a view of no items")
            return _BUILDERS[name](*arguments)
        if ("datetime", name) not in _LIBRARY:
            raise Malformed(f"no value is built by {name!r}")
        return _library("datetime", name)(*arguments)
