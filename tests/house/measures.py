"""Figures of a tree of Python source beside their targets: size, imports, names, and what one request enters.

    python tests/house/measures.py [FOLDER] [--json] [--run]

Knows: the targets. Without FOLDER it measures `src` of the repository that it stands in; any other folder is
measured with the same definitions (source_files.py, module_graph.py). `--run` also asks a scripted model and counts
the files that a warm request enters (entered.py). Does not know how many distributions the core installs and how
long its import takes: test_house_footprint.py does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))

from house.module_graph import circles, module_graph, with_one_importer  # noqa: E402 - the path is set above
from house.source_files import SourceFile, read_folder  # noqa: E402

LONGEST_FILE, LONGEST_FUNCTION, FULL_FOLDER = 450, 60, 12


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Args:
        key: its name in JSON.
        what: what it counts, in words.
        value: what was found.
        most, least: the target; neither of them where the figure only informs.
        found: what was counted, one line each, where somebody may want to look.
    """

    key: str
    what: str
    value: float
    most: float | None = None
    least: float | None = None
    found: tuple[str, ...] = ()

    @property
    def target(self) -> str | None:
        """The target in words."""
        if self.most is None:
            return None
        if self.least is not None:
            return f"{self.least:,g} to {self.most:,g}"
        return "none" if self.most == 0 else f"at most {self.most:,.12g}"

    @property
    def met(self) -> bool | None:
        """Whether the value is within the target; None where there is no target."""
        if self.most is None:
            return None
        return (self.least or 0) <= self.value <= self.most

    def row(self) -> dict[str, Any]:
        """The figure for JSON."""
        return {
            "what": self.what,
            "value": self.value,
            "target": self.target,
            "most": self.most,
            "least": self.least,
            "met": self.met,
            "found": list(self.found),
        }


def sizes(files: Sequence[SourceFile]) -> Iterator[Figure]:
    """How much there is, and how it is cut into files, functions and folders."""
    lengths = {file.name: len(file.lines) for file in files}
    lines = sum(lengths.values())
    headers = sum(file.header_lines for file in files)
    comments = sum(file.comment_lines for file in files)
    yield Figure("files", "Python files", len(files), 230)
    yield Figure("lines", "lines in all", lines)
    yield Figure("code", "lines of code", sum(file.code_lines for file in files), 28_000)
    counted = (f"{headers:,} lines",)
    yield Figure("headers", "headers and imports, % of the lines", _percent(headers, lines), 12, found=counted)
    counted = (f"{comments:,} lines",)
    yield Figure("comments", "lines with a comment, % of the lines", _percent(comments, lines), found=counted)
    yield Figure("median", "lines of the median file", median(lengths.values()), 200, 120)
    result = _most((count, name) for name, count in lengths.items() if count > LONGEST_FILE)
    yield Figure("long_files", f"files of more than {LONGEST_FILE} lines", len(result), 0, found=result)
    result = _most(
        (count, f"{file.name}:{line} {name}")
        for file in files
        for name, line, count in file.functions()
        if count > LONGEST_FUNCTION
    )
    what = f"functions of more than {LONGEST_FUNCTION} lines, docstring not counted"
    yield Figure("long_functions", what, len(result), 0, found=result)
    folders = Counter(name.rpartition("/")[0] or "." for name in lengths)
    result = _most((count, name) for name, count in folders.items() if count > FULL_FOLDER)
    yield Figure("full_folders", f"folders of more than {FULL_FOLDER} Python files", len(result), 0, found=result)


def imports(files: Sequence[SourceFile], folder: Path) -> Iterator[Figure]:
    """Which modules hang on one other, and which import each other in a circle."""
    base = folder.resolve()
    while (base / "__init__.py").is_file():
        base = base.parent
    graph = module_graph({file.path.resolve(): file.tree for file in files}, base)
    alone = tuple(with_one_importer(graph))
    yield Figure("one_importer", "modules with exactly one importer", len(alone), found=alone)
    result = tuple(f"{len(members)}: {', '.join(members)}" for members in circles(graph))
    yield Figure("circles", "import circles, lazy and TYPE_CHECKING imports included", len(result), 0, found=result)
    members = sum(len(members) for members in circles(graph))
    yield Figure("in_circles", "modules that are in an import circle", members)


