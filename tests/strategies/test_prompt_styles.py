"""Prompt styles: the words are charged, the opening needs an engine that can continue it."""

from __future__ import annotations

import pytest

from outthink import Completion, Message, Request, ScriptedEngine, Unsupported
from outthink.engines.protocol import Call, Features
from outthink.strategies import STYLES, Spec, apply_style
from support.runs import PROMPT, question, virtual


def words(call: Call) -> int:
    """A tokeniser of one token a word."""
    return len(" ".join(message.text for message in call.messages).split())


@pytest.mark.parametrize("style", list(STYLES))
def test_the_words_of_a_style_are_part_of_the_charged_prompt(style: str) -> None:
    def tokens(spec: str) -> int:
        engine = ScriptedEngine(lambda call: Completion(answer="1", tokens=50), prompt_tokens=words)
        run = virtual(Spec.parse(spec), engine)
        assert run.receipt.tokens is not None
        return run.receipt.tokens

    extra = len(STYLES[style].instruction.split())
    assert extra > 3
    assert tokens("single") == len(PROMPT.split()) + 50
    assert tokens(f"single:style={style}") == len(PROMPT.split()) + extra + 50
    assert tokens(f"self-consistency:n=3,style={style}") == 3 * (len(PROMPT.split()) + extra + 50)


def test_an_opening_is_sent_as_a_prefix() -> None:
    engine = ScriptedEngine.sequence(["1"])
    virtual(Spec.parse("self-consistency:n=2,style=no-thinking"), engine)
    assert {call.prefix for call in engine.calls} == {STYLES["no-thinking"].opening}


def test_an_opening_is_refused_by_an_engine_that_cannot_continue_it() -> None:
    engine = ScriptedEngine.sequence(["1"], features=Features(prefix=False))
    run = virtual(Spec.parse("single:style=no-thinking"), engine)
    assert isinstance(run.error, Unsupported)
    assert "prefix" in str(run.error)
    assert not engine.calls
    assert not run.entries


def test_styles_without_an_opening_run_on_every_engine() -> None:
    engine = ScriptedEngine.sequence(["1"], features=Features(prefix=False))
    assert virtual(Spec.parse("single:style=chain-of-draft"), engine).value.answer == "1"


def test_the_last_user_message_gets_the_instruction() -> None:
    chat = (Message("user", "First?"), Message("assistant", "Yes."), Message("user", "Second?"))
    styled = apply_style("answer-only", Request(messages=chat))
    assert styled.messages[:2] == chat[:2]
    assert styled.messages[2].text == f"Second?\n\n{STYLES['answer-only'].instruction}"


def test_images_stay_beside_the_instruction() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    styled = apply_style("answer-only", Request(messages=(Message("user", [image]),)))
    assert styled.messages[0].content == [image, {"type": "text", "text": STYLES["answer-only"].instruction}]


def test_a_chat_without_a_user_message_still_gets_the_instruction() -> None:
    styled = apply_style("answer-only", Request(messages=(Message("system", "Name a prime."),)))
    assert styled.messages[-1] == Message("user", STYLES["answer-only"].instruction)


def test_a_style_without_an_opening_keeps_the_requests_own() -> None:
    assert apply_style("answer-only", question(opening="So: ")).opening == "So: "
