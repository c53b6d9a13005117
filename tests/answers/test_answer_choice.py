"""Multiple choice: the many ways to write a letter, and words that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.answers import Reading, grade, read_sync


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        (r"\boxed{B}", "B", "boxed"),
        (r"\boxed{\text{(b)}}", "B", "boxed"),
        (r"\boxed{\textbf{(B)}\ 12}", "B", "boxed"),
        (r"\boxed{B. Paris}", "B", "boxed"),
        (r"\boxed{12}. The answer is (J)", "J", "answer-is"),
        ("The answer is **B**.", "B", "answer-is"),
        ("the correct answer is option C because (A) fails", "C", "answer-is"),
        ("Answer: d", "D", "answer-is"),
        ("Answer:\n**A**", "A", "answer-is"),
        ("The answer is A", "A", "answer-is"),
        ("The answer is: I.", "I", "answer-is"),
        ("#### E", "E", "answer-is"),
        ("(b)", "B", "letter"),
        ("B.", "B", "letter"),
        ("a", "A", "letter"),
        ("We compare them all. So I would pick choice F here, as explained", "F", "letter"),
        ("Comparing (A) with (B) at length, we can only settle on (B)", "B", "letter"),
        ("After much thought about all of the options, B looks right", "B", "letter"),
        ("A long introduction about this and that\nC\n", "C", "letter"),
    ],
)
def test_letters(text: str, answer: str, rule: str) -> None:
    assert read_sync("choice", text) == Reading(answer, rule)


@pytest.mark.parametrize(
    "text",
    ["", "A dog ate it", "I think so", "The answer is a dog", "K", "Because", r"\boxed{A, C}", "The answer is A and C"],
)
def test_unreadable(text: str) -> None:
    assert read_sync("choice", text) == Reading(None, "none")


@given(st.text() | st.text("ABCabc ().*:answer is option"))
def test_odd_text_never_raises(text: str) -> None:
    reading = read_sync("choice", text)
    assert (reading.answer is None) == (reading.rule == "none")
    assert reading.answer is None or reading.answer in "ABCDEFGHIJ"


def test_keys() -> None:
    assert grade("choice", "B", "(b)")
    assert grade("choice", "A", "A")
    assert not grade("choice", "A", "B. Paris")
