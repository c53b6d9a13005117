"""What is taken from a data file, and which rows of it are refused: containers, questions, golds, names, tests."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outthink import BadInput, open_dataset
from outthink.evaluation.published.lookup import Problems
from outthink.evaluation.published.rows import open_rows
from support.published import FILES, MBPP, SANITIZED, write


def lines(folder: Path, *rows: Any, name: str = "own.jsonl") -> Path:
    path = folder / name
    path.write_bytes("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode())
    return path


def table(folder: Path, **columns: pa.Array) -> Path:
    path = folder / "own.parquet"
    parquet.write_table(pa.table(columns), path)
    return path


def golds(path: Path, kind: str | None = None) -> list[str | None]:
    return [problem.answer for problem in open_dataset(str(path), kind).problems]


def refusal(path: Path, kind: str | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        open_dataset(str(path), kind)
    said = str(caught.value)
    assert "\n" not in said
    return said


# Containers.


@pytest.mark.parametrize("name", FILES)
def test_every_container_of_a_form_holds_the_same_problems(tmp_path, name) -> None:
    rows, _, form, kind = FILES[name]
    dataset = open_dataset(str(write(tmp_path, name)))
    twin = open_dataset(str(lines(tmp_path, *rows, name="twin.jsonl")))
    assert [(problem.question, problem.answer) for problem in dataset.problems] == [
        (problem.question, problem.answer) for problem in twin.problems
    ]
    assert dataset.kind == twin.kind == kind
    assert form in dataset.taken


def test_letters_that_look_like_line_ends_stay_letters(tmp_path) -> None:
    odd = "one\u2028two\u0085three\x0bfour\x1cfive"
    path = tmp_path / "own.jsonl"
    row = json.dumps({"question": odd, "answer": "1"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + f"{row}\r\n\r\n{row.replace('one', 'two')}\r\n".encode())
    assert [problem.question for problem in open_dataset(str(path)).problems] == [odd, odd.replace("one", "two")]
    table = tmp_path / "own.csv"
    table.write_bytes(b"\xef\xbb\xbfquestion,answer\r\n" + f'"{odd},\nsix",1\r\nplain,2\r\n'.encode())
    assert [problem.question for problem in open_dataset(str(table)).problems] == [f"{odd},\nsix", "plain"]


@pytest.mark.parametrize("name", ["own.jsonl", "own.json", "own", "own.jsonl.gz", "own.txt"])
def test_json_is_told_by_its_content(tmp_path, name) -> None:
    rows = [{"question": f"{n}?", "answer": str(n)} for n in range(3)]
    for text in ("\n".join(map(json.dumps, rows)), json.dumps(rows), json.dumps(rows, indent=1)):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        dataset = open_dataset(str(path))
        assert [problem.problem_id for problem in dataset.problems] == [f"own-000{n}" for n in range(3)]
        assert golds(path) == ["0", "1", "2"]


def test_a_json_file_may_hold_one_problem_over_several_lines(tmp_path) -> None:
    path = tmp_path / "7.json"
    path.write_text(json.dumps({"problem": "1 + 1?", "solution": r"$\boxed{2}$"}, indent=2))
    assert len(open_dataset(str(path)).problems) == 1


@pytest.mark.parametrize(
    ("content", "name", "word"),
    [
        (b"", "own.jsonl", "no rows"),
        (b"[]", "own.json", "no JSON object"),
        (b"[1]", "own.json", "row 1 is no JSON object"),
        (b'[{"question": "a", "answer": "1"}, ', "own.json", "row 2 is not JSON"),
        (b'[{"question": "a", "answer": "1"} {}]', "own.json", "no comma"),
        (b'[{"question": "a", "answer": "1"}] x', "own.json", "more follows"),
        (b'{"question": "\xff", "answer": "1"}', "own.jsonl", "line 1 is not UTF-8"),
        (b"[" * 100_000, "own.json", "row 1 is not JSON"),
        (b'{"a":' * 100_000, "own.jsonl", "line 1 is not JSON"),
        (b"question,answer\na,b,c\n", "own.csv", "row 1 has 3 cells for 2 columns"),
        (b"question,answer\n", "own.csv", "no rows"),
        (b'question,answer\n"a,1\n', "own.csv", "cannot be read"),
        (b"question,answer\n\xff,1\n", "own.csv", "cannot be read"),
        (b"question,question\na,1\n", "own.csv", "twice"),
        (b"PAR1 and then nothing", "own.parquet", "readable Parquet"),
        (b"no Parquet", "own.parquet", "readable Parquet"),
        (gzip.compress(b"{}" * 9999)[:50], "own.jsonl.gz", "cannot be read"),
        (b"\x7fELF\x00", "own.bin", "neither JSON, CSV nor Parquet"),
    ],
)
def test_files_that_cannot_be_read_are_one_line(tmp_path, content, name, word) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert word in refusal(path)
    with pytest.raises(BadInput, match=word):
        Problems.read(path)


def test_what_is_no_file_is_one_line(tmp_path) -> None:
    assert "is no file" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "none.jsonl")
    with pytest.raises(BadInput, match="cannot be read"):
        Problems.read(tmp_path)


@given(st.binary(max_size=200), st.sampled_from(["own.jsonl", "own.json", "own.csv", "own.parquet", "own"]))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_give_a_traceback(tmp_path, content, name) -> None:
    path = tmp_path / name
    for start in (b"", b"[", b'{"question": "', b"question,answer\n", b"PAR1", b"\x1f\x8b"):
        path.write_bytes(start + content)
        for read in (lambda: open_dataset(str(path), "number"), lambda: Problems.read(path)):
            with contextlib.suppress(BadInput):
                read()


_CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["####", "f(1)"]),
    lambda cells: st.lists(cells, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "a"]), cells),
    max_leaves=6,
)
_COLUMNS = """id question prompt text problem solution answer choices A B C D
test entry_point test_list test_setup_code test_imports code"""
_ROWS = st.fixed_dictionaries({}, optional=dict.fromkeys(_COLUMNS.split(), _CELLS))


@given(st.lists(_ROWS, max_size=4), st.sampled_from([None, "number", "math", "choice", "json", "text"]))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_cells_give_a_traceback(tmp_path, rows, kind) -> None:
    path = lines(tmp_path, *rows)
    for read in (lambda: open_dataset(str(path), kind, skip_bad=True), lambda: Problems.read(path)):
        with contextlib.suppress(BadInput):
            read()


def test_rows_are_read_as_they_are_asked_for(tmp_path) -> None:
    path = tmp_path / "own.parquet"
    rows = [{"question": f"{n}?", "answer": "1", "more": "x" * 100} for n in range(5000)]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    first = next(open_rows("dataset", path).rows({"question"}))
    assert first == {"question": "0?"}
    assert len(open_dataset(str(path), limit=3).problems) == 3


# Questions.


def test_messages_are_asked_as_messages(tmp_path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    (problem,) = open_dataset(str(lines(tmp_path, {"messages": chat, "answer": "4"}))).problems
    assert problem.question == tuple(chat)
    assert problem.text == "Be brief.\n2 + 2?"
    named = [{"role": "user", "content": "2 + 2?", "name": None}]
    path = table(tmp_path, prompt=pa.array([named]), answer=pa.array(["4"]))
    assert open_dataset(str(path)).problems[0].question == ({"role": "user", "content": "2 + 2?"},)


def test_messages_keep_images_and_calls_of_tools(tmp_path) -> None:
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    told = {"role": "tool", "content": "4", "tool_call_id": "1"}
    path = lines(tmp_path, {"messages": [picture], "answer": "4"}, {"messages": [picture, called, told], "answer": "4"})
    first, second = open_dataset(str(path)).problems
    assert first.question == (picture,)
    assert second.question == (picture, called, told)


def test_choices_are_shown_behind_the_last_question_of_a_chat(tmp_path) -> None:
    chat = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "Say more."}]
    path = lines(
        tmp_path, {"question": [*chat, {"role": "user", "content": "That."}], "choices": [1, 2.5], "answer": 1}
    )
    (problem,) = open_dataset(str(path)).problems
    assert [message["content"] for message in problem.question] == ["Which?", "Say more.", "That.\nA. 1\nB. 2.5"]
    assert problem.answer == "B"


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (None, "is null"),
        (float("nan"), "is null"),
        (" \n", "empty question"),
        (7, "is no text"),
        (True, "is no text"),
        ({"text": "a"}, "is no text"),
        ([], "empty question"),
        (["a"], "messages"),
        ([{"from": "human", "value": "a"}], "messages"),
        ([{"role": "user", "content": None}], "messages"),
        ([{"role": "user", "content": " "}], "empty question"),
        ([{"role": "user", "content": [3]}], "messages"),
        ([{"role": 1, "content": "a"}], "messages"),
    ],
)
def test_questions_that_cannot_be_asked_are_named(tmp_path, value, word) -> None:
    good = {"question": "a?", "answer": "1"}
    path = lines(tmp_path, good, {"question": value, "answer": "1"})
    said = refusal(path)
    assert f"row 2: question {word}" in said or ("row 2: question" in said and word in said)
    left: list[str] = []
    assert len(open_dataset(str(path), skip_bad=True, say=left.append).problems) == 1
    assert len(left) == 1
    assert open_dataset(str(path), limit=1).problems


def test_bytes_are_read_as_utf8_or_refused(tmp_path) -> None:
    texts = pa.array(["größer?".encode(), b"b?"])
    path = table(tmp_path, question=texts, answer=pa.array([b"1", b"2"]), id=pa.array([b"x", b"y"]))
    dataset = open_dataset(str(path))
    assert dataset.problems[0].question == "größer?"
    assert [problem.problem_id for problem in dataset.problems] == ["x", "y"]
    bad = table(tmp_path, question=pa.array([b"a?", b"\xff"]), answer=pa.array(["1", "2"]))
    assert "row 2: question is no UTF-8" in refusal(bad)


def test_half_a_pair_in_a_question_is_replaced(tmp_path) -> None:
    path = lines(tmp_path, r'{"question": "Smile \ud83d", "answer": "1", "id": "\udc00"}')
    (problem,) = open_dataset(str(path)).problems
    assert (problem.question, problem.problem_id) == ("Smile \ufffd", "\ufffd")


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
    path = table(tmp_path, question=pa.array(["a?", "b?"]), answer=pa.array([None, 2.5], pa.float32()))
    assert "row 1: answer is null" in refusal(path, "number")


def test_tables_have_more_kinds_of_golds(tmp_path) -> None:
    values = [decimal.Decimal("1.50"), datetime.date(2026, 11, 29)]
    question = pa.array(["a?"])
    assert golds(table(tmp_path, question=question, answer=pa.array(values[:1])), "number") == ["1.50"]
    assert golds(table(tmp_path, question=question, answer=pa.array(values[1:])), "text") == ["2026-11-29"]
    assert golds(table(tmp_path, question=question, answer=pa.array(["B"]).dictionary_encode()), "choice") == ["B"]


@pytest.mark.parametrize(
    ("value", "letter"),
    [(0, "A"), (3, "D"), (2.0, "C"), ("d", "D"), ("C", "C"), ("1", "B"), ("Mars", "C"), (" Venus ", "A")],
)
def test_a_place_a_letter_or_the_text_names_a_choice(tmp_path, value, letter) -> None:
    row = {"question": "Which?", "choices": ["Venus", "Earth", "Mars", "Saturn"], "answer": value}
    assert golds(lines(tmp_path, row)) == [letter]


@pytest.mark.parametrize("value", [4, -1, 1.5, "4", "E", "Pluto", True, [1], {"place": 1}, "", None, "A, B"])
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
    assert "row 2: problem_id '1' stands twice" in refusal(path)
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


@pytest.mark.parametrize("tests", [None, [], "assert f(1)", [1], ["assert f(1) =="], [""], ["assert 1 == 1"], ["f(1)"]])
def test_asserts_that_test_nothing_are_refused(tmp_path, tests) -> None:
    path = lines(tmp_path, {"task_id": 1, "text": "a", "test_list": ["assert f(1)"]}, {"text": "b", "test_list": tests})
    assert "row 2: test_list" in refusal(path)
