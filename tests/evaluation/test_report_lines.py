"""Panels of lines as SVG: well-formed, every mark inside its panel, colours by name."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")

from line_panels import Line, Square, draw_lines
from outthink.core.errors import BadInput
from outthink.evaluation.report.axis import colour

SPACE = "{http://www.w3.org/2000/svg}"


def drawn(*squares: Square) -> ElementTree.Element:
    return ElementTree.fromstring(draw_lines(squares, title="A <title> & more", subtitle="under it"))


def square(name: str = "one", **more: object) -> Square:
    lines = [Line("ideal", [(0, 0), (1, 1)], reference=True), Line("found", [(0.1, 0.2), (0.5, 0.4), (2.0, 0.9)])]
    return Square(name, "predicted", "right", lines, **more)  # type: ignore[arg-type]


def test_marks_are_joined_and_stay_inside_the_axes() -> None:
    picture = drawn(square())
    lines = [path for path in picture.iter(f"{SPACE}path") if "fill: none" in path.get("style", "")]
    dashed = next(path.get("d", "").split("L") for path in lines if "stroke-dasharray" in path.get("style", ""))
    found = next(path.get("d", "").split("L") for path in lines if colour(0) in path.get("style", ""))
    assert (len(dashed), len(found)) == (2, 3)
    assert found[-1].split()[0] == dashed[-1].split()[0], "a value beyond the axis lies on its end"
    assert len([mark for mark in picture.iter(f"{SPACE}use") if colour(0) in mark.get("style", "")]) == 1 + 3


def test_a_fourth_panel_stands_in_a_second_row() -> None:
    one, four = drawn(square()), drawn(*(square(str(i)) for i in range(4)))
    assert float(four.get("width", 0)) > 2 * float(one.get("width", 0))
    assert float(four.get("height", 0)) > 1.5 * float(one.get("height", 0))
    texts = [text.text for text in four.iter(f"{SPACE}text")]
    assert [name for name in texts if name in {"0", "1", "2", "3"}] == ["0", "1", "2", "3"]
    assert texts.count("found") == 1, "a name stands in the legend once"


def test_axes_are_labelled_in_per_cent_or_numbers() -> None:
    texts = [text.text for text in drawn(square(across=(0, 30), percent=(False, True))).iter(f"{SPACE}text")]
    assert {"0", "6", "30", "0 %", "100 %"} <= set(texts)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(BadInput, match="empty"):
        draw_lines([], title="none")
    with pytest.raises(BadInput, match="axis without length"):
        draw_lines([square(up=(1.0, 1.0))], title="flat")
