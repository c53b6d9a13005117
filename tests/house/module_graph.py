"""Which module of a folder imports which, and where that goes round in a circle.

Knows: import statements on every level of a file, those under TYPE_CHECKING and inside functions included. A name
imported from a package counts as an import of the package's `__init__`, unless the name is one of its modules. Does
not know imports whose module is named while the program runs (`importlib.import_module`).
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

Graph = dict[str, set[str]]
"""Name of a module to the names of the modules that it imports, itself left out."""


def module_name(path: Path, base: Path) -> str:
    """The dotted name of a file below `base`; a package's `__init__` has the name of the package."""
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def module_graph(trees: Mapping[Path, ast.Module], base: Path) -> Graph:
    """Imports between these files, whose modules are named from `base` on."""
    names = {path: module_name(path, base) for path in trees}
    known = set(names.values())
    graph: Graph = {}
    for path, tree in trees.items():
        name = names[path]
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        graph[name] = set(_imported(tree, package, known)) - {name}
    return graph


def _imported(tree: ast.Module, package: str, known: set[str]) -> Iterator[str]:
    """Known modules that a file of this package imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*above, *([source] if source else [])])
            for alias in node.names:
                module = f"{source}.{alias.name}"
                if module in known:
                    yield module
                elif source in known:
                    yield source


def with_one_importer(graph: Graph) -> list[str]:
    """Modules that exactly one other module imports."""
    importers = Counter(target for targets in graph.values() for target in targets)
    return sorted(name for name, count in importers.items() if count == 1)


def circles(graph: Graph) -> list[list[str]]:
    """Strongly connected components of more than one module, the largest first (Kosaraju's algorithm)."""
    reverse: Graph = {name: set() for name in graph}
    for name, targets in graph.items():
        for target in targets:
            reverse[target].add(name)
    placed: set[str] = set()
    order = [name for start in sorted(graph) for name in _finished(graph, start, placed)]
    placed = set()
    components = [_finished(reverse, start, placed) for start in reversed(order)]
    result = [sorted(component) for component in components if len(component) > 1]
    return sorted(result, key=lambda members: (-len(members), members))


def _finished(graph: Graph, start: str, placed: set[str]) -> list[str]:
    """Modules reached from `start` that are not placed yet, in the order in which a depth-first walk leaves them."""
    if start in placed:
        return []
    placed.add(start)
    left: list[str] = []
    open_modules = [(start, iter(sorted(graph[start])))]
    while open_modules:
        name, targets = open_modules[-1]
        target = next((target for target in targets if target not in placed), None)
        if target is None:
            open_modules.pop()
            left.append(name)
        else:
            placed.add(target)
            open_modules.append((target, iter(sorted(graph[target]))))
    return left
