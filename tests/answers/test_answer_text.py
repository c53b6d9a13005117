"""Text answers, and answers read by a user's own function."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.answers import Reading, grade, read_sync, reader_for
from outthink.answers.text import canonical_text


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        ("  Hello \n  World. ", "hello world", "whole-text"),
        ("Straße!", "strasse", "whole-text"),
        ('**"Paris"**.', "paris", "whole-text"),
        ('"a" or "b"', '"a" or "b"', "whole-text"),
        ("The answer is Paris. It is the capital.", "paris", "answer-is"),
        ("The final answer is: **St. Louis**, as shown", "**st. louis**, as shown", "answer-is"),
        ('**Answer:** "New  York"', "new york", "answer-is"),
        (r"So \boxed{\text{New  York}}.", "new york", "boxed"),
        (r"\boxed{} The answer is 5.", "5", "answer-is"),
        ("The answer is **New York**.", "new york", "answer-is"),
        ("**Answer: New York**", "new york", "answer-is"),
        ("Let me see.\n<answer>New York</answer>\nI hope it helps.", "new york", "whole-text"),
        ("<answer>Oslo</answer> No: <Answer>The answer is New York.</Answer></answer>", "new york", "answer-is"),
        ("<answer>New York", "new york", "whole-text"),
        ("</answer> is the end tag", "</answer> is the end tag", "whole-text"),
    ],
)
def test_normalised(text: str, answer: str, rule: str) -> None:
    assert read_sync("text", text) == Reading(answer, rule)


@pytest.mark.parametrize("text", ["", " \n", "...", "?!", "\\text{" * 50 + "x" + "}" * 50, "a" + "\u0301\u0323" * 50])
def test_unreadable(text: str) -> None:
    assert read_sync("text", text) == Reading(None, "none")


@settings(deadline=None)
@given(st.text() | st.text("aAß.,!? \n*`\"'“”‘’$\\(){}ﬃ\u0301\u0323") | st.text("a*\"'$\\text{}."))
def test_canonical_form_is_stable(text: str) -> None:
    reading = read_sync("text", text)
    assert (reading.answer is None) == (reading.rule == "none")
    if reading.answer is not None:
        assert read_sync("text", reading.answer).answer == reading.answer
        assert grade("text", reading.answer, f"  {text}\n")


@pytest.mark.timing
@pytest.mark.parametrize("unit", [". ", "\\text{", "a\u0301\u0323", "\u0301\u0323", "\"'", "**"])
def test_takes_linear_time(unit: str) -> None:
    def spent(length: int) -> float:
        text = unit * (length // len(unit)) + "x" + "}" * (length // len(unit))
        started = time.process_time()
        canonical_text(text)
        return time.process_time() - started

    few, many = (min(spent(length) for _ in range(3)) for length in (6_000, 60_000))
    assert many < 40 * few + 0.002, "ten times the text; a hundred times the time if each mark took a pass"


def first_word(text: str) -> str | None:
    if "crash" in text:
        raise RuntimeError("user code")
    return text.split()[0] if text.split() else None


def test_own_function() -> None:
    assert read_sync(first_word, "B because") == Reading("B", "function")
    assert read_sync(first_word, " ") == Reading(None, "none")
    assert read_sync(first_word, "crash") == Reading(None, "function-error")
    assert read_sync(lambda text: 5, "x") == Reading(None, "function-error")  # type: ignore[arg-type, return-value]
    assert asyncio.run(reader_for(first_word).read("B because")) == Reading("B", "function")
    assert grade(first_word, "B", "B")
    assert not grade(first_word, "C", "B")
