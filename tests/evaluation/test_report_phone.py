"""A report fits a phone of 360 pixels: what is wider scrolls in a box of its own, and long words break.

A layout cannot be measured without a browser, so these are the rules that it follows from: they are looked up in the
page that a policy, a comparison and a capacity plan give.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from outthink.evaluation.report import capacity
from outthink.evaluation.report.html import page, render
from support.capacity_plans import compared, plan
from support.policies import policy

PHONE = 360
Rules = list[tuple[str, dict[str, str]]]


class Boxes(HTMLParser):
    """Every element with the classes of those around it, and the text of the style sheet."""

    VOID = frozenset({"meta", "br", "input", "link", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, set[str]]] = []
        self.found: list[tuple[str, set[str]]] = []
        self.metas: list[dict[str, str | None]] = []
        self.sheet = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "meta":
            self.metas.append(given)
        around = set().union(*(classes for _, classes in self.open)) if self.open else set()
        self.found.append((tag, around))
        if tag not in self.VOID:
            self.open.append((tag, set((given.get("class") or "").split())))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][0] == "style":
            self.sheet += data


def rules(sheet: str) -> Rules:
    """Selectors with what they declare; those of a media query too."""
    flat = re.sub(r"@media[^{]*\{", "", sheet)
    parts = [(selector.strip("} \n"), body) for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", flat)]
    return [(selector, dict(pair.split(":", 1) for pair in body.split(";") if ":" in pair)) for selector, body in parts]


def declared(found: Rules, selector: str, name: str) -> str | None:
    """The last value that a selector gives a property."""
    values = [body[name] for where, body in found if selector in where.split(",") and name in body]
    return values[-1] if values else None


def pixels(found: Rules, *names: str) -> Iterator[tuple[str, float]]:
    """Selectors that ask for a width in pixels."""
    for selector, body in found:
        for name in names:
            if match := re.fullmatch(r"(\d+(?:\.\d+)?)px", body.get(name, "")):
                yield selector, float(match[1])


@pytest.fixture(params=["policy", "compare", "capacity"])
def text(request: pytest.FixtureRequest, report_rows: list[dict[str, Any]]) -> str:
    """A page of each kind, with a name that has no place to break."""
    if request.param == "capacity":
        return capacity.render(plan(notes=["n" * 90]) | {"strategies": compared("s" * 90)})
    if request.param == "policy":
        return page(policy())
    return render(report_rows, {"title": "T" * 90, "traces": "a-file-of-samples" * 9})


def test_the_page_is_as_wide_as_the_phone(text: str) -> None:
    boxes = Boxes(text)
    (viewport,) = [meta for meta in boxes.metas if meta.get("name") == "viewport"]
    assert viewport["content"] == "width=device-width, initial-scale=1"


def test_what_is_wide_scrolls_in_its_own_box(text: str) -> None:
    boxes = Boxes(text)
    found = rules(boxes.sheet)
    scrolling = {selector.strip(".") for selector, body in found if body.get("overflow-x") == "auto"}
    wide = [(tag, around) for tag, around in boxes.found if tag in ("table", "svg", "pre")]
    assert {tag for tag, _ in wide} >= {"table", "svg"}
    assert not [tag for tag, around in wide if not around & scrolling]
    # Nothing else asks for more than a phone has.
    asked = {selector for selector, width in pixels(found, "width", "min-width") if width > PHONE}
    assert all(any(selector.startswith(f".{name} ") for name in scrolling) for selector in asked), asked


def test_words_without_a_blank_break(text: str) -> None:
    found = rules(Boxes(text).sheet)
    assert declared(found, "body", "overflow-wrap") == "anywhere"
    # A box of a flexible row is as wide as its longest word unless it may shrink: the policy's id has 71 letters.
    assert declared(found, "dl", "flex-wrap") == "wrap"
    assert (declared(found, "dl>div", "min-width"), declared(found, "dl>div", "max-width")) == ("0", "100%")
