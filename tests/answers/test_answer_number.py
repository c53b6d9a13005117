"""Numbers: which one is the answer, and one string for each value."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from outthink.answers import Reading, canonical_key, grade, read_sync


def read(text: str) -> Reading:
    return read_sync("number", text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("18", "18"),
        ("18.", "18"),
        ("18.0", "18"),
        ("018.50", "18.5"),
        (".5", "0.5"),
        ("3/4", "0.75"),
        ("1/3", "1/3"),
        ("2/6", "1/3"),
        ("-6/7", "-6/7"),
        ("0.125 / 0.25", "0.5"),
        (r"\frac{1}{3}", "1/3"),
        (r"\dfrac12", "0.5"),
        (r"-\frac{17}{3}", "-17/3"),
        (r"\frac{-1}{3}", "-1/3"),
        (r"23 \frac{2}{3}", "71/3"),
        ("1 1/2", "1.5"),
        ("2½", "2.5"),
        ("1,234,567.50", "1234567.5"),
        ("10{,}800", "10800"),
        (r"3\,456", "3456"),
        ("12\u202f000", "12000"),
        ("$1,200", "1200"),
        (r"\$17", "17"),
        ("-$4.25", "-4.25"),
        ("$-3$", "-3"),
        ("40%", "40"),
        (r"53.33\%", "53.33"),
        ("−5", "-5"),
        ("-0", "0"),
        ("1.5e3", "1500"),
        ("25E-4", "0.0025"),
        (r"6 \times 10^{3}", "6000"),
        ("2.5×10^-2", "0.025"),
        ("10^5", "100000"),
        (r"333.3333\ldots", "333.3333"),
    ],
)
def test_written_in_many_ways(text: str, answer: str) -> None:
    assert read(text) == Reading(answer, "last-number")
    assert read(rf"so \boxed{{{text}}} it is") == Reading(answer, "boxed")


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        (r"first \boxed{3}, then \boxed{4}, and 5 more", "4", "boxed"),
        (r"\boxed{\text{18 dollars}}", "18", "boxed"),
        (r"\boxed{5 + 3 = 8}", "8", "boxed"),
        (r"\boxed{26 - 2}", "2", "boxed"),  # a minus between operands is no sign
        (r"\boxed{T-8}", "8", "boxed"),
        (r"\boxed{8 \text{ hours and } 4 \text{ minutes}}", "4", "boxed"),
        (r"\boxed{\text{Not possible}} after 5 tries", "5", "last-number"),
        (r"\boxed{} and 75", "75", "last-number"),
        (r"it was 12, so \boxed{18", "18", "last-number"),
        ("The answer is 18. We used 3 steps.", "18", "answer-is"),
        ("**Answer:** $18 for 2 days", "18", "answer-is"),
        ("**Final Answer**\n\n\\[ 18 \\]\nChecked 2 times", "18", "answer-is"),
        ("Answer: 3\nNo, wait.\nAnswer： **4**\n(5 min)", "4", "answer-is"),
        ("The answer is 2 + 3 = 5 apples, 9 of them red", "5", "answer-is"),
        ("The answer to the question is therefore 7 (of 9)", "7", "answer-is"),
        ("20 - 12 = 8, then 9\n#### 8", "8", "answer-is"),
        ("#### 2. Heading\nso 4 + 5 = 9", "9", "last-number"),
        ("The answer is not 5. It is 7.", "7", "last-number"),
        ("The answer is correct, 6", "6", "last-number"),
        ("Area: 25 m^2", "25", "last-number"),
        ("x_1 = 4, so y_2 = 5 = y_3", "5", "last-number"),
    ],
)
def test_rules_in_order(text: str, answer: str, rule: str) -> None:
    assert read(text) == Reading(answer, rule)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{- 5}", "-5"),
        ("The answer is – 5", "-5"),
        ("Answer - 6", "6"),
        ("\\boxed{12 000}", "12000"),
        ("100 000", "100000"),
        ("1'234'567", "1234567"),
        ("1’234’567", "1234567"),
        ("12 3456", "3456"),
        ("₹1,50,000", "150000"),
        ("1,234", "1234"),
        ("1.234", "1.234"),
        ("1.234,56", "1234.56"),
        ("1.234.567", "1234567"),
        ("3,50 €", "3.5"),
        ("3,5", None),
        ("6.02×10²³", "602000000000000000000000"),
        ("6.02X10^{23}", "602000000000000000000000"),
        ("2⅜", "2.375"),
        ("³⁄₈", "0.375"),
        ("2³⁄₈", "2.375"),
        ("5²", None),
        ("١٢", "12"),
        ("12 cm3", "12"),
        ("Rs.500", "500"),
        ("\\boxed{3, 4}", None),
        ("3 or 4", None),
        ("[3, 4]", None),
        ("\\boxed{\\text{-}5}", "-5"),
        ("\\boxed{-\\ 5}", "-5"),
        ("\\boxed{−\\,5}", "-5"),
        ("\\boxed{-\xa05}", "-5"),
        ("the answer is minus 5", "-5"),
        ("The answer is negative 5.", "-5"),
        ("x = - 5", "-5"),
        ("(- 5)", "-5"),
        ("10 - 5", "5"),
        ("3–5", "5"),
        ("3 - 5", "5"),
        ("- 5 apples", "5"),
        ("- 5", "-5"),
        ("so we get -5", "-5"),
        ("drops to -5 degrees", "-5"),
        ("Answer: - 5", "-5"),
        ("Answer: −5", "-5"),
        ("The answer is: $-5$", "-5"),
        ("The answer is $ - 5 $", "-5"),
        ("value $-5$", "-5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("- $5", "-5"),
        ("word—5", "5"),
        ("COVID-19", "19"),
        ("#### - 5", "-5"),
        ("#### -5", "-5"),
        ("1_000_000", "1000000"),
        ("1~000", "1000"),
        ("1\\ 000", "1000"),
        ("1\\,000\\,000", "1000000"),
        ("1{,}000{,}000", "1000000"),
        ("12\u2009345", "12345"),
        ("1\xa0234,56", "1234.56"),
        ("1 234,56 €", "1234.56"),
        ("1'234.50", "1234.5"),
        ("12,5%", "12.5"),
        ("12,50", None),
        ("€12,50", "12.5"),
        ("0,5", None),
        ("1,2,3", None),
        ("1.2.3", None),
        ("1,234.5", "1234.5"),
        ("12.345,6", "12345.6"),
        ("1,23,456", "123456"),
        ("1,234,56", None),
        ("10²³", "100000000000000000000000"),
        ("10⁻²", "0.01"),
        ("5 cm²", "5"),
        ("5 m³", "5"),
        ("5^2", None),
        ("5^{2}", None),
        ("½", "0.5"),
        ("3½", "3.5"),
        ("↉", "0"),
        ("⅟₄", "0.25"),
        ("７", "7"),
        ("१२३", "123"),
        ("๑๒", "12"),
        ("١٢٫٥", "12.5"),
        ("H2O", None),
        ("x2 = 7", "7"),
        ("abc12", None),
        ("USD500", "500"),
        ("EUR 500", "500"),
        ("R$ 50", "50"),
        ("Rs. 500", "500"),
        ("No.5", "5"),
        ("US$1,000.50", "1000.5"),
        ("£3.50", "3.5"),
        ("\\boxed{2\\pi}", None),
        ("\\boxed{\\sqrt{16}}", None),
        ("3:45", None),
        ("The answer is 3 and 4", None),
        ("The answer is 3, 4", None),
        ("The answer is 18, which is even.", "18"),
        ("The answer is x = 3 or x = 4.", None),
        ("\\boxed{1} and \\boxed{2}", None),
        ("\\boxed{1}. So \\boxed{2}", "2"),
        ("\\boxed{5}\n\n\\boxed{6}", "6"),
        ("0.\\overline{3}", None),
        ("±5", None),
        ("1/2/3", None),
        ("答案是12个", "12"),
        ("12.", "12"),
        ("**18**", "18"),
        ("**-18**", "-18"),
        ("The answer is **- 18**", "-18"),
        ("\\(-5\\)", "-5"),
        ("\\[ - 5 \\]", "-5"),
        ("1 000 000,50", "1000000.5"),
        ("3.5e-4", "0.00035"),
        ("2 1/2", "2.5"),
        ("2-1/2", "0.5"),
        ("5 - 10 = -5", "-5"),
        ("5-10=-5", "-5"),
        ("= −5", "-5"),
        ("is: minus 12.5", "-12.5"),
        ("-½", "-0.5"),
        ("−⅜", "-0.375"),
        ("-2⅜", "-2.375"),
        ("\\boxed{-2\\frac{3}{8}}", "-2.375"),
        ("5!", "5"),
        ("$5", "5"),
        ("5$", "5"),
        ("\\$5", "5"),
        ("1,000,000.00", "1000000"),
        ("total of 5,000", "5000"),
        ("6.02 x 10^23", "602000000000000000000000"),
        ("6.02·10^23", "602000000000000000000000"),
        ("6.02*10**3", "6020"),
        ("10^-3", "0.001"),
        ("10^{-3}", "0.001"),
        ("10^{- 3}", "0.001"),
        ("2^{10}", None),
        ("1e3", "1000"),
        ("1E+3", "1000"),
        ("\\boxed{-~5}", "-5"),
        ("\\boxed{-\\;5}", "-5"),
        ("The answer is: −\xa05", "-5"),
        ("= – 12", "-12"),
        ("(–3)", "-3"),
        ("Answer: negative 12", "-12"),
        ("The temperature is minus 3 degrees", "-3"),
        ("is -\\$5", "-5"),
        ("pages 10–12", "12"),
        ("- 12 eggs\n- 15 eggs", "15"),
        ("Final answer - 12", "12"),
        ("Final answer – 12", "12"),
        ("5 - 3 = 2", "2"),
        ("Result: −3.5", "-3.5"),
        ("the result is — 7", "-7"),
        ("x = −½", "-0.5"),
        ("1 234 567", "1234567"),
        ("1\u202f234\u202f567", "1234567"),
        ("1\\,234\\,567", "1234567"),
        ("1\\ 234", "1234"),
        ("1\\;234", "1234"),
        ("\\text{12 000}", "12000"),
        ("12 34", "34"),
        ("123 4567", "4567"),
        ("₹12,34,567", "1234567"),
        ("1,2345", None),
        ("12,345,6", None),
        ("2,50 €", "2.5"),
        ("€ 2,50", "2.5"),
        ("2,5 %", "2.5"),
        ("12.345,67 €", "12345.67"),
        ("1.234.567,89", "1234567.89"),
        ("0,75", None),
        ("3,1416", None),
        ("1,234 €", "1234"),
        ("1.234 €", "1.234"),
        ("10⁶", "1000000"),
        ("2×10⁻³", "0.002"),
        ("3⅓", "10/3"),
        ("1½ cups", "1.5"),
        ("¾", "0.75"),
        ("⁷⁄₈", "0.875"),
        ("5³", None),
        ("2⁴ = 16", "16"),
        ("x² = 9", "9"),
        ("x²", None),
        ("٣٫١٤", "3.14"),
        ("１２３", "123"),
        ("১২", "12"),
        ("R2D2", None),
        ("B12", None),
        ("12cm3", "12"),
        ("USD 1,200.50", "1200.5"),
        ("CHF 1'200.50", "1200.5"),
        ("¥500", "500"),
        ("approx.5", "5"),
        ("vs.10", "10"),
        ("3; 4", None),
        ("3 and 4", None),
        ("[1, 2, 3]", None),
        ("{1,2}", None),
        ("(1, 2)", None),
        ("either 3 or 4", None),
        ("3 & 4", None),
        ("\\boxed{3 \\text{ or } 4}", None),
        ("\\boxed{3,\\ 4}", None),
        ("\\boxed{x=3, y=4}", None),
        ("\\boxed{3} or \\boxed{4}", None),
        ("The answer is 3 or 4.", None),
        ("The answer is either 3 or 4.", None),
        ("The answer is 3 km or 4 km", None),
        ("**12**", "12"),
        ("`12`", "12"),
        ("<answer>-5</answer>", "-5"),
        ("<answer>- 5</answer>", "-5"),
        ("answer=-5", "-5"),
        ("f(2) = 7", "7"),
        ("#### 1 200", "1200"),
        ("#### 1,200", "1200"),
        ("#### -1,200.50", "-1200.5"),
        ("#### $18", "18"),
        ("####18", "18"),
        ("Answer: 3 490 €", "3490"),
        ("So 25 % of it", "25"),
        ("3 x 10^2", "300"),
        ("3x10^2", "300"),
        ("3 X 10²", "300"),
        ("1.5E10", "15000000000"),
        ("2 000 000.5", "2000000.5"),
        ("-1 234", "-1234"),
        ("12 345 678 901", "12345678901"),
        ("in 2010 500 people", "500"),
        ("7 eggs, 5 hens", "5"),
        ("−١٢", "-12"),
        ("1/2", "0.5"),
        ("1⁄2", "0.5"),
        ("２／３", "2/3"),
        ("+5", "5"),
        ("＋5", "5"),
        ("5-", "5"),
        ("5 –", "5"),
        ("$1.234,56", "1234.56"),
        ("1.000.000", "1000000"),
        ("1.000", "1"),
        ("1.000,00", "1000"),
        ("\\frac{-3}{4}", "-0.75"),
        ("-\\frac{3}{4}", "-0.75"),
        ("- \\frac{3}{4}", "-0.75"),
        ("\\frac{3}{-4}", "-0.75"),
        ("\\boxed{- \\dfrac{3}{4}}", "-0.75"),
        ("the answer is -3/4", "-0.75"),
        ("is minus 3/4", "-0.75"),
        ("It is 12:30", None),
        ("1e400", None),
        ("NaN", None),
        ("infinity", None),
        ("No. 5", "5"),
        ("the 3rd", "3"),
        ("2nd place: 5th", "5"),
        ("12½%", "12.5"),
        ("0.5‰", "0.5"),
        ("99¢", "99"),
        ("5′", "5"),
        ("60°", "60"),
        ("60^\\circ", "60"),
        ("12 m/s", "12"),
        ("12 m^2", "12"),
        ("12 m²", "12"),
        ("(12)", "12"),
        ("12)", "12"),
        ("\u200b12\u200b", "12"),
        ("\u202a12\u202c", "12"),
        ("12\xa0000\xa0€", "12000"),
        ("The answer is five", None),
        ("a = 5, b = 6", None),
    ],
)
def test_signs_groups_scripts_and_doubt(text: str, answer: str | None) -> None:
    assert read(text).answer == answer


@pytest.mark.parametrize(
    "text", ["", "no number", "1/0", "1e999999999", "10^{99999999999999}", "7" * 1_000_000, "1/" + "3" * 5000]
)
def test_unreadable(text: str) -> None:
    assert read(text) == Reading(None, "none")


@given(st.fractions(max_denominator=10**6), st.integers(1, 60))
def test_equal_fractions_become_equal_strings(value: Fraction, factor: int) -> None:
    top, bottom = value.numerator * factor, value.denominator * factor
    sign = "-" if top < 0 else ""
    forms = [
        f"{top}/{bottom}",
        rf"\frac{{{top}}}{{{bottom}}}",
        rf"{sign}\tfrac{{{abs(top)}}}{{{bottom}}}",
        f"{top:,}/{bottom:,}",
        f"answer: ${top} / {bottom}$",
    ]
    assert len({read(form).answer for form in forms}) == 1


@given(st.decimals(allow_nan=False, allow_infinity=False, places=8), st.decimals(places=8, allow_nan=False))
def test_strings_are_equal_exactly_if_numbers_are(one: object, other: object) -> None:
    assume("E" not in f"{one}{other}" and "Inf" not in f"{one}{other}")
    same = Fraction(str(one)) == Fraction(str(other))
    assert (read(f"{one}").answer == read(f"{other}00").answer) is same


@given(st.fractions() | st.fractions(max_denominator=1000))
def test_canonical_form_is_stable_and_exact(value: Fraction) -> None:
    answer = read(f"{value}").answer
    assert answer is not None
    assert Fraction(answer) == value
    assert read(answer).answer == answer
    assert grade("number", answer, f"{value}")


@given(st.text() | st.text("0123456789.,/-eE^{}\\frac $%x_ ×½"))
@settings(max_examples=300)
def test_odd_text_never_raises(text: str) -> None:
    reading = read(text)
    assert (reading.answer is None) == (reading.rule == "none")
    if reading.answer is not None:
        assert read(reading.answer).answer == reading.answer


@pytest.mark.parametrize("key", ["18", "18.0", "$18", "We add 9 and 9.\n#### 18", r"\boxed{18}", r"\frac{36}{2}"])
def test_keys(key: str) -> None:
    assert canonical_key("number", key) == "18"
    assert grade("number", "18", key)
    assert not grade("number", "18.5", key)
    assert not grade("number", None, key)


def test_a_key_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(ValueError, match="key: 'eighteen' cannot be read as number"):
        grade("number", "18", "eighteen")
