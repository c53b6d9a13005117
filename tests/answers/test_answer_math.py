"""Mathematical answers: one string for equivalent forms of one request."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.answers import Reading, grade, grade_many, read_sync, reader_for


@pytest.mark.parametrize(
    "forms",
    [
        ["0.5", r"\frac{1}{2}", r"\dfrac12", "1/2", "x=0.5"],
        ["x^2+1", "1 + x^2", r"x \cdot x + 1", r"\left(x^2\right)+1"],
        [r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"],
        [r"90^\circ", "90", r"90^{\circ}", "90.0"],
        ["1,-2", "-2, 1"],
        [r"\sqrt{8}", r"2\sqrt{2}", r"2\sqrt2"],
        ["5", r"5 \text{ cm}", r"\sqrt{25}"],
    ],
)
def test_equivalent_forms_are_one_vote(forms: list[str]) -> None:
    reader = reader_for("math")
    readings = [reader.read_now(rf"Thus $\boxed{{{form}}}$.") for form in forms]
    assert {reading.rule for reading in readings} == {"boxed"}
    assert len({reading.answer for reading in readings}) == 1


def test_different_answers_stay_apart() -> None:
    reader = reader_for("math")
    forms = [
        "x+1",
        "x+2",
        "2",
        "3",
        r"\frac{1}{3}",
        "0.3334",
        "(1,2)",
        "(2,1)",
        r"\text{east}",
        r"\text{west}",
        "10",
        "0.1",
    ]
    assert len({reader.read_now(rf"\boxed{{{form}}}").answer for form in forms}) == len(forms)


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        (r"\boxed{x} then \boxed{\frac{3}{4}} of 5", "0.75", "boxed"),
        (r"The answer is \(\frac{\pi}{4}\), roughly 0.785.", r"\frac{\pi}{4}", "answer-is"),
        ("Answer: x + 1", "x+1", "answer-is"),
        ("The answer is 12 apples out of 20", "12", "answer-is"),
        ("so it must be 7", "7", "last-number"),
        ("The answer is hard to say", None, "none"),
        (r"\boxed{}", None, "none"),
        (r"\boxed{" + "x+" * 1000 + "1}", "1", "last-number"),
    ],
)
def test_rules(text: str, answer: str | None, rule: str) -> None:
    assert read_sync("math", text) == Reading(answer, rule)


def test_readers_do_not_share_answers() -> None:
    assert read_sync("math", r"\boxed{1+x}").answer == "1+x"
    assert read_sync("math", r"\boxed{x+1}").answer == "x+1"


def test_from_one_event_loop_after_another() -> None:
    reader = reader_for("math")

    async def several() -> list[str | None]:
        texts = [rf"\boxed{{{form}}}" for form in ("y+2", "2+y", "y+1+1", "2 + y", "y+3")]
        return [reading.answer for reading in await asyncio.gather(*map(reader.read, texts))]

    first = asyncio.run(several())
    assert len(set(first)) == 2, "equivalent answers read at the same time must merge too"
    assert asyncio.run(several()) == first


def test_an_abandoned_read_harms_nobody() -> None:
    async def abandon() -> Reading:
        reader = reader_for("math")
        tasks = [asyncio.create_task(reader.read(rf"\boxed{{z+{i}}}")) for i in range(5)]
        await asyncio.sleep(0)
        for task in tasks[:4]:
            task.cancel()
        await asyncio.gather(*tasks[:4], return_exceptions=True)
        return await tasks[4]

    assert asyncio.run(abandon()) == Reading("z+4", "boxed")


@pytest.mark.parametrize(
    ("answer", "key", "right"),
    [
        ("0.5", r"\frac12", True),
        (r"\frac{1}{2}", "0.5", True),
        ("1+x^2", "x^2+1", True),
        ("5", r"5\text{ cm}", True),
        (r"\text{(east)}", r"\text{west}", False),
        ("90", r"90^\circ", True),
        ("18", "#### 18", True),
        ("19", "18", False),
        ("(3,4)", "(4,3)", False),
        (None, "18", False),
    ],
)
def test_grade(answer: str | None, key: str, right: bool) -> None:
    assert grade("math", answer, key) is right


def test_grade_many_keeps_the_order() -> None:
    pairs = [("x+1", "1+x"), (None, "1"), ("2", "2"), ("x", "y")] * 12
    assert grade_many("math", pairs) == [True, False, True, False] * 12


@given(st.text() | st.text("0123456789+-^_{}\\frac()xy$ ,="))
@settings(max_examples=40, deadline=None)
def test_odd_text_never_raises(text: str) -> None:
    # In a box it would reach the worker every time; 40 keep the test short.
    for wrapped in (text, f"answer: {text}"):
        reading = read_sync("math", wrapped)
        assert (reading.answer is None) == (reading.rule == "none")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"The largest $n$ is 34", "34"),
        (r"The answer for $n$ is $34$", "34"),
        (r"So $\frac{1+\sqrt5}{2}$.", r"\frac{1+\sqrt5}{2}"),
        (r"the solution is $x \geq 5$", r"x \geq 5"),
        (r"Hence $f(x)$ is $x^2+1$ for all $x$.", "x^2+1"),
        (r"The probability is $\frac12$, since 3 of 6 win.", "0.5"),
        (r"It costs $5 to $10.", "10"),
        (r"\boxed{-2} and \boxed{1}", "-2, 1"),
        (r"$\boxed{-2}$ or $\boxed{1}$.", "-2, 1"),
        (r"\boxed{1}, \boxed{2} and \boxed{3}", "1, 2, 3"),
        (r"First \boxed{3}. Then \boxed{4}", "4"),
        (r"We get \boxed{3}, so the answer is \boxed{4}.", "4"),
        ("The answer is 100, 200", "100, 200"),
        (r"The answer is $3$ or $4$.", "3, 4"),
        ("The answer is $x$.", "x"),
        ("2x+3", "2x+3"),
        ("No value", None),
        (r"So $x = -\:7$.", r"x=-7"),
        ("It costs Rs. 500.", "500"),
        ("→ −12", "-12"),
        (r"If it is, which is so, $x=3$.", "x=3"),
        (r"Of the numbers $a$, $b$ the larger is 34.", "34"),
        ("The values are 1, 2, 3.", "1, 2, 3"),
        ("Those are 3 eggs, 4 hens or 5", None),
        (r"The answer for $n = 3$ is $12$.", "12"),
        (r"The remainder when $2^{10}$ is divided by $7$ is $2$.", "2"),
        (r"The largest $n$ such that $2^n$ is less than 100 is $6$, which is even.", "6"),
        (r"If $x$ is 3, then the sum is $7$.", "7"),
        (r"The values are $3$, $4$ and $5$.", "3, 4, 5"),
        (r"The answers are $x = 3$, $x = 5$.", "x=3, x=5"),
        (r"So $x + y = 5$, $x = 2$.", "x=2"),
        (r"So $x+1 = 3$, $x+2 = 4$.", "x+2=4"),
        ("Answer: x = 5 or x = -5", "x=5 or x=-5"),
        ("3 or 4", "3 or 4"),
        (r"From $a^2 = 16$ we get 4 apples.", "4"),
        (r"There are 120 ways with $n!$.", "120"),
        (r"So $x = \frac12$ (see step 4).", r"x=\frac12"),
        (r"So $x = \frac12$ and \(y = 3", r"x=\frac12"),
        (r"\boxed{5/0}", "5/0"),
    ],
)
def test_which_formula_is_the_answer(text: str, answer: str | None) -> None:
    assert read_sync("math", text).answer == answer


def test_keys_hold_the_boxes_of_a_worked_solution() -> None:
    assert grade("math", "-2, 1", r"So the roots are $\boxed{1}$ and $\boxed{-2}$.")
    assert not grade("math", "1", r"So the roots are $\boxed{1}$ and $\boxed{-2}$.")
