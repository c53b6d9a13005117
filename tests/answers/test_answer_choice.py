"""Multiple choice: the many ways to write a letter and to decide on one, and words that are none."""

from __future__ import annotations

import gc
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.answers import Reading, grade, read_sync
from outthink.core.errors import BadInput


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        (r"\boxed{B}", "B", "boxed"),
        (r"\boxed{\text{(b)}}", "B", "boxed"),
        (r"\boxed{\textbf{(B)}\ 12}", "B", "boxed"),
        (r"\boxed{B. Paris}", "B", "boxed"),
        (r"Not \boxed{A}. Rather \(\boxed{\mathrm{C}}\)", "C", "boxed"),
        (r"\boxed{12}. The answer is (J)", "J", "answer-is"),
        ("The answer is **B**.", "B", "answer-is"),
        ("the correct answer is option C because (A) fails", "C", "answer-is"),
        ("Answer: d", "D", "answer-is"),
        ("Answer:\n**A**", "A", "answer-is"),
        ("The answer is A", "A", "answer-is"),
        ("The answer is: I.", "I", "answer-is"),
        ("#### E", "E", "answer-is"),
        ("<answer>A</answer>", "A", "answer-is"),
        ('{"answer": "B", "reason": "A is too small"}', "B", "answer-is"),
        ("B is the answer", "B", "answer-is"),
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


def reads(answer: str | None, *texts: str) -> list[object]:
    return [pytest.param(text, answer, id=text[:40]) for text in texts]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # a conclusion wins over letters named around it
        *reads("A", "Therefore A. B is wrong.", "Answer: A. Explanation: option B would need C.", "I prefer A to B."),
        *reads("B", "B. Paris\n\nExplanation: A is in Spain, C is in Italy.", "B\n\nA is too big, C is too small."),
        *reads("B", "Between B and C, B is better.", "I was torn between A and B, but I'll go with B."),
        *reads("B", "A: no. B: yes. The rest: no.", "It's not A because it is blue. So it must be B."),
        *reads("C", "A is wrong, B is wrong, so C", "The correct option is C because D is false"),
        *reads("C", "After eliminating A and B, C remains.", "Neither A nor B is right; C is.", "So C, A is wrong."),
        *reads("C", "A) Incorrect: x\nB) Incorrect: y\nC) Correct: z", "Having ruled out A and B, we are left with C."),
        *reads("D", "I would go with (D)", "Answer: D) text", "So D; A, B and C are wrong.", "All wrong except D"),
        *reads("E", "My final choice: E", "E: none of the above", "The answer is all of the above (E)."),
        *reads("B", "While A is plausible, B is more accurate.", "The answer is B; A, C and D are distractors."),
        *reads("B", "Let A be an event, P(A) = 0.3. World War I and vitamin C aside, the answer is (B) 0.7."),
        *reads("C", "Option A says 3. Option B says 4. Option C says 5. 2+3=5. Option C is therefore correct."),
        *reads("C", "A: too small\nB: too small\n\nThus the right one is C. Ribosomes.", "C's rivals are out. C"),
        *reads("B", "The answer is B, and A is wrong.", "The answer is B, and C and D are wrong.", "B over A"),
        *reads("B", "All but B are wrong.", "Everything except B is false.", "If I had to choose, I'd choose B."),
        # the last conclusion counts
        *reads("B", "The answer is A. No wait, the answer is B.", "The answer is A. Actually, B.", "A? No, B."),
        # without
        *reads("B", "B, not C", "not A but B", "The answer is B rather than C.", "The answer is not A, it is B."),
        # any language
        *reads("C", "选C", "不选A，选C", "正确答案是C。解析：A错误，B错误。", "A项错误；B项错误。故选C。", "【答案】C"),
        *reads("B", "答えはBです", "AではなくBです", "Bが正解です", "答案是B，不是C", "答案：（B）"),
        *reads("D", "정답은 D입니다", "답: D", "คำตอบคือD", "الإجابة هي D", "उत्तर: D", "उत्तर D है", "התשובה היא D"),
        *reads("C", "Réponse : C", "Réponse : C. Paris est la capitale.", "La bonne réponse est la C, et non la B."),
        *reads(
            "B", "La respuesta es la B", "La opción B es correcta.", "La respuesta correcta es la B porque A es falsa."
        ),
        *reads("A", "Antwort: (A)", "Die Antwort ist A, nicht B.", "A ist richtig", "La réponse est A", "الجواب: A"),
        *reads("C", "Vastaus on C", "Správná odpověď je C.", "Câu trả lời là C", "Jawabannya adalah C", "Ответ: C"),
        *reads("C", "A est faux, B est faux, donc C", "La risposta è la C", "Alternativa C", "Doğru cevap: C"),
        # spelling
        *reads("B", "Ｂ", "（Ｂ）", "Ⓑ", "ⓑ", "⒝", "🄱", "🅱️", "𝐁", "答案是Ⓑ", "Answer:\u200e B"),
        *reads(
            "A", "[[A]]", "{A}", "<option>A</option>", "<b>A</b>", "[ANSWER]A[/ANSWER]", "“A”", "$A$", r"\(\text{A}\)"
        ),
        *reads(
            "A",
            "✅ A",
            "> A",
            "- A",
            "```\nA\n```",
            "_A_",
            "__A__",
            "A!",
            "Answer:\r\nA\r\n",
            "A<|im_end|>",
            "A – Paris",
        ),
        *reads("B", "b)", "[b]", "option: b", "the answer is b because a is wrong", "I choose b", "答案是b"),
        *reads("I", "(I)", "**I**", "Option I", "H is wrong. So I."),
    ],
)
def test_conclusions(text: str, answer: str) -> None:
    assert read_sync("choice", text).answer == answer


