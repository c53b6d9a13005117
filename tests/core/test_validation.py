"""What crosses a border: strictly typed values, or one line that names field, value and remedy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from annotated_types import Ge, Le
from hypothesis import given
from hypothesis import strategies as st

from outthink.core.errors import BadInput
from outthink.validation import Border, read_fields, read_json, read_values

FILE = Border(source="card.json", remedy="write it again")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    name: str
    scores: tuple[float, ...] = ()
    pair: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    size: int
    share: float = 0.5
    kind: Literal["one", "two"] = "one"
    checked: bool = False
    parts: tuple[Part, ...] = ()
    named: dict[str, Part] | None = None
    file: Path | None = None
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.size < 0:
            raise BadInput("size", self.size, "is below 0", "give at least 0")


def test_plain_values_become_the_dataclass() -> None:
    text = '{"size": 3, "share": 1, "parts": [{"name": "a", "scores": [1, 2.5], "pair": [1, 2]}], "file": "x/y"}'
    read = read_json(Whole, text, FILE)
    assert read == Whole(size=3, share=1.0, parts=(Part(name="a", scores=(1.0, 2.5), pair=(1, 2)),), file=Path("x/y"))
    assert read_values(Whole, json.loads(text), FILE) == read
    assert isinstance(read.share, float)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "card.json: size: None is missing; write it again"),
        ({"size": "3"}, "card.json: size: '3' is no whole number; write it again"),
        ({"size": True}, "card.json: size: True is no whole number; write it again"),
        ({"size": 2.5}, "card.json: size: 2.5 is no whole number; write it again"),
        ({"size": 1, "share": "1"}, "card.json: share: '1' is no number; write it again"),
        ({"size": 1, "checked": 1}, "card.json: checked: 1 is neither true nor false; write it again"),
        ({"size": 1, "kind": "three"}, "card.json: kind: 'three' is not known; write it again"),
        ({"size": 1, "parts": {}}, "card.json: parts: {} is no list; write it again"),
        ({"size": 1, "parts": [{"name": "a"}, 3]}, "card.json: parts[1]: 3 is no object; write it again"),
        ({"size": 1, "parts": [{}]}, "card.json: parts[0].name: None is missing; write it again"),
        ({"size": 1, "named": {"b": {"name": 1}}}, "card.json: named.b.name: 1 is no text; write it again"),
        ({"size": -1}, "card.json: size: -1 is below 0; write it again"),
        ([1], "card.json: [1] is no object; write it again"),
    ],
)
def test_one_line_names_the_field_the_value_and_the_remedy(values: Any, line: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_values(Whole, values, FILE)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"size": 1, "shar": 1}, "shar: 'shar' is not known; did you mean share?"),
        ({"size": 1, "zzz": 1}, "'zzz' is not known; use one of size, share, kind, checked, parts, named, file"),
        ({"size": 1, "kind": "x"}, "kind: 'x' is not known; use one of one, two"),
        ({"size": -1}, "size: -1 is below 0; give at least 0"),
    ],
)
def test_without_a_remedy_of_the_border_the_line_says_what_would_do(values: Any, line: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_values(Whole, values, Border())
    assert str(caught.value).removeprefix(": ") in (line, line.partition(": ")[2])


@pytest.mark.parametrize("text", ["", "{", "nul", '{"size": NaN}', '{"size": 1, "share": Infinity}', "\0"])
def test_what_is_no_json_is_told_in_one_line(text: str) -> None:
    with pytest.raises(BadInput, match=r"card\.json: .* is no JSON \(.*\); write it again"):
        read_json(Whole, text, FILE)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["size", "share", "parts", "name", "pair", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(_JSON)
def test_anything_is_read_or_refused_in_one_line(values: Any) -> None:
    for read in (lambda: read_values(Whole, values, FILE), lambda: read_json(Whole, json.dumps(values), FILE)):
        try:
            assert isinstance(read(), Whole)
        except BadInput as error:
            line = str(error)
        else:
            continue
        assert line.startswith("card.json")
        assert line.endswith("; write it again")
        assert "\n" not in line


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    share: Annotated[float, Ge(0), Le(1)] = 0.5
    size: Annotated[int, Ge(1), Le(9)] | None = None
    name: str = "x"
    marks: dict[str, Any] | None = None


def test_fields_of_an_object_are_read_as_they_are() -> None:
    marks = {"inner": [1, {"\ud800": float("inf")}]}
    read = read_fields(Fields, {"share": 1, "size": None, "marks": marks, "\ud800": 1, "self": 2}, FILE)
    assert read == Fields(share=1.0, marks=marks)
    assert isinstance(read.share, float)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"share": 1.5}, "share: 1.5 is no number from 0 to 1; change it or leave it out"),
        ({"share": "1"}, "share: '1' is no number from 0 to 1; change it or leave it out"),
        ({"share": float("nan")}, "share: nan is no number from 0 to 1; change it or leave it out"),
        ({"size": 0}, "size: 0 is no whole number from 1 to 9; change it or leave it out"),
        ({"size": True}, "size: True is no whole number from 1 to 9; change it or leave it out"),
        ({"name": 1}, "name: 1 is no text; give a text"),
        ({"marks": []}, "marks: [] is no object; give an object"),
    ],
)
def test_a_number_outside_its_limits_is_told_both(values: dict[str, Any], line: str) -> None:
    for read in (read_fields, read_values):
        with pytest.raises(BadInput) as caught:
            read(Fields, values, Border())
        assert str(caught.value) == line
