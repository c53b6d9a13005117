"""Numbers: one kind of spelling holds in a box, in a statement and in prose."""

from __future__ import annotations

import pytest

from outthink.answers import Reading, read_sync


def read(text: str) -> Reading:
    return read_sync("number", text)


@pytest.mark.parametrize(
    ("texts", "answer"),
    [
        ([r"1.5\times 10^{-10}", r"15\cdot10^{-11}", "1.5×10⁻¹⁰", r"1.5 \times {10}^{-10}"], "0.00000000015"),
        (["˗7", "⁻7", r"-\thinspace 7", r"-\hspace{2pt}7", r"-\left(7\right)", "-(7)", "(-(7))", "- (7)"], "-7"),
        (
            [rf"12{gap}000" for gap in (r"\thinspace ", r"{\,}", r"{ }", r"{,}\!", r"\mathord{,}", r"\;", "{'}")],
            "12000",
        ),
        ([r"3,50\ €", r"3,50 \text{ €}", r"\$3,50", "3,50 SEK", r"3{,}5"], "3.5"),
        (["KRW500", "500 NOK", "zł500", "usd500", "Rs500", "Kč500"], "500"),
        (["12 s⁻¹", "12 m s⁻²", "12 kg·m⁻³", r"12\text{ cm}^{-1}", "12 m^{-1}"], "12"),
        (["_5_", "__5__", "`5`", "***5***"], "5"),
        (["3 or -4", "3 oder 4", "3 et 4", "3 y 4", r"3 \lor 4", "3 as well as 4", "3 and/or 4", "3 или 4"], None),
        (["3或4", "3和4", "3、4", "3% or 4%", "3 kg, 4 kg", r"\$3, \$4", "3 or maybe 4", "3 km or 4 miles"], None),
        ([r"3\text{ cm or }4\text{ cm}", "3 dollars, 4 dollars", r"3^\circ, 4^\circ", "-1 or minus 2"], None),
        (["3,5", "-3,5", r"\mathbf{3,5}", "5**2"], None),
    ],
)
def test_one_kind_in_every_place(texts: list[str], answer: str | None) -> None:
    for text in texts:
        for around in (text, rf"\boxed{{{text}}}", f"The answer is {text}.", f"Answer: {text}", f"#### {text}"):
            assert read(around).answer == answer, around


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("$x = 3,5$", None),  # the mark closes a formula
        ("It costs 3,50 $", "3.5"),
        ("It takes 3 or 4 hours.", None),
        ("3 apples and 4 pears", "4"),
        ("She has 3 apples and 4 apples", "4"),
        ("2x + 3 y = 12", "12"),
    ],
)
def test_what_looks_like_a_price_or_a_list(text: str, answer: str | None) -> None:
    assert read(text).answer == answer