@pytest.mark.parametrize(
    "text",
    [
        *["", "A dog ate it", "I think so", "The answer is a dog", "K", "Because", "The answer is a “hallucination”."],
        *[
            r"\boxed{A, C}",
            "The answer is A and C",
            r"\boxed{A} and \boxed{B}",
            r"\boxed{A}, \boxed{B}",
            r"\boxed{AB}",
            "<answer>A</answer> and <answer>B</answer>",
        ],
        # doubt
        *["neither", "None of the above", "The answer is none of the above. Consider A.", "Neither A nor B", "Not A."],
        *["A is about x. B is about y.", "Maybe A, maybe B.", "It could be A. It could be B.", "B? I can't tell."],
        *[
            "The answer is A or maybe B.",
            "The answer is A, or it is B.",
            "A or B is correct.",
            "I'd say A. Or B.",
            "A–C",
        ],
        *[
            "If A is right then B is wrong.",
            "A to D",
            "A is correct. B is correct.",
            "A. Madrid\nB. Paris",
            "A\nB",
            "A) Madrid B) Paris",
            "Choose between A and B",
        ],
        # Russian options are А, Б, В, Г: the letter that looks like a Latin B is the third
        *["Ответ: В", "答案：AC", "A、B都对", "A와 B"],
        # words and names
        *[
            "A **mutex** is a lock.",
            '"A dog ate it."',
            "1. A cat\n2. A dog",
            "I, II and III",
            "(i) and (ii)",
            "300 B.C.",
        ],
        *[
            "25 C",
            "300 J",
            "vitamin C",
            "Franklin D. Roosevelt",
            "U.S.A.",
            "f(A)",
            "C++",
            "N/A",
            "hepatitis B virus",
        ],
    ],
)
def test_unreadable(text: str) -> None:
    assert read_sync("choice", text) == Reading(None, "none")


