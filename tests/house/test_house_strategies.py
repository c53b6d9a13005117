"""What a strategy needs is a trait that it declares: nobody outside its room asks for its name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from outthink.strategies import defaults, strategies

_OTHER_MEANING = {"greedy", "revision"}
"""Words that stand for more than a strategy: a recorded sample at temperature 0, a model's revision."""


def _quoted(path: Path) -> set[str]:
    """String constants of a file, without docstrings."""
    tree = ast.parse(path.read_text())
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    }


def test_no_name_of_a_strategy_outside_its_room(root: Path) -> None:
    names = set(strategies()) - _OTHER_MEANING
    package = root / "src/outthink"
    result = [
        f"{path.relative_to(root)}: {text!r}"
        for path in package.rglob("*.py")
        if path.parent != package / "strategies" and package / "strategies" not in path.parents
        for text in _quoted(path)
        if re.split("[:@]", text)[0] in names
    ]
    assert not result, "declare a trait, or name it in strategies/defaults.py"


def test_the_table_holds_what_the_contract_says() -> None:
    assert defaults.fallback("text") == "single"
    for kind in ("number", "math", "choice", "json", str):
        assert defaults.fallback(kind) == "adaptive-consistency:n=16"
    assert defaults.fallback("number", 8) == "adaptive-consistency:n=8"
    assert (defaults.BASELINE, defaults.GREEDY, defaults.ORACLE) == ("self-consistency", "greedy", "oracle")
    known = set(strategies())
    named = {defaults.TEXT, defaults.COUNTED, defaults.BASELINE, defaults.GREEDY, defaults.PILOT, defaults.PASSED}
    assert (named | {*defaults.COMPARED, *defaults.COMPARED_LIVE, *defaults.CONTROLS}) <= known


def test_traits_of_the_strategies() -> None:
    def having(trait: str, *values: object) -> set[str]:
        return {name for name, known in strategies().items() if known.traits[trait] in values}

    assert having("streams", "tokens") == {"single", "greedy"}
    assert having("streams", "thinking") == {"budget-forcing", "early-exit", "think-with-me"}
    assert having("serial", True) == having("streams", "tokens", "thinking")
    early = {"adaptive-consistency", "esc", "short-m-of-k", "best-of-n", "deepconf-online", "revision"}
    assert having("stops_early", True) == early
    assert having("waits", True) == early - {"short-m-of-k"}
    assert having("judges", "parameter") == {"best-of-n", "revision", "think-with-me"}
    assert having("alternatives", 20) == {"borda", "confidence-vote", "deepconf", "deepconf-online"}
    sized = {name for name, known in strategies().items() if known.sized}
    assert having("shares_call", True) == sized - early
