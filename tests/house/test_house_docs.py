"""README and docs agree with the code."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import outthink
from outthink.core.sample import MEASURES
from outthink.strategies import strategies

REPOSITORY = "https://github.com/outthink/outthink"
_OURS = re.compile(rf"(?:{REPOSITORY}/(?:blob|tree)|https://raw.githubusercontent.com/outthink/outthink)/main/")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_generated_parts_are_up_to_date(root: Path) -> None:
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_strategy_has_a_page(root: Path) -> None:
    pages = {path.stem for path in (root / "docs/strategies").glob("*.md")} - {"index"}
    assert pages == set(strategies())
    index = (root / "docs/strategies/index.md").read_text()
    for name in pages:
        text = (root / f"docs/strategies/{name}.md").read_text()
        assert f"generated:parameters:{name} -->" in text
        assert f"generated:measured:{name} -->" in text
        assert "## When not to use it" in text
        assert f"\n{name}\n" in index


def test_every_public_name_is_in_the_reference(root: Path) -> None:
    reference = (root / "docs/api.md").read_text()
    names = set(outthink.__all__) - {"__version__", "strategies"}
    assert not {name for name in names if f":: outthink.{name}\n" not in reference}


def test_every_public_name_can_be_loaded() -> None:
    assert not [name for name in outthink.__all__ if getattr(outthink, name) is None]


def test_every_score_is_described(root: Path) -> None:
    page = (root / "docs/scores.md").read_text()
    assert not [name for name in MEASURES if f"| `{name}` |" not in page]


def test_links_lead_somewhere(root: Path) -> None:
    """Those into the repository by its address too: the file behind one is looked for in this tree."""
    broken = []
    for page in [*root.glob("*.md"), *(root / "docs").rglob("*.md")]:
        for target in _LINK.findall(page.read_text()):
            if found := _OURS.match(target):
                path = root / target[found.end() :]
            elif target.startswith(("http://", "https://", "mailto:")):
                assert not target.startswith(f"{REPOSITORY}/blob"), "of the branch main only"
                continue
            else:
                path = page.parent / target
            if not path.exists():
                broken.append(f"{page.relative_to(root)}: {target}")
    assert not broken


def test_readme_works_where_its_files_are_not(root: Path) -> None:
    """A package index shows it alone."""
    targets = _LINK.findall((root / "README.md").read_text())
    assert not [target for target in targets if not target.startswith("https://")]
    images = [target for target in targets if target.endswith((".svg", ".png"))]
    assert images
    assert all(target.startswith("https://raw.githubusercontent.com/outthink/outthink/main/") for target in images)
    urls = tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]
    assert set(urls) == {"Homepage", "Documentation", "Source", "Changelog", "Issues"}
    assert all(url.startswith(REPOSITORY) for url in urls.values())
    assert not [
        url for url in urls.values() if (found := _OURS.match(url)) and not (root / url[found.end() :]).exists()
    ]


def test_changelog_knows_every_strategy(root: Path) -> None:
    changes = (root / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changes
    assert not [name for name in strategies() if name not in changes]