JOINTS = [
    " and ",
    " or ",
    ", ",
    "; ",
    " + ",
    "、",
    "/",
    " & ",
    " plus ",
    " as well as ",
    "",
    " ",
    "和",
    "与",
    "或",
    " / ",
]
JOINTS += [" und ", " et ", " o ", " и ", " や ", " 및 ", " and also ", ", and ", " along with ", " together with "]
JOINTS += [
    " combined with ",
    " and then ",
    " und auch ",
    " vs. ",
    "または",
    "、または",
    "还有",
    "이나",
    "・",
    " - ",
    "--",
]
FRAMES = [
    "{}",
    "The answer is {}.",
    "both {}",
    "**{}**",
    "Answer: {}",
    "答案是{}",
    r"\boxed{{{}}}",
    "<answer>{}</answer>",
]
FRAMES += ["Réponse : {}", "I choose {}", "{} are correct.", "either {}", "So {}."]
# `A` stands in each template at a place where it is no article.
TEMPLATES = [
    *[
        "{}",
        "{}.",
        "({})",
        "**{}**",
        "**{}.** Paris",
        "`{}`",
        '"{}"',
        "'{}'",
        "[{}]",
        "{}) Paris",
        "({}) Paris",
        "{}: Paris",
    ],
    *[
        "Answer: {}",
        "Answer: {} Paris",
        "**Answer:** {}",
        "Answer - {}",
        "Answer:\n\n{}",
        "{} is correct",
        "{} is the answer",
    ],
    *[
        "The answer is {}.",
        "The answer is {} because it barks",
        "the answer is: {}) Paris",
        "Therefore {}. The rest is wrong.",
    ],
    *[
        "I'd say {}",
        "I think {} fits",
        "We pick {} here",
        "Only {} fits",
        "Choose {}!",
        "Looking at option {} again: yes",
    ],
    *[
        "<answer>{}</answer>",
        "<answer>{} Paris</answer>",
        "<choice>\n{}\n</choice>",
        r"\boxed{{{}}}",
        r"\boxed{{\text{{({})}}}}",
    ],
    *["选{}", "答えは{}です", "정답은 {}입니다", "Antwort: {}", "La respuesta es {}", "La réponse est la {}, je crois"],
    *[
        "Some words.\n{}",
        "Some words.\n\n**{}**\n",
        "It must be {}",
        "Final answer → {}",
        "x is so; hence {}",
        "{}\n\nBecause.",
    ],
]


@settings(deadline=None)
@given(st.sampled_from(TEMPLATES), st.sampled_from("ABCDEFGHJ"))
def test_no_letter_is_preferred(template: str, letter: str) -> None:
    assert read_sync("choice", template.format(letter)).answer == letter


@settings(deadline=None)
@given(
    st.sampled_from(FRAMES), st.sampled_from(JOINTS), st.lists(st.sampled_from("ABCDEFGHJ"), min_size=2, unique=True)
)
def test_several_letters_are_none(frame: str, joint: str, letters: list[str]) -> None:
    for names in (letters, [f"({letter})" for letter in letters], [f"**{letter}**" for letter in letters]):
        assert read_sync("choice", frame.format(joint.join(names))).answer is None


@settings(deadline=None)
@given(
    st.text()
    | st.text("ABCabc ().*:;,\n!?不是$\\{}<>_Iе")
    | st.lists(
        st.sampled_from(
            [*"ABC:,.\n}$", "(D)", "not", "is", "wrong", "so", "answer", "the", "or", r"\boxed{", "<x>", "maybe"]
        )
    ).map(" ".join)
)
def test_odd_text_never_raises(text: str) -> None:
    reading = read_sync("choice", text)
    assert (reading.answer is None) == (reading.rule == "none")
    assert reading.answer is None or reading.answer in "ABCDEFGHIJ"


def test_keys() -> None:
    assert grade("choice", "B", "(b)")
    assert grade("choice", "A", "A")
    assert not grade("choice", "A", "B. Paris")
    with pytest.raises(BadInput, match="cannot be read as choice"):
        grade("choice", "A", "A and B")


UNITS = [
    "A ",
    "A, ",
    "A\n",
    "A答",
    "(A)",
    "a ",
    "answer ",
    "not A ",
    r"\boxed{",
    r"\boxed{A} and ",
    "<",
    "<ab>",
    "$a ",
    r"\(",
]
UNITS += [
    r"\(x\) ",
    "__a",
    "####",
    "[A",
    "中",
    "**A ",
    "maybe ",
    "none of the above ",
    "9",
    "a-",
    "a.",
    "A = ",
    "e\u0301\u0323",
]


@pytest.mark.timing
@pytest.mark.parametrize("unit", UNITS)
def test_takes_linear_time(unit: str) -> None:
    def spent(length: int) -> float:
        text = unit * (length // len(unit))
        gc.disable()  # how long a collection takes depends on what other tests have left
        try:
            started = time.process_time()
            read_sync("choice", text)
            return time.process_time() - started
        finally:
            gc.enable()

    few, many = (min(spent(length) for _ in range(3)) for length in (6_000, 60_000))
    assert many < 40 * few + 0.002, "ten times the text; a hundred times the time if every word looked at all others"
