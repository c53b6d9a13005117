"""Reading takes time in proportion to the text, whatever it holds."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest

from outthink.answers import read_sync
from outthink.answers.math.formulas import first_value, last_value, light
from outthink.answers.reader import read_plain
from outthink.answers.reading import last_boxed, placed
from outthink.core.text import visible

pytestmark = pytest.mark.timing

ODD = [
    r"\boxed{",
    "answer is ",
    "$",
    "- ",
    "1,",
    "1 ",
    "1'",
    "(",
    "\\frac{1}{",
    "10^",
    "A ",
    "(A) or ",
    "{",
    "[1,",
    "```\n",
    "~~~\n",
    "A~~~",
    "$:",
    "x = 1 and ",
    "\\text{ or }",
    "答案",
    "¹²",
    "<think>",
    "</think>",
    "`<think>",
    "'",
    "\n- ",
    "1\n",
    "a b c ",
    "1/",
    "negative ",
]


def spent(work: Callable[[str], object], text: str) -> float:
    gc.disable()  # how long a collection takes depends on what other tests have left
    try:
        started = time.process_time()
        work(text)
        return time.process_time() - started
    finally:
        gc.enable()


def linear(work: Callable[[str], object], piece: str, size: int) -> bool:
    few, many = (piece * (count // len(piece)) for count in (size, 10 * size))
    work(few)
    # A hundred times as long if each piece looked at all others; small times are all noise.
    return min(spent(work, many) for _ in range(2)) < 40 * min(spent(work, few) for _ in range(3)) + 0.01


@pytest.mark.parametrize("kind", ["number", "choice", "json", "text"])
@pytest.mark.parametrize("piece", ODD)
def test_odd_texts_take_linear_time(kind: str, piece: str) -> None:
    assert linear(lambda text: read_plain(kind, text), piece, 6_500)


@pytest.mark.parametrize("piece", ODD)
def test_formulas_and_marks_are_found_in_linear_time(piece: str) -> None:
    assert linear(lambda text: (placed(text, light, first_value), last_value(text)), piece, 6_500)
    assert linear(visible, piece, 50_000)


def test_many_open_boxes_take_linear_time() -> None:
    assert linear(last_boxed, r"\boxed{", 100_000)
    assert read_sync("number", r"\boxed{" * 20_000 + r"\boxed{1}").answer == "1"


def test_what_is_longer_than_what_is_read_costs_no_more() -> None:
    text = "word " * 400_000
    assert read_sync("number", text + "It is 5.").answer == "5"
    assert read_sync("number", "It is 5." + text).answer is None, "only the end of a long text is read"
