"""What a model only thought is no answer, whatever the kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.answers import read_sync
from outthink.core.text import visible

NAMES = ["think", "thinking", "thought", "reasoning", "THINK", "Thinking"]
MARKS = [
    *((f"<{name}>", f"</{name}>") for name in NAMES),
    ("[THINK]", "[/THINK]"),
    ("[think]", "[/think]"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<unused94>thought\n", "<unused95>"),
]


@pytest.mark.parametrize(("opens", "closes"), MARKS)
@pytest.mark.parametrize(
    ("kind", "thought", "said", "answer"),
    [
        ("number", "Maybe the answer is 12.", "It is 15.", "15"),
        ("math", r"\boxed{x+1}", r"\boxed{x+2}", "x+2"),
        ("choice", "The answer is (A).", "The answer is (B).", "B"),
        ("json", '{"a": 1}', '{"a": 2}', '{"a":2}'),
        ("text", "The answer is red.", "The answer is blue.", "blue"),
    ],
)
def test_thinking_is_no_answer(opens: str, closes: str, kind: str, thought: str, said: str, answer: str) -> None:
    def read(text: str) -> str | None:
        return read_sync(kind, text).answer  # type: ignore[arg-type]

    assert read(f"{opens}{thought}{closes}{said}") == answer
    assert read(f"{thought}{closes}\n\n{said}") == answer, "the template wrote the opening mark"
    assert read(f"{opens}{thought}{closes}{opens}{thought} again{closes}{said}") == answer
    assert read(f"{said}{opens}{thought}{closes}{said}") == answer
    assert read(f"{opens}{thought}{closes}") is None, "nothing behind it"
    assert read(f"{said}{opens}{thought}{closes} \n") is None
    assert read(f"{opens}{thought}") is None, "cut while thinking"
    assert read(f"{opens}{thought}{closes}{said}{opens}{thought}") is None, "nothing earlier is guessed"


def test_a_reader_of_the_user_gets_what_was_said() -> None:
    assert read_sync(lambda text: text.strip(), "<think>red</think> blue").answer == "blue"
    assert read_sync(lambda text: text.strip(), "<think>red").answer is None


@pytest.mark.parametrize(
    "text",
    [
        "Write `<think>` before it. The answer is 5.",
        'The marks "<think>" and "</think>" are dropped. The answer is 5.',
        '```python\nre.sub(r".*</think>", "", text)\n```\nThe answer is 5.',
        "I think so: 4 < thinking > 3. The answer is 5.",
    ],
)
def test_marks_that_are_spoken_of_mark_nothing(text: str) -> None:
    assert visible(text) == text
    assert read_sync("number", text).answer == "5"


def test_a_mark_on_a_line_of_its_own_counts_even_beside_fences() -> None:
    text = "```python\nprint(4)\n</think>\n```\nprint(5)\n```"
    assert visible(text) == "\n```\nprint(5)\n```"


@given(
    st.lists(st.tuples(st.text(alphabet="abc 1.\n", max_size=8), st.text(alphabet="xyz 9.\n", max_size=8)), max_size=4),
    st.text(alphabet="abc 1.\n", max_size=8),
    st.sampled_from(MARKS),
)
def test_what_was_said_stays_and_what_was_thought_goes(
    parts: list[tuple[str, str]], last: str, mark: tuple[str, str]
) -> None:
    text = "".join(f"{said}{mark[0]}{thought}{mark[1]}" for said, thought in parts) + last
    if parts and not last.strip():
        assert visible(text) is None
    else:
        assert "".join((visible(text) or "").split()) == "".join("".join([s for s, _ in parts] + [last]).split())