def names(files: Sequence[SourceFile]) -> Iterator[Figure]:
    """Names that say little or say two things, and attributes that are asked for by name."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in files:
        for name, line in file.classes():
            places[name].append(f"{file.name}:{line}")
    twice = {name: where for name, where in sorted(places.items()) if len(where) > 1}
    further = sum(len(where) - 1 for where in twice.values())
    result = tuple(f"{name}: {', '.join(where)}" for name, where in twice.items())
    yield Figure("class_names", "further definitions of a class name", further, 5, found=result)
    count = sum(file.any_names() for file in files)
    yield Figure("any", "uses of Any, import statements not counted", count, 250)
    yield Figure("any_lines", "lines with the word Any, imports included", sum(file.any_lines() for file in files), 250)
    yield Figure("object", "uses of object as a type", sum(file.object_types() for file in files), 40)
    yield Figure("cast", "calls of cast", sum(file.calls("cast") for file in files), 4)
    asked = {f"{name} calls": sum(file.calls(name) for file in files) for name in ("getattr", "hasattr")}
    asked["except AttributeError"] = sum(file.handlers("AttributeError") for file in files)
    result = tuple(f"{count} {name}" for name, count in asked.items())
    yield Figure("attributes", "attributes asked for by name", sum(asked.values()), 50, found=result)


def entered() -> Iterator[Figure]:
    """Own files that one warm request enters, counted in a process of its own."""
    kinds = {
        "asked_with_an_engine": ("files entered by a warm ask over HTTP", 26),
        "asked_with_a_url": ("files entered by a warm ask that is given a URL", None),
        "asked_through_the_proxy": ("files entered by a warm request with a strategy through the proxy", 43),
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT / "tests")))}
        own = {"OUTTHINK_CACHE": f"{folder}/cache", "OUTTHINK_STATE": f"{folder}/state"}
        command = [sys.executable, str(ROOT / "tests/house/entered.py")]
        done = subprocess.run(
            command, env=os.environ | paths | own, stdout=subprocess.PIPE, text=True, timeout=120, check=True
        )
    files = json.loads(done.stdout)
    for key, (what, most) in kinds.items():
        yield Figure(key, what, len(files[key]), most, found=tuple(files[key]))


def measured(folder: Path) -> list[Figure]:
    """All figures of a folder that are read from its text."""
    files = read_folder(folder)
    if not files:
        raise SystemExit(f"{folder}: no Python files")
    return [*sizes(files), *imports(files, folder), *names(files)]


def _percent(part: int, whole: int) -> float:
    return round(100 * part / max(1, whole), 2)


def _most(found: Iterator[tuple[int, str]]) -> tuple[str, ...]:
    """Counts and names, the highest count first."""
    return tuple(f"{count} {name}" for count, name in sorted(found, key=lambda one: (-one[0], one[1])))


def _show(figure: Figure) -> None:
    """Print a figure, and what was counted where a target is missed."""
    sign = {None: "    ", True: "met ", False: "MISS"}[figure.met]
    target = f" (target: {figure.target})" if figure.target else ""
    print(f"{sign}  {figure.what}: {figure.value:,.12g}{target}")
    if figure.met is False:
        for line in figure.found:
            print(f"        {line}")


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="a folder of Python source (default: src of this tree)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with all lists")
    parser.add_argument("--run", action="store_true", help="also count the files that a warm request enters")
    options = parser.parse_args()
    if options.run and options.folder is not None:
        parser.error("--run measures this tree only: leave out the folder")
    figures = measured(options.folder or ROOT / "src")
    if options.run:
        figures += entered()
    if options.json:
        print(json.dumps({figure.key: figure.row() for figure in figures}, indent=1))
    else:
        for figure in figures:
            _show(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
