"""What a problem says of its code before any runs: which classes it asks for, and whether its test calls it at all.

Knows Python's syntax. Runs nothing.
"""

from __future__ import annotations

import ast


def classes_asked_for(prompt: str, test: str, entry_point: str) -> set[str]:
    """Classes whose objects may say themselves what they equal.

    Those that the prompt begins, and names in capitals whose objects' attributes the test reads: for a function that
    the code has made a class, to equal everything would be a way to pass.
    """
    front = _parsed(prompt) or _parsed(prompt + "\n    pass\n")
    begun = [node for node in ast.walk(front) if isinstance(node, ast.ClassDef)] if front else []
    functions = {node.name for node in front.body if isinstance(node, ast.FunctionDef)} if front else set()
    tree = _parsed(test)
    used = _used_as_classes(tree, entry_point) if tree else set()
    return {node.name for node in begun} | {name for name in used - functions if name[:1].isupper()}


def _used_as_classes(tree: ast.Module, entry_point: str) -> set[str]:
    """Names that are called and whose results' attributes are read, or that are asked for by isinstance."""
    aliases = dict.fromkeys(_parameters(tree), entry_point)
    made: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            for target in node.targets:
                if isinstance(target, ast.Name) and isinstance(node.value.func, ast.Name):
                    made[target.id] = node.value.func.id
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            used |= {made.get(part.id, part.id) for part in ast.walk(node.value) if isinstance(part, ast.Name)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            used |= {argument.id for argument in node.args[1:] if isinstance(argument, ast.Name)}
    return {aliases.get(name, name) for name in used}


def never_named(test: str, entry_point: str) -> bool:
    """Whether a test reads neither the entry point nor the parameter of its check."""
    tree = _parsed(test)
    if tree is None:
        return False
    wanted = {entry_point, *_parameters(tree)}
    loads = (node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    return wanted.isdisjoint(loads)


def _parameters(tree: ast.Module) -> set[str]:
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    return {argument.arg for check in checks for argument in (*check.args.posonlyargs, *check.args.args)}


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
