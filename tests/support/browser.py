"""A real browser on a page of the proxy: Debian's Chromium under Playwright. Tests skip where either is missing.

Knows how a visit is watched: what it asks for, what its console says, and which dialogs open.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")

CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour.slice(0, 3);
    }
    return parse(getComputedStyle(document.body).backgroundColor).slice(0, 3);
  };
  const weak = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest('.unseen, option, title')) continue;
    const style = getComputedStyle(node);
    const ink = parse(node instanceof SVGElement ? style.fill : style.color).slice(0, 3);
    const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) weak.push(`${node.tagName}.${node.className} ${ratio.toFixed(2)} ${node.textContent}`);
  }
  return weak;
}"""
"""Text whose contrast with what is behind it is below 4.5 (WCAG 2.2, 1.4.3)."""

AMISS = """() => {
  const seen = [...document.querySelectorAll('*')].filter((node) => node.checkVisibility());
  const wrong = [];
  const say = (what, node) => wrong.push(`${what}: ${node.outerHTML.slice(0, 120)}`);
  for (const node of seen) {
    const named = node.ariaLabel || node.getAttribute('aria-labelledby') || node.textContent.trim();
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(node.tagName) && !node.labels.length && !node.ariaLabel) say('no label', node);
    if (/^(BUTTON|A|SUMMARY)$/.test(node.tagName) && !named) say('no name', node);
    if (node.tagName === 'A' && !node.getAttribute('href')) say('a link to nowhere', node);
    if (node.tagName === 'TABLE' && !node.caption?.textContent) say('no caption', node);
    if (node.tagName === 'TH' && !node.scope) say('no scope', node);
    if (node.tabIndex > 0) say('an order of its own', node);
    if (/^(region|img|group)$/.test(node.getAttribute('role') ?? '') && !named) say('a role without a name', node);
    if (node.onclick && !/^(BUTTON|A)$/.test(node.tagName)) say('a control that is none', node);
    for (const other of (node.getAttribute('aria-labelledby') ?? '').split(' ').filter(Boolean))
      if (!document.getElementById(other)) say('a label that is missing', node);
    const wide = node.matches('.scroll, pre') && node.scrollWidth > node.clientWidth;
    if (wide && node.tabIndex < 0) say('no way to scroll', node);
  }
  const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
  for (const id of ids.filter((id, at) => ids.indexOf(id) !== at)) wrong.push(`twice: ${id}`);
  const levels = seen.filter((node) => /^H[1-6]$/.test(node.tagName)).map((node) => Number(node.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) wrong.push(`headings: ${levels}`);
  const steps = levels.slice(1).map((level, at) => level - levels[at]);
  if (steps.some((step) => step > 1)) wrong.push(`a level is left out: ${levels}`);
  for (const name of ['header', 'nav', 'main']) if (!document.querySelector(name)) wrong.push(`no ${name}`);
  if (document.documentElement.lang !== 'en' || !document.title) wrong.push('no language or title');
  return wrong;
}"""
"""What keeps a page from those who use a keyboard or a screen reader, as far as a script can tell."""


@dataclass
class Visit:
    """A page and everything it did."""

    page: Any
    base: str
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        """Open an address of the page."""
        self.page.goto(f"{self.base}/{path}")

    @property
    def foreign(self) -> list[str]:
        """Addresses of other hosts that were asked for."""
        return [url for url in self.asked if not url.startswith((f"{self.base}/", "data:"))]


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window. Skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    result = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if result is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=result, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Any, port: int, **options: Any) -> Iterator[Visit]:
    """A fresh tab; options are those of a browser context, as `color_scheme`."""
    context = browser.new_context(locale="en-GB", timezone_id="UTC", **options)
    page = context.new_page()
    page.set_default_timeout(8_000)
    here = Visit(page, f"http://127.0.0.1:{port}")
    page.on("request", lambda request: here.asked.append(request.url))
    page.on("console", lambda message: here.said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: here.said.append(str(error)))
    page.on("dialog", lambda dialog: (here.dialogs.append(dialog.message), dialog.dismiss()))
    try:
        yield here
    finally:
        context.close()
