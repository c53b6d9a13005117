"""Panels of lines as SVG: well-formed, every mark inside its panel, colours by name."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from line_panels import Line, Square, draw_lines
from outthink.core.errors import BadInput

SPACE = "{http://www.w3.org/2000/svg}"


def drawn(*squares: Square) -> ElementTree.Element:
    return ElementTree.fromstring(draw_lines(squares, title="A <title> & more", subtitle="under it"))


def square(name: str = "one", **more: object) -> Square:
    lines = [Line("ideal", [(0, 0), (1, 1)], reference=True), Line("found", [(0.1, 0.2), (0.5, 0.4), (2.0, 0.9)])]
    return Square(name, "predicted", "right", lines, **more)  # type: ignore[arg-type]


def test_marks_are_joined_and_stay_inside_the_axes() -> None:
    picture = drawn(square())
    paths = [path for path in picture.iter(f"{SPACE}path") if path.get("class") == "line"]
    assert [path.get("d", "").count("L") for path in paths] == [1, 2]
    right_edge = float(paths[0].get("d", "").partition("L")[2].split()[0])
    last = float(paths[1].get("d", "").rpartition("L")[2].split()[0])
    assert last == right_edge, "a value beyond the axis lies on its end"
    assert sum(path.get("class") == "mark" for path in picture.iter(f"{SPACE}path")) == 1 + 3  # legend and points


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
