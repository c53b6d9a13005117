"""The Python files of a folder, and what is counted in one of them.

Knows: lines, code, headers, functions, classes and names of one file. Does not know targets or other files.

A line of code holds a part of at least one token that is neither a comment nor a docstring, so that a blank line within
a text of several lines is code. A docstring is what `ast.get_docstring` finds: a text below an attribute is code.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

_SKIPPED = {"__pycache__", "node_modules", "site-packages", "venv"}
_LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function


@dataclass(frozen=True)
class SourceFile:
    """One Python file.

    Args:
        path: where it lies.
        name: its path below the measured folder.
        text: its content, decoded.
        tree: its syntax tree.
    """

    path: Path
    name: str
    text: str
    tree: ast.Module

    @classmethod
    def read(cls, path: Path, folder: Path) -> Self:
        """Read a file; raises SyntaxError or UnicodeDecodeError where it is not Python."""
        with tokenize.open(path) as file:
            text = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in the texts of others
            return cls(path, path.relative_to(folder).as_posix(), text, ast.parse(text))

    @cached_property
    def lines(self) -> list[str]:
        """The lines as Python counts them."""
        return io.StringIO(self.text).readlines()

    @cached_property
    def tokens(self) -> list[tokenize.TokenInfo]:
        """Everything in the file, comments included."""
        return list(tokenize.generate_tokens(io.StringIO(self.text).readline))

    @property
    def code_lines(self) -> int:
        """Lines that hold code (see the docstring of this module)."""
        code: set[int] = set()
        for token in self.tokens:
            if token.type not in _LAYOUT:
                code.update(range(token.start[0], token.end[0] + 1))
        for node in ast.walk(self.tree):
            if isinstance(node, Documented):
                code.difference_update(_docstring(node))
        return len(code)

    @property
    def comment_lines(self) -> int:
        """Lines that hold a comment, alone or behind code."""
        return len({token.start[0] for token in self.tokens if token.type == tokenize.COMMENT})

    @property
    def header_lines(self) -> int:
        """Lines up to the last import on the module's level; without any, up to the end of the docstring."""
        ends = [node.end_lineno or 0 for node in _module_imports(self.tree.body)]
        return max(ends, default=max(_docstring(self.tree), default=0))

    def functions(self) -> Iterator[tuple[str, int, int]]:
        """Name, first line and number of lines of every function; its docstring and decorators do not count."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield node.name, node.lineno, lines - len(_docstring(node))

    def classes(self) -> Iterator[tuple[str, int]]:
        """Name and line of every class, nested ones included."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef):
                yield node.name, node.lineno

    def any_names(self) -> int:
        """How often `Any` is used, quoted annotations included, import statements not."""
        nodes = [node for tree in (self.tree, *_quoted(self.tree)) for node in ast.walk(tree)]
        return sum(_name(node) == "Any" for node in nodes)

    def any_lines(self) -> int:
        """Lines that hold the word `Any`, import statements, comments and texts included."""
        return sum(re.search(r"\bAny\b", line) is not None for line in self.lines)

    def object_types(self) -> int:
        """How often `object` is named, as a type: calls of it and attributes of it do not count."""
        trees = [self.tree, *_quoted(self.tree)]
        nodes = [node for tree in trees for node in ast.walk(tree)]
        other = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        other |= {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
        return sum(isinstance(node, ast.Name) and node.id == "object" and id(node) not in other for node in nodes)

    def calls(self, name: str) -> int:
        """How often a function of this name is called, `typing.cast` for `cast` included; methods are others."""
        called = [node.func for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        return sum(
            (isinstance(function, ast.Name) and function.id == name)
            or (isinstance(function, ast.Attribute) and function.attr == name and _name(function.value) == "typing")
            for function in called
        )

    def handlers(self, name: str) -> int:
        """How many `except` clauses name this exception, alone or among others."""
        kinds = [node.type for node in ast.walk(self.tree) if isinstance(node, ast.ExceptHandler)]
        return sum(kind is not None and name in map(_name, ast.walk(kind)) for kind in kinds)


def read_folder(folder: Path) -> list[SourceFile]:
    """All Python files below a folder; hidden folders, caches and environments are left out."""
    files: list[SourceFile] = []
    for path in sorted(folder.rglob("*.py")):
        parents = path.relative_to(folder).parts[:-1]
        if _SKIPPED.intersection(parents) or any(part.startswith(".") for part in parents) or not path.is_file():
            continue
        try:
            files.append(SourceFile.read(path, folder))
        except (SyntaxError, UnicodeDecodeError) as error:
            print(f"left out, as it is not Python: {path.relative_to(folder)}: {error}", file=sys.stderr)
    return files


def _docstring(node: Documented) -> range:
    """Lines of the docstring, none without one."""
    if ast.get_docstring(node, clean=False) is None:
        return range(0)
    return range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)


def _module_imports(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Imports on the module's level, those under `if` and `try` included."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If):
            yield from _module_imports([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handled = [statement for handler in node.handlers for statement in handler.body]
            yield from _module_imports([*node.body, *handled, *node.orelse, *node.finalbody])


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    """Annotations of arguments, results and variables."""
    for node in ast.walk(tree):
        result = None
        if isinstance(node, ast.arg | ast.AnnAssign):
            result = node.annotation
        elif isinstance(node, Function):
            result = node.returns
        if result is not None:
            yield result


def _quoted(tree: ast.Module) -> Iterator[ast.expr]:
    """Annotations, or parts of them, that are written as text."""
    for annotation in _annotations(tree):
        for node in ast.walk(annotation):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                try:
                    yield ast.parse(node.value, mode="eval").body
                except SyntaxError:
                    continue  # a text that is no annotation, as in Literal["a b"]


def _name(node: ast.AST) -> str | None:
    """The name, or the last part of a dotted one."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None
