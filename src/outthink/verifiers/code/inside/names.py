"""What both sides have: classes and functions of the standard library, which cross by their names.

Knows: which modules are open to code that names them. Does not know pipes.
"""

from __future__ import annotations

import builtins
import sys
import types

from outthink.verifiers.code.inside.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Modules whose classes and functions compute and nothing else: the tested code may name them to the test's process.
_OPEN = frozenset((
    "builtins", "types", "math", "cmath", "operator", "collections", "collections.abc", "itertools",
    "functools", "string", "re", "datetime", "decimal", "fractions", "heapq", "bisect", "random", "copy",
    "typing", "statistics", "json", "enum", "dataclasses", "abc", "numbers", "textwrap", "time",
))  # fmt: skip
_FUNCTIONS = frozenset((
    "abs", "all", "any", "ascii", "bin", "callable", "chr", "divmod", "format", "hash", "hex", "id",
    "isinstance", "issubclass", "iter", "len", "max", "min", "next", "oct", "ord", "pow", "repr", "round",
    "sorted", "sum",
))  # fmt: skip
_TYPES = {kind: name for name, kind in vars(types).items() if isinstance(kind, type)}
_CODE = (types.FunctionType, types.BuiltinFunctionType)


def name_of(value: Value, *, everything: bool = False) -> tuple[str, str] | None:
    """Module and name of a class or function of the standard library, None for everything else.

    Args:
        everything: of any module in the library; else only what computes and does nothing.
    """
    kind = type(value)
    if not (issubclass(kind, type) or kind in _CODE):
        return None
    try:
        if issubclass(kind, type) and value in _TYPES:
            return "types", _TYPES[value]
        module, name = str(value.__module__), str(value.__qualname__)
    except Exception:  # noqa: BLE001 - a class of the tested code may say anything when it is asked
        return None
    module = {"_operator": "operator", "_functools": "functools", "_collections": "collections"}.get(module, module)
    if module.partition(".")[0] not in sys.stdlib_module_names or not (everything or _is_open(module, name, kind)):
        return None
    return (module, name) if vars(sys.modules.get(module, builtins)).get(name) is value else None


def named(module: str, name: str, *, everything: bool = False) -> Value:
    """The class or function of a name. Raises ValueError for anything else."""
    value = vars(library(module)).get(name)
    kind = type(value)
    if not (isinstance(value, type) or kind in _CODE) or not (everything or _is_open(module, name, kind)):
        raise ValueError(f"{module}.{name} is no class or function")
    return value


def _is_open(module: str, name: str, kind: type) -> bool:
    if module not in _OPEN or name.startswith("_"):
        return False
    return module != "builtins" or issubclass(kind, type) or name in _FUNCTIONS


def library(module: str) -> types.ModuleType:
    """A module of the standard library. Raises ValueError where it is none."""
    if module.partition(".")[0] not in sys.stdlib_module_names:
        raise ValueError(f"{module} is no module of the library")
    __import__(module)
    return sys.modules[module]


def rebuilt(kinds: Sequence[str], message: str, arguments: Value) -> BaseException | None:
    """A built-in exception of the nearest kind and with the same message; None for what is no Exception."""
    if "Exception" not in kinds:
        return None
    for name in kinds:
        kind = vars(builtins).get(name)
        if isinstance(kind, type) and issubclass(kind, Exception):
            attempts = [_tried(kind, given) for given in (arguments, (message,))]
            made = [raised for raised in attempts if raised is not None]
            if made:  # none where it wants other arguments, such as UnicodeDecodeError
                return next((raised for raised in made if str(raised) == message), made[-1])
    return Exception(message)


def _tried(kind: type[Exception], arguments: Value) -> Exception | None:
    try:
        return kind(*arguments)
    except Exception:  # noqa: BLE001 - whatever it says to arguments of other kinds
        return None
