"""Multiple choice as models write it at length: options one by one, verdicts, asides, and options that say `False`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.answers import read_sync

READ = {
    "A": [
        "A) A cell divides. B would need energy.",
        "A is the only option that fits, since B, C and D are too broad.",
        "A (B is wrong)",
        "choice a is right",
        "A ✓\nB ✗\nC ✗",
    ],
    "B": [
        # an option's text is no verdict on it
        "The answer is (B) False",
        "B. False",
        r"\boxed{B. False}",
        "<answer>B. False</answer>",
        "A) Yes\nB) No\n\nAnswer: B) No",
        "The answer is:\nB: No",
        "A) True\nB) False\n\nThat does not hold, so the answer is B) False.",
        "So the correct choice is B) Not enough information.",
        # asides
        "Answer: B (A is a distractor)",
        "A (Paris) is in France; B (London) is correct.",
        # one by one
        "A? No. B? Yes. C? No.",
        "Could it be A? No, because x. B? Yes, since y.",
        "(A) is too narrow, (C) is too broad, (D) is off-topic. (B) is just right.",
        "(A) is too narrow, (C) is too broad, (D) is off-topic. (B) it is.",
        "A. x (incorrect)\nB. y (correct)\nC. z (incorrect)\nD. w (incorrect)",
        "A: The first is wrong.\nB: This one is right.\nC: This is wrong.",
        "Neither A nor C nor D; B.",
        "not A; B",
        "All of A, C and D fail. B holds.",
        "The answer is ~~A~~ **B**.",
        r"$\rightarrow$ B",
        "$x$ B",
        "A und C sind falsch, aber B stimmt. Weder A noch C, sondern B.",
        "Ni A ni C; B.",
        "Jibu sahihi ni B",
        "Aではありません。Bです。",
        "A는 틀리고 B가 맞다",
        # languages
        "C'est la B.",
        "Ce n'est pas A, c'est B.",
        "No es A, sino B.",
    ],
    "C": [
        '{"reasoning": "A is wrong because of B", "answer": "C"}',
        "A. Paris ❌\nB. London ❌\nC. Berlin ✅\nD. Rome ❌",
        "A) Paris - Incorrect\nB) London - Incorrect\nC) Berlin - Correct\nD) Rome - Incorrect",
        "- A: wrong\n- B: wrong\n- C: this is correct\n- D: wrong",
        "A: no\nB: no\nC: yes\nD: no",
        "❌ A\n❌ B\n✅ C\n❌ D",
        "❌ A. Paris\n✅ C. Rome\n❌ B. Oslo",
        "- [ ] A\n- [ ] B\n- [x] C",
        "You might think the answer is A, but it is C.",
        "The answer is A — no, scratch that, C.",
        "A: doesn't work. B: doesn't work. C: works!",
        "**A) Paris**: in France.\n**B) London**: in the UK.\n\nSo **C) Berlin** is the correct choice.",
        "The answer is A. Sorry, I meant C.",
        "Let A = 3 and B = 4. Then A + B = 7, which is option C.",
        "so it's c",
        "(C) Neither A nor B",
        "A选项错误，B选项错误，C选项正确，D选项错误。",
        "AもBも違うので、Cです。",
        "A가 아니라 C입니다",
        "A är fel, B är fel, C är rätt.",
        "A и B неверны, верно C.",
        "A ve B yanlış, doğru olan C.",
    ],
    "D": [
        "D) Both A and B",
        "(D) A and C only",
        "The correct answer is D) Both A and B.",
        "Both A and B are true, so the answer is D (Both A and B).",
        "So D (A and C).",
        "A is true, B is true, C is true. D. All of the above.",
    ],
    None: [
        "None of A, B, C, D is correct.",
        "None of the options A to D are correct.",
        "A) True\nB) False",
        "A. Left\nB. Right\nC. Straight",
        "The answer is A (or B).",
        "A (also C)",
        "A sowie B",
        "A. B. C. D.",
        "✅ A\n✅ B\n❌ C",
        "A ainsi que B",
        "A και B",
        "ni A ni B",
        "答案是A或者B",
        r"The energy is \(2.1 \times 10^{-34}\) J.",
        "A (Paris) and B (London) are correct.",
        "the set has an inverse, which is a, and more",
        "so it's a dog",
        "The water is at 25 $^\\circ$ C and at $77^\\circ$F.",
    ],
}


@pytest.mark.parametrize(("text", "answer"), [(text, answer) for answer, texts in READ.items() for text in texts])
def test_forms(text: str, answer: str | None) -> None:
    assert read_sync("choice", text).answer == answer


VERDICTS = [("correct", "incorrect"), ("right", "wrong"), ("✓", "✗"), ("✅", "❌"), ("Correct.", "False.")]
LINES = ["{}) Paris - {}", "**{}.** {}", "- {}: {}", "{}. It rains: {}", "({}) Paris ({})", "{}: this is {}"]


@settings(deadline=None)
@given(st.sampled_from(LINES), st.sampled_from(VERDICTS), st.sampled_from("ABCD"))
def test_the_one_line_that_is_called_right(line: str, verdict: tuple[str, str], right: str) -> None:
    text = "\n".join(line.format(letter, verdict[letter != right]) for letter in "ABCD")
    assert read_sync("choice", text).answer == right


STATED = ["The answer is {}", "Answer: {}", "The correct option is {}.", "I choose {}", "Answer:\n{}", r"\boxed{{{}}}"]
OPTIONS = ["({}) {}", "{}) {}", "{}. {}"]
TEXTS = ["False", "No", "Incorrect", "Not enough information", "None of the above", "Neither", "Unlikely", "Both"]


@settings(deadline=None)
@given(st.sampled_from(STATED), st.sampled_from(OPTIONS), st.sampled_from(TEXTS), st.sampled_from("ABCDEF"))
def test_what_a_stated_option_says_is_not_said_of_it(frame: str, option: str, text: str, letter: str) -> None:
    assert read_sync("choice", frame.format(option.format(letter, text))).answer == letter
