"""Fails if a built page would load anything from elsewhere, or links to a page that is not there.

Knows: attributes and style sheet rules through which a browser fetches things. A link that a reader
may click (`<a href>`) is no fetch.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FETCHED = {"src", "srcset", "poster", "data", "action"}
_FETCHING_LINKS = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload", "manifest"}
_ELSEWHERE = re.compile(r"(?:[a-z]+:)?//", re.IGNORECASE)
_CSS = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')]+)""", re.IGNORECASE)


class Page(HTMLParser):
    """What one page fetches and which local files it points to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.local: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Sort the addresses of one tag."""
        found = {name: value or "" for name, value in attributes}
        wanted = [found[name] for name in _FETCHED & set(found)]
        href = found.get("href", "")
        if (tag == "link" and set(found.get("rel", "").split()) & _FETCHING_LINKS) or tag in ("use", "image"):
            wanted.append(href)
        elif tag == "a" and href and not urlsplit(href).scheme and not href.startswith(("#", "//")):
            self.local.append(href)
        for address in filter(None, wanted):
            (self.fetched if _ELSEWHERE.match(address) else self.local).append(address)


def problems(site: Path) -> list[str]:
    """One line for each address that a browser would fetch from elsewhere, or that leads nowhere."""
    lines = []
    for path in sorted(site.rglob("*.html")):
        page = Page(path.read_text())
        lines += [f"{path.relative_to(site)}: fetches {address}" for address in page.fetched]
        for address in page.local:
            target = urlsplit(address).path
            if target and not target.startswith("data:") and not (path.parent / unquote(target)).exists():
                lines.append(f"{path.relative_to(site)}: {address} is not there")
    for path in sorted([*site.rglob("*.css"), *site.rglob("*.html")]):
        lines += [f"{path.relative_to(site)}: fetches {found}" for found in _CSS.findall(path.read_text())]
    return lines


if __name__ == "__main__":
    found = problems(Path(sys.argv[1]))
    print("\n".join(found) or "the site needs nothing from elsewhere")
    sys.exit(1 if found else 0)
