"""Fills the generated parts of README and docs, so that they cannot drift from code and results.

Knows: markers, files and what to do when a part is out of date. Does not know what a part says;
that is the business of `blocks`.

    python docs/generate.py           write
    python docs/generate.py --check   write nothing, fail if anything would change
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import blocks

ROOT = Path(__file__).resolve().parents[1]
_MARKED = re.compile(r"(<!-- generated:([a-z0-9:_-]+) -->\n)(.*?)(<!-- /generated -->)", re.DOTALL)


def pages() -> list[Path]:
    """Every file that may hold a generated part."""
    shipped = ROOT / "data" / "verifiers" / "README.md"
    ours = (path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
    return [ROOT / "README.md", shipped, *sorted(ours)]


def filled(text: str, content: Callable[[str], str]) -> str:
    """The text with every marked part replaced by what `content` gives for its name."""
    return _MARKED.sub(lambda match: f"{match[1]}\n{content(match[2]).strip()}\n\n{match[4]}", text)


def outcome() -> dict[Path, str]:
    """What each generated file should hold."""
    found = {path: filled(path.read_text(), blocks.block) for path in pages()}
    return found | {ROOT / name: text for name, text in blocks.assets().items()}


def main() -> int:
    """Write what is out of date, or only name it; the exit code tells whether all was well."""
    parser = argparse.ArgumentParser(description="Fill the generated parts of README and docs.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if anything is out of date")
    check = parser.parse_args().check
    stale = [path for path, text in outcome().items() if not path.exists() or path.read_text() != text]
    if not check:
        for path, text in outcome().items():
            if path in stale:
                path.write_text(text)
    for path in stale:
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
    if stale and check:
        print("run `make docs` (or python docs/generate.py) and commit the result")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
