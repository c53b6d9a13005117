"""Gold answers, names and tests of published rows: what becomes of them, and which are refused."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import pyarrow as pa
import pytest

from outthink import BadInput, open_dataset
from outthink.evaluation.published.lookup import Problems
from support.data_sets import golds, lines, refusal, table
from support.published import MBPP, SANITIZED

# Gold answers.

ALWAYS = [(None, "null"), (float("nan"), "null"), ("", "empty"), (" \t", "empty"), (float("inf"), "finite")]


@pytest.mark.parametrize("kind", ["number", "math", "choice", "json", "text"])
@pytest.mark.parametrize(("value", "word"), ALWAYS)
def test_golds_that_say_nothing_are_refused_for_every_kind(tmp_path, kind, value, word) -> None:
    said = refusal(lines(tmp_path, {"question": "a?", "answer": value}), kind)
    assert "row 1: answer" in said
    assert word in said or "cannot be read" in said


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *[
            ("number", value)
            for value in (True, False, [3, 4], [3], {"x": 3}, "none", "3, 4", "3 or 4", "3,5", "twelve and a bit")
        ],
        *[("math", value) for value in ([None], [1, None], [1, ""])],
        ("text", [None]),
        *[("choice", value) for value in ("none of them", "A and C", 2, [0], True)],
        *[("json", value) for value in ("not json", "{'a': 1}", "NaN")],
    ],
)
def test_golds_that_their_kind_cannot_read_are_refused(tmp_path, kind, value) -> None:
    said = refusal(lines(tmp_path, {"question": "a?", "answer": value}), kind)
    assert "row 1: answer" in said


@pytest.mark.parametrize(
    ("kind", "value", "gold"),
    [
        ("number", 18, "18"),
        ("number", 0, "0"),
        ("number", 0.1, "0.1"),
        ("number", 1e-7, "0.0000001"),
        ("number", 1e22, "10000000000000000000000"),
        ("number", " 1,234 ", "1,234"),
        ("number", "Work.\n#### 1,234", "1,234"),
        ("math", [1, 2], "1, 2"),
        ("math", r"x^2 \in [1,2]", r"x^2 \in [1,2]"),
        ("choice", "b", "b"),
        ("json", [1, {"a": None}], '[1, {"a": null}]'),
        ("json", True, "true"),
        ("text", True, "true"),
        ("text", "# Heading\n#### Part\nSay this", "# Heading\n#### Part\nSay this"),
    ],
)
def test_golds_become_text(tmp_path, kind, value, gold) -> None:
    assert golds(lines(tmp_path, {"question": "a?", "answer": value}), kind) == [gold]


def test_gsm8k_is_known_by_any_of_its_first_rows(tmp_path) -> None:
    rows = [{"question": "a?", "answer": None}, {"question": "b?", "answer": "Work.\n#### 3"}]
    said: list[str] = []
    dataset = open_dataset(str(lines(tmp_path, *rows)), skip_bad=True, say=said.append)
    assert (dataset.kind, [problem.answer for problem in dataset.problems]) == ("number", ["3"])
    packed = table(tmp_path, question=pa.array([b"a?"]), answer=pa.array([b"#### 4"]))
    assert golds(packed) == ["4"]


def test_short_floats_are_their_own_shortest_decimal(tmp_path) -> None:
    for kind in (pa.float32(), pa.float16()):
        path = table(tmp_path, question=pa.array(["a?", "b?"]), answer=pa.array([0.1, 2.5]).cast(kind))
        assert golds(path, "number") == ["0.1", "2.5"]
    path = table(tmp_path, question=pa.array(["a?"]), answer=pa.array([0.1], pa.float32()).dictionary_encode())
    assert golds(path, "number") == ["0.1"]
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float32(), 2), pa.large_list(pa.float16())):
        halves = pa.array([[0.1, 2.5]], pa.list_(pa.float64())).cast(kind)
        path = table(tmp_path, question=pa.array(["a?"]), choices=halves, answer=pa.array([0]))
        assert open_dataset(str(path)).problems[0].text == "a?\nA. 0.1\nB. 2.5"
    path = table(tmp_path, question=pa.array(["a?", "b?"]), answer=pa.array([None, 2.5], pa.float32()))
    assert "row 1: answer is null" in refusal(path, "number")


def test_tables_have_more_kinds_of_golds(tmp_path) -> None:
    values = [decimal.Decimal("1.50"), datetime.date(2026, 11, 29)]
    question = pa.array(["a?"])
    assert golds(table(tmp_path, question=question, answer=pa.array(values[:1])), "number") == ["1.50"]
    assert golds(table(tmp_path, question=question, answer=pa.array(values[1:])), "text") == ["2026-11-29"]
    assert golds(table(tmp_path, question=question, answer=pa.array(["B"]).dictionary_encode()), "choice") == ["B"]
    assert "no number" in refusal(table(tmp_path, question=question, answer=pa.array(values[1:])), "number")
    nanoseconds = pa.array([1], pa.timestamp("ns"))  # finer than Python has it
    assert golds(table(tmp_path, question=question, answer=nanoseconds)) == ["1970-01-01 00:00:00.000000001"]
    for kind in (pa.binary_view(), pa.binary(6)):
        assert golds(table(tmp_path, question=question, answer=pa.array([b"#### 4"], kind))) == ["4"]


def test_whole_decimals_name_problems(tmp_path) -> None:
    path = table(tmp_path, id=pa.array([decimal.Decimal(7)]), question=pa.array(["a?"]), answer=pa.array(["1"]))
    assert open_dataset(str(path)).problems[0].problem_id == "7"


@pytest.mark.parametrize(
    ("value", "letter"),
    [
        (0, "A"),
        (3, "D"),
        (2.0, "C"),
        ("d", "D"),
        ("C", "C"),
        ("1", "B"),
        ("Mars", "C"),
        (" Venus ", "A"),
        ("(B)", "B"),
        ("Ｃ", "C"),
        ("D.", "D"),
    ],
)
def test_a_place_a_letter_or_the_text_names_a_choice(tmp_path, value, letter) -> None:
    row = {"question": "Which?", "choices": ["Venus", "Earth", "Mars", "Saturn"], "answer": value}
    assert golds(lines(tmp_path, row)) == [letter]


@pytest.mark.parametrize("value", [4, -1, 1.5, "4", "E", "(E)", "Pluto", True, [1], {"place": 1}, "", None, "A, B"])
def test_a_gold_outside_the_choices_is_refused(tmp_path, value) -> None:
    row = {"question": "Which?", "choices": ["Venus", "Earth", "Mars", "Saturn"], "answer": value}
    assert "row 1: answer" in refusal(lines(tmp_path, row))


def test_a_gold_that_fits_two_choices_is_refused(tmp_path) -> None:
    row = {"question": "Which?", "choices": ["4", "2", "3", "1"], "answer": "3"}
    assert "fits several choices" in refusal(lines(tmp_path, row))
    assert golds(lines(tmp_path, {**row, "answer": 3})) == ["D"]
    twice = {"question": "Which?", "choices": ["no", "no"], "answer": "no"}
    assert "fits several choices" in refusal(lines(tmp_path, twice))


@pytest.mark.parametrize("value", [None, [], ["one"], ["a"] * 11, ["a", None], ["a", " "], [["a"], "b"], "a, b", 7])
def test_choices_that_are_none_are_refused(tmp_path, value) -> None:
    row = {"question": "Which?", "choices": value, "answer": 0}
    assert "row 2: choices" in refusal(lines(tmp_path, {**row, "choices": ["a", "b"]}, row))


def test_the_gold_of_math_is_in_the_boxes_of_its_solution(tmp_path) -> None:
    good = {"problem": "x?", "solution": r"So $\boxed{5}$."}
    dataset = open_dataset(str(lines(tmp_path, good, {"problem": "y?", "solution": r"It is $\boxed 7$."})))
    assert dataset.right("own-0000", ["5", "7"]) == {"5"}
    assert dataset.right("own-0001", ["5", "7"]) == {"7"}
    assert r"row 2: solution has no \boxed" in refusal(lines(tmp_path, good, {"problem": "y?", "solution": "It is 7."}))


def test_columns_may_be_named_in_python(tmp_path) -> None:
    path = lines(tmp_path, {"ask": "a?", "key": 1, "one": "x", "two": "y"})
    dataset = open_dataset(str(path), columns={"question": "ask", "gold": "key", "choices": "one,two"})
    assert [(problem.question, problem.answer) for problem in dataset.problems] == [("a?\nA. x\nB. y", "B")]
    with pytest.raises(BadInput, match="'answer' is not known"):
        open_dataset(str(path), columns={"answer": "key"})


def test_a_single_choice_is_named_by_its_column(tmp_path) -> None:
    good = {"question": "a?", "A": "x", "B": "y", "C": "z", "D": "w", "answer": "D"}
    assert golds(lines(tmp_path, good)) == ["D"]
    assert "row 2: C is null" in refusal(lines(tmp_path, good, good | {"C": None}))


# Names.


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"problem_id": "p", "task_id": "t", "unique_id": "u", "id": "i"}, "p"),
        ({"task_id": "t", "unique_id": "u", "id": "i"}, "t"),
        ({"unique_id": "u", "id": "i"}, "u"),
        ({"id": "i"}, "i"),
        ({"id": 7}, "7"),
        ({"id": 7.0}, "7"),
        ({"id": None}, "own-0000"),
        ({"id": ""}, "own-0000"),
        ({}, "own-0000"),
    ],
)
def test_problems_are_named(tmp_path, row, name) -> None:
    path = lines(tmp_path, {"question": "a?", "answer": "1", **row})
    assert open_dataset(str(path)).problems[0].problem_id == name
    assert name in Problems.read(path)


@pytest.mark.parametrize("value", [True, 1.5, [1], {"a": 1}])
def test_names_that_are_none_are_refused(tmp_path, value) -> None:
    assert "row 1: id" in refusal(lines(tmp_path, {"question": "a?", "answer": "1", "id": value}))


def test_a_name_that_stands_twice_means_neither_row(tmp_path) -> None:
    row = {"question": "a?", "answer": "1", "id": 1}
    path = lines(tmp_path, row, {**row, "question": "b?", "id": "1"}, {**row, "id": 2})
    assert "row 2: id is problem_id '1', which stands twice" in refusal(path)
    assert [problem.problem_id for problem in open_dataset(str(path), skip_bad=True).problems] == ["2"]
    problems = Problems.read(path)
    assert problems.question("2") == "a?"
    with pytest.raises(BadInput, match="twice"):
        problems.question("1")
    same = lines(tmp_path, row, row)
    assert len(open_dataset(str(same), skip_bad=True).problems) == 1
    assert Problems.read(same).question("1") == "a?"


# Tests of code.


def test_mbpps_asserts_become_a_check(tmp_path) -> None:
    rows = [
        {"text": "a", "test_list": ["assert set(first([1])) == set([1])"], "code": "def first(x): return x"},
        {
            "text": "b",
            "test_list": ["assert isclose(outer(inner(2)), 4)"],
            "test_setup_code": "from math import isclose",
        },
        {"text": "c", "test_list": ['assert f("""a\n  b""") == 1'], "code": "def g(): pass\ndef f(x): return 1"},
    ]
    path = lines(tmp_path, *({**row, "task_id": n, "test_imports": ["import os"]} for n, row in enumerate(rows)))
    tests = Problems.read(path).code
    assert tests is not None
    assert [test["entry_point"] for test in tests.values()] == ["first", "outer", "f"]
    names: dict[str, Any] = {"f": lambda text: int(text == "a\n  b")}
    exec(tests["2"]["test"], names)
    names["check"](names["f"])
    names["f"] = lambda text: 2
    with pytest.raises(AssertionError):
        names["check"](names["f"])
    assert tests["1"]["test"].startswith("import os\nfrom math import isclose\n")


@pytest.mark.parametrize("rows", [MBPP, SANITIZED])
def test_mbpps_reference_passes_its_test(tmp_path, rows) -> None:
    tests = Problems.read(lines(tmp_path, *rows)).code
    assert tests is not None
    for row in rows:
        names: dict[str, Any] = {}
        exec(row["code"], names)
        exec(tests[str(row["task_id"])]["test"], names)
        names["check"](None)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"test": None}, "test is null"),
        ({"test": ""}, "test is empty"),
        ({"test": "def check(candidate:\n"}, "test is no Python"),
        ({"test": "assert f() == 1"}, "test defines no check"),
        ({"test": "def check(c):\n    pass\n"}, "test never calls f"),
        ({"entry_point": "not a name"}, "entry_point is not the name"),
        ({"entry_point": "class"}, "entry_point is not the name"),
        ({"entry_point": None}, "entry_point is null"),
        ({"prompt": ""}, "prompt is an empty question"),
    ],
)
def test_tests_are_looked_at_before_anything_is_asked(tmp_path, change, word) -> None:
    row = {"task_id": "t", "prompt": "def f():\n", "entry_point": "f", "test": "def check(c):\n    assert c() == 1\n"}
    assert f"row 1: {word}" in refusal(lines(tmp_path, row | change))


def test_a_table_without_lists_holds_tests_as_json(tmp_path) -> None:
    path = tmp_path / "mbpp.csv"
    path.write_text('task_id,text,code,test_list\n1,Twice.,def f(x): return 2 * x,"[""assert f(1) == 2""]"\n')
    assert Problems.read(path).code["1"]["entry_point"] == "f"
    assert open_dataset(str(path)).problems[0].text.endswith("\n\nassert f(1) == 2")


@pytest.mark.parametrize("tests", [None, [], "assert f(1)", [1], ["assert f(1) =="], [""], ["assert 1 == 1"], ["f(1)"]])
def test_asserts_that_test_nothing_are_refused(tmp_path, tests) -> None:
    path = lines(tmp_path, {"task_id": 1, "text": "a", "test_list": ["assert f(1)"]}, {"text": "b", "test_list": tests})
    assert "row 2: test_list" in refusal(path)
