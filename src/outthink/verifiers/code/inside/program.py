"""Python's syntax: the tested program out of what a model wrote, and what a test says of it.

Knows: bodies of functions, lost indentation, helpers in other code blocks, future imports; which classes a problem asks
for, and whether its test names the code at all. Does not run anything.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from collections.abc import Iterator, Sequence
from types import CodeType

_NO_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)  # the last two for nesting beyond the parser
_FUTURE = re.compile(r"^from[ \t]+__future__[ \t]+import[ \t]+(?:\([^)]*\)|[^\n;#]*)", re.MULTILINE)


def compiled(
    entry_point: str, tested: Sequence[str], prompt: str, code: str, others: Sequence[str], rest: Sequence[str]
) -> CodeType:
    """The program's code.

    Args:
        entry_point: what it defines.
        tested: names that the test uses and does not define.
        prompt: Python that stands in front, or prose.
        code: the block that defines the entry point, or a function's body.
        others: further blocks of the same text, in their order.
        rest: other readings of the text, where `code` is no Python.

    Raises SyntaxError (and what else `compile` raises) where no reading of it is Python.
    """
    first: Exception | None = None
    for source in _readings(entry_point, needed(code, others, prompt, tested), prompt, code, rest):
        try:
            # Without dont_inherit this file's own `from __future__ import annotations` would hold in the program.
            return compile(source, "solution.py", "exec", dont_inherit=True)
        except _NO_PYTHON as error:
            first = first or error
    raise first or SyntaxError("no code")


def _readings(entry: str, helpers: str, prompt: str, code: str, rest: Sequence[str]) -> Iterator[str]:
    for text in (code, *rest):
        body = textwrap.dedent(text)
        whole = _is_python(body) and any(entry in defined for _, _, defined in _statements(body))
        if helpers and text is code:  # they stand behind the prompt, whose unfinished function needs a body then
            yield hoisted(finished(prompt) + helpers + (body if whole else prompt + text) + "\n")
        if not whole or body == text:
            yield hoisted(prompt + text + "\n")
        if not whole:
            yield prompt + textwrap.indent(body, "    ") + "\n"
            yield prompt + "    " + text.lstrip(" \t") + "\n"  # only the first line has lost its indentation
        yield hoisted(finished(prompt) + body + "\n")
        if not _is_python(finished(prompt)):  # prose
            yield hoisted(helpers + body + "\n")


def finished(prompt: str) -> str:
    """A prompt that ends in the head of a function, with a body."""
    if _is_python(prompt):
        return prompt if prompt.endswith("\n") or not prompt else prompt + "\n"
    return prompt.rstrip() + "\n    pass\n"


def _is_python(source: str) -> bool:
    try:
        compile(source, "prompt.py", "exec", dont_inherit=True)
    except _NO_PYTHON:
        return False
    return True


def hoisted(source: str) -> str:
    """The source with its future imports in the first line, where alone they may stand."""
    found = _FUTURE.findall(source)
    if not found:
        return source
    names = {name.strip(" \t\n()") for line in found for name in line.partition("import")[2].split(",")}
    first = "from __future__ import " + ", ".join(sorted(name for name in names if name))
    return first + "\n" + _FUTURE.sub("pass", source)


def needed(code: str, others: Sequence[str], prompt: str = "", tested: Sequence[str] = ()) -> str:
    """The statements of other blocks that define what a block or its test uses and nothing else does, in order."""
    if not others:
        return ""
    tree = _tree(textwrap.dedent(code))
    statements = [part for block in others for part in _statements(textwrap.dedent(block))]
    if tree is None or not statements:
        return ""
    there = {*vars(builtins), *_stored(tree), *_stored(_tree(finished(prompt)))}
    chosen: set[int] = set()
    wanted = (_loaded(tree) | set(tested)) - there
    while wanted:
        name = wanted.pop()
        there.add(name)
        for index in range(len(statements) - 1, -1, -1):  # the last definition counts
            statement, _, defined = statements[index]
            if name not in defined and "*" not in defined:
                continue
            chosen.add(index)
            there |= defined
            wanted = (wanted | _loaded(statement)) - there
            if name in defined:  # a star may define anything, so a definition by name is looked for further
                break
    return "".join(statements[index][1] + "\n" for index in sorted(chosen))


def _tree(source: str) -> ast.AST | None:
    try:
        return ast.parse(source)
    except _NO_PYTHON:
        return None


def _statements(block: str) -> Iterator[tuple[ast.AST, str, set[str]]]:
    """Each statement of a block with its text and the names that it defines for others."""
    tree = _tree(block)
    if not isinstance(tree, ast.Module):
        return
    lines = block.splitlines()
    for statement in tree.body:
        first = statement.lineno
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined = {statement.name}
            first = min([first, *(decorator.lineno for decorator in statement.decorator_list)])
        elif isinstance(statement, ast.Expr):
            continue
        else:
            defined = _stored(statement)
        yield statement, "\n".join(lines[first - 1 : statement.end_lineno]), defined


def _loaded(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _stored(tree: ast.AST | None) -> set[str]:
    """Every name that is bound anywhere in a tree."""
    names: set[str] = set()
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return names


# What a problem says of its code before any runs.


def classes_asked_for(prompt: str, test: str, entry_point: str) -> set[str]:
    """Classes whose objects may say themselves what they equal.

    Those that the prompt begins, and names in capitals whose objects' attributes the test reads or whose items it
    sets: for a function that the code has made a class, to equal everything would be a way to pass.
    """
    front = _module(prompt) or _module(prompt + "\n    pass\n")
    begun = [node for node in ast.walk(front) if isinstance(node, ast.ClassDef)] if front else []
    functions = {node.name for node in front.body if isinstance(node, ast.FunctionDef)} if front else set()
    tree = _module(test)
    used = _used_as_classes(tree, entry_point) if tree else set()
    return {node.name for node in begun} | {name for name in used - functions if name[:1].isupper()}


def _used_as_classes(tree: ast.Module, entry_point: str) -> set[str]:
    """Names that are called and whose results' attributes are read or items set, or that isinstance is asked for."""
    aliases = dict.fromkeys(_parameters(tree), entry_point)
    made: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            for target in node.targets:
                if isinstance(target, ast.Name) and isinstance(node.value.func, ast.Name):
                    made[target.id] = node.value.func.id
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) or (isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)):
            used |= {made.get(part.id, part.id) for part in ast.walk(node.value) if isinstance(part, ast.Name)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            used |= {argument.id for argument in node.args[1:] if isinstance(argument, ast.Name)}
    return {aliases.get(name, name) for name in used}


def left_to_the_code(test: str) -> set[str]:
    """Names that a test uses and neither it nor Python defines."""
    tree = _module(test)
    return _loaded(tree) - _stored(tree) - set(vars(builtins)) if tree is not None else set()


def calls(test: str, name: str) -> bool:
    """Whether a test calls a function or class by a name."""
    tree = _module(test)
    called = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call)) if tree is not None else ()
    return any(isinstance(function, ast.Name) and function.id == name for function in called)


def never_named(test: str, entry_point: str) -> bool:
    """Whether a test reads neither the entry point nor the parameter of its check."""
    tree = _module(test)
    if tree is None:
        return False
    wanted = {entry_point, *_parameters(tree)}
    loads = (node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    return wanted.isdisjoint(loads)


def _parameters(tree: ast.Module) -> set[str]:
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    return {argument.arg for check in checks for argument in (*check.args.posonlyargs, *check.args.args)}


def _module(source: str) -> ast.Module | None:
    tree = _tree(source)
    return tree if isinstance(tree, ast.Module) else None
