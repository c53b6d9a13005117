"""The messages of errors, read from the source as text: a part of the oracle.

Knows: Python's syntax. Does not know in which file a message stands, nor the name of any variable, so that
the table stays the same when files are merged and names change. Nothing is imported.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BASE = "OutthinkError"
"""The public base of all errors; a class counts where its bases lead there."""
_HOLE = "{}"
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Assigned = dict[str, list[ast.expr]]


@dataclass
class Scope:
    """A function or a module: what its names are assigned, and which of them are not to be followed."""

    assigned: _Assigned = field(default_factory=dict)
    opaque: set[str] = field(default_factory=set)


def errors(folder: Path) -> dict[str, dict[str, int]]:
    """How often each message occurs, by class of error.

    What is not a literal is `{}`; a name that is assigned text in the same function or as a constant of a module
    stands for that text, `(a|b)` where it may be one of several. `helper of X` are calls, with words among their
    arguments, of functions that only make errors of class X.
    """
    trees = [ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))]
    reader = _Reader(trees)
    result: Counter[tuple[str, str]] = Counter()
    for tree in trees:
        result.update(reader.read(tree, [_scope(tree.body)]))
    table: dict[str, dict[str, int]] = {}
    for (name, message), count in sorted(result.items()):
        table.setdefault(name, {})[message] = count
    return table


def _last(node: ast.expr | None) -> str:
    """`c` of `a.b.c`."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _classes(trees: Sequence[ast.Module]) -> set[str]:
    """Names of all classes of errors."""
    bases = {
        node.name: {_last(base) for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    known, before = {BASE}, 0
    while len(known) > before:
        before = len(known)
        known |= {name for name, mothers in bases.items() if mothers & known}
    return known


def _helpers(trees: Sequence[ast.Module], classes: set[str]) -> dict[str, str]:
    """Functions of something that return nothing but errors, or only raise; by name what they make."""
    made: dict[str, set[str]] = {}
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, _Function)):
        if {item.arg for item in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]} <= {"self", "cls"}:
            continue
        received = ast.unparse(node.returns).strip("'\"") if node.returns is not None else "?"
        made.setdefault(node.name, set()).update(received.split(" | "))
    fitting = classes | {"None", "NoReturn", "Never"}
    return {
        name: " | ".join(sorted(kinds - {"None"}))
        for name, kinds in made.items()
        if kinds <= fitting and kinds - {"None"}
    }


def _scope(body: Sequence[ast.stmt]) -> Scope:
    """What is assigned in these statements, functions and classes inside left out."""
    scope = Scope()
    waiting: list[ast.AST] = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, _Function | ast.ClassDef | ast.Lambda):
            continue
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                | ast.AugAssign(target=ast.Name(id=name), value=value)
                | ast.NamedExpr(target=ast.Name(id=name), value=value)
            ):
                scope.assigned.setdefault(name, []).append(value)
                waiting.append(value)
            case ast.AnnAssign(value=None):
                pass
            case ast.Name(id=name, ctx=ast.Store()):
                scope.opaque.add(name)
            case _:
                waiting += ast.iter_child_nodes(node)
    return scope


class _Reader:
    """Walks a module, and renders what errors are told."""

    def __init__(self, trees: Sequence[ast.Module]) -> None:
        self._classes = _classes(trees)
        self._helpers = _helpers(trees, self._classes)
        self._constants = Scope()
        for tree in trees:
            for name, values in _scope(tree.body).assigned.items():
                self._constants.assigned.setdefault(name, []).extend(values)

    def read(self, node: ast.AST, scopes: list[Scope], inside: str = "") -> Iterator[tuple[str, str]]:
        """Class and message of every error below a node; `inside` names the class of errors it stands in."""
        if isinstance(node, _Function | ast.Lambda):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            own = _scope(node.body) if isinstance(node, _Function) else Scope()
            own.opaque |= {item.arg for item in given if item is not None}
            scopes = [*scopes, own]
        elif isinstance(node, ast.ClassDef):
            inside = node.name if node.name in self._classes else ""
        elif isinstance(node, ast.Call):
            yield from self._call(node, scopes, inside)
        elif isinstance(node, ast.Raise) and _last(node.exc) in self._classes:
            yield _last(node.exc), "no arguments"
        for child in ast.iter_child_nodes(node):
            yield from self.read(child, scopes, inside)

    def _call(self, node: ast.Call, scopes: list[Scope], inside: str) -> Iterator[tuple[str, str]]:
        name = _last(node.func)
        if isinstance(node.func, ast.Attribute) and "log" in _last(node.func.value).lower():
            return  # a line for the log
        given = [self._argument(arg, scopes) for arg in node.args]
        named = [f"{keyword.arg or '**'}={self._argument(keyword.value, scopes)}" for keyword in node.keywords]
        message = ", ".join([*given, *sorted(named)])
        if name in self._classes:
            yield name, message
        elif name == "__init__" and inside and isinstance(node.func, ast.Attribute):
            yield inside, f"super: {message}"
        elif name in self._helpers and any(" " in part.strip("'") for part in [*given, *named]):
            yield f"helper of {self._helpers[name]}", message

    def _argument(self, node: ast.expr, scopes: list[Scope]) -> str:
        text = self._text(node, scopes, frozenset())
        if text is not None:
            return f"'{text}'"
        return repr(node.value) if isinstance(node, ast.Constant) else _HOLE

    def _text(self, node: ast.expr, scopes: list[Scope], seen: frozenset[str]) -> str | None:
        """What an expression says, None for one without a literal text."""
        match node:
            case ast.Constant(value=str() as value):
                return value
            case ast.JoinedStr(values=parts):
                return "".join(self._text(part, scopes, seen) or "" for part in parts)
            case ast.FormattedValue(value=value):
                return self._text(value, scopes, seen) or _HOLE
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._joined([left, right], scopes, seen, "")
            case ast.IfExp(body=body, orelse=orelse):
                result = self._joined([body, orelse], scopes, seen, "|")
                return result and f"({result})"
            case ast.Name(id=name) if name not in seen:
                return self._named(name, scopes, seen)
        return None

    def _joined(self, nodes: Sequence[ast.expr], scopes: list[Scope], seen: frozenset[str], sign: str) -> str | None:
        texts = [self._text(node, scopes, seen) for node in nodes]
        return None if set(texts) == {None} else sign.join(_HOLE if text is None else text for text in texts)

    def _named(self, name: str, scopes: list[Scope], seen: frozenset[str]) -> str | None:
        for scope in [*reversed(scopes), self._constants]:
            texts = {self._text(value, scopes, seen | {name}) for value in scope.assigned.get(name, ())}
            if name in scope.opaque:
                texts.add(None)
            if texts:
                known = sorted({_HOLE if text is None else text for text in texts})
                return None if texts == {None} else known[0] if len(known) == 1 else f"({'|'.join(known)})"
        return None
