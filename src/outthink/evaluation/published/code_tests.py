"""Tests of code problems as HumanEval and MBPP publish them.

Knows how MBPP's asserts become one `check(candidate)`, and which function they test. Does not run anything.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from outthink.core.text import writable
from outthink.engines.cells import BadCell, Cell, decoded, empty
from outthink.evaluation.published.cells import listed

_BUILTINS = frozenset(dir(builtins))
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class CodeTest:
    """What tests the code of a completion.

    Args:
        prompt: Python that stands in front of the code; empty where the question is prose.
        entry_point: the function that is tested.
        test: Python that defines `check(candidate)`.
    """

    prompt: str
    entry_point: str
    test: str


def human_eval(prompt: Cell, entry_point: Cell, test: Cell) -> CodeTest:
    """A test as HumanEval has it, whatever its cells hold; `function_name` and `calls` say what is wrong with it."""
    texts = (cell.decode(errors="replace") if isinstance(cell, bytes) else cell for cell in (prompt, entry_point, test))
    return CodeTest(*(writable(text) if isinstance(text, str) else "" for text in texts))


def function_name(value: Cell) -> str:
    """The name of the tested function; BadCell for what is none."""
    name = _python(value)
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BadCell("is not the name of a function")
    return name


def calls(test: Cell, entry_point: str) -> None:
    """BadCell for a test that is no Python, defines no `check`, or never mentions the tested function."""
    tree = _parsed(_python(test))
    checks = [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS) and node.name == "check"]
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if not checks and "check" not in named:
        raise BadCell("defines no check(candidate)")
    taken = {name.arg for check in checks for name in (*check.args.posonlyargs, *check.args.args)}
    if checks and not named & {*taken, entry_point}:
        raise BadCell(f"never calls {entry_point}")


def mbpp(tests: Cell, setup: Cell, imports: Cell, solution: Cell) -> CodeTest:
    """A test made of asserts, which call the function by its own name.

    Args:
        setup: code that runs before the asserts, or null.
        imports: lines of imports, or null.
        solution: the reference solution, which tells the tested function from others; or null.
    """
    body = _parsed("\n".join(assertions(tests)))
    if not any(isinstance(node, ast.Assert) for node in ast.walk(body)):
        raise BadCell("asserts nothing")
    imports = listed(imports)
    before = [*(imports if isinstance(imports, list) else []), *([] if empty(setup) else [setup])]
    prepared = "\n".join(_python(piece) for piece in before if not (isinstance(piece, str) and not piece.strip()))
    name = _tested(body, _parsed(prepared), solution)
    # Written anew, since a text of several lines within an assert must not be indented.
    check = ast.FunctionDef("check", _CANDIDATE, body.body, [])
    source = ast.unparse(ast.fix_missing_locations(ast.Module([check], [])))
    return CodeTest("", name, f"{prepared}\n\n{source}\n" if prepared else f"{source}\n")


_CANDIDATE = ast.arguments([], [ast.arg("candidate")], None, [], [], None, [])


def assertions(tests: Cell) -> list[str]:
    """MBPP's tests as texts; BadCell where there is none."""
    tests = listed(tests)
    if not isinstance(tests, list) or not tests:
        raise BadCell("is null" if empty(tests) else "is no list of tests")
    return [_python(test) for test in tests]


def with_tests(tests: Sequence[str]) -> str:
    """What follows MBPP's task: its tests, without which the name of the function would have to be guessed."""
    return "\n\nYour code should pass these tests:\n\n" + "\n".join(tests)


def _python(value: Cell) -> str:
    value = decoded(value)
    if empty(value):
        raise BadCell("is null")
    if not isinstance(value, str):
        raise BadCell("is no text")
    if not value.strip():
        raise BadCell("is empty")
    return writable(value)


def _parsed(source: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(textwrap.dedent(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadCell(f"is no Python ({error})") from None


def _tested(body: ast.Module, prepared: ast.Module, solution: Cell) -> str:
    """The function that the first assert calls; of several the one that the reference solution defines."""
    known = _BUILTINS | {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(prepared)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    called = [
        node.func.id
        for statement in sorted(body.body, key=lambda statement: not isinstance(statement, ast.Assert))
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    defined = _defined(solution)
    name = next((name for name in called if name in defined), None)
    name = name or next((name for name in called if name not in known), None)
    if name is None:
        raise BadCell("calls no function")
    return name


def _defined(solution: Cell) -> set[str]:
    try:
        tree = _parsed(_python(solution))
    except BadCell:
        return set()
    return {node.name for node in tree.body if isinstance(node, (*_FUNCTIONS, ast.ClassDef))}
