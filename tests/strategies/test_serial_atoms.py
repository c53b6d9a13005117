"""Atom of Thoughts: six calls, the dependency list, fallbacks, and which branch wins."""

from __future__ import annotations

import json

import pytest

from outthink import Completion, Message, Request, ScriptedEngine
from outthink.engines.protocol import Call
from outthink.strategies import Spec
from outthink.strategies.serial.atoms import Part, labelled, split
from support.runs import PROMPT, Run, question, virtual

LABELS = json.dumps(
    {
        "sub-questions": [
            {"description": "What is 17 * 20?", "answer": "340", "depend": []},
            {"description": "What is 17 * 3?", "answer": "51", "depend": []},
            {"description": "What is their sum?", "answer": "391", "depend": [0, 1]},
        ]
    }
)
CONTRACTED = "What is 340 + 51?"


def kind(call: Call) -> str:
    text = call.messages[-1].text
    if "Reply with JSON only" in text:
        return "label"
    if "Still to be found" in text:
        return "contract"
    if "Compare these solutions" in text:
        return "ensemble"
    return "third" if text == CONTRACTED else ("direct", "multistep")[call.index]


def play(request: Request | None = None, **given: str | list[str]) -> Run:
    """Answers by kind of call; a list is used up one by one."""
    replies: dict[str, str | list[str]] = {
        "direct": "The answer is 1.",
        "multistep": "The answer is 2.",
        "label": LABELS,
        "contract": f"<question>{CONTRACTED}</question>",
        "third": "The answer is 3.",
        "ensemble": "The answer is 3.",
        **given,
    }
    kinds: list[str] = []

    def script(call: Call) -> Completion:
        kinds.append(kind(call))
        reply = replies[kinds[-1]]
        return Completion(text=reply.pop(0) if isinstance(reply, list) else reply, tokens=20)

    run = virtual(Spec.parse("atom-of-thoughts"), ScriptedEngine(script), request)
    if run.error is not None:
        raise run.error
    run.runner.kinds = kinds  # type: ignore[attr-defined]
    return run


def kinds(run: Run) -> list[str]:
    return run.runner.kinds  # type: ignore[attr-defined,no-any-return]


def test_six_calls() -> None:
    run = play()
    assert kinds(run) == ["direct", "multistep", "label", "contract", "third", "ensemble"]
    assert run.receipt.tokens == 6 * (20 + 20)


@pytest.mark.parametrize(
    ("ensemble", "answer", "won"),
    [("1", "1", "direct won"), ("2", "2", "decompose won"), ("3", "3", "contract won"), ("9", "1", "no branch")],
)
def test_the_first_branch_with_the_ensembles_answer_wins(ensemble: str, answer: str, won: str) -> None:
    run = play(ensemble=f"The answer is {ensemble}.")
    assert run.value.answer == answer
    assert any(won in note for note in run.receipt.notes)


def test_equal_branches_go_to_the_first() -> None:
    run = play(multistep="Slowly. The answer is 1.", third="The answer is 1.", ensemble="The answer is 1.")
    assert run.value.text == "The answer is 1."
    assert any("direct won" in note for note in run.receipt.notes)
    assert any("the same answer as the direct one" in note for note in run.receipt.notes)


def test_the_contracted_question_is_asked_alone_and_logged() -> None:
    chat = (Message("system", "Be brief."), Message("user", PROMPT))
    run = play(Request(messages=chat, answer="number"))
    third = next(call for call in run.calls if kind(call) == "third")
    assert [message.text for message in third.messages] == ["Be brief.", CONTRACTED]
    assert f"atom-of-thoughts: contracted question: {CONTRACTED}" in run.receipt.notes
    contract = next(call for call in run.calls if kind(call) == "contract").messages[-1].text
    known, _, rest = contract.partition("Still to be found:")
    assert "- What is 17 * 20? 340" in known
    assert "- What is their sum?" in rest
    assert "391" not in contract


def test_labels_get_three_tries_then_the_direct_answer_stands() -> None:
    run = play(label=["no", "{}", LABELS])
    assert kinds(run).count("label") == 3
    assert run.value.answer == "3"
    run = play(label="nonsense")
    assert kinds(run) == ["direct", "multistep", "label", "label", "label"]
    assert run.value.answer == "1"
    assert "3 tries" in run.receipt.notes[0]


def test_a_question_that_is_not_contracted_leaves_the_direct_answer() -> None:
    run = play(contract="I cannot.")
    assert (run.value.answer, len(run.calls)) == ("1", 4)
    assert "could not be contracted" in run.receipt.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        "{",
        '{"sub-questions": []}',
        '{"sub-questions": [{"description": "a", "answer": "b"}]}',
        '{"sub-questions": [{"description": "a", "answer": "b", "depend": [0]}]}',
        '{"sub-questions": [{"description": "a", "answer": "b", "depend": ["x"]}]}',
        '{"sub-questions": 3}',
        "[1]",
    ],
)
def test_labels_other_than_asked_for_are_refused(text: str) -> None:
    assert labelled(text) is None


def test_labels_are_found_in_a_fenced_block_and_split() -> None:
    parts = labelled(f"Here:\n```json\n{LABELS}\n```\nDone")
    assert parts is not None
    independent, dependent = split(parts)
    assert [part.answer for part in independent] == ["340", "51"]
    assert dependent == [Part("What is their sum?", "391", (0, 1))]


def test_text_answers_are_not_asked_for_in_the_middle() -> None:
    run = play(question(answer="choice"), direct="(B)", multistep="(B)", third="(B)", ensemble="(B)")
    assert run.value.answer == "B"
