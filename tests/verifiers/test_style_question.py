"""A prompt style tells the solver how to write; verifiers judge against the question without it."""

from __future__ import annotations

from outthink.core.request import Message, Request
from outthink.core.sample import Candidate
from outthink.strategies import STYLES, apply_style
from outthink.strategies.prompts import asking
from outthink.verifiers.judge import question
from outthink.verifiers.protocol import question_of


def test_verifiers_see_the_question_alone() -> None:
    plain = Request.of("What is 2 + 2?")
    for name in STYLES:
        styled = apply_style(name, plain)
        assert styled.messages != plain.messages
        assert question_of(styled) == "What is 2 + 2?"
        assert question(styled, [Candidate(("4",))]) == question(plain, [Candidate(("4",))])


def test_another_question_is_judged_by_itself() -> None:
    styled = apply_style("chain-of-thought", Request.of("What is 2 + 2?"))
    assert question_of(asking(styled, "What is 3 + 3?")).endswith("What is 3 + 3?")
    assert styled.asked == (Message("user", "What is 2 + 2?"),)
