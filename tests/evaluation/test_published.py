"""What is taken from a data file, and what of it is refused: containers and questions."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outthink import BadInput, open_dataset
from outthink.evaluation.published.lookup import Problems
from outthink.evaluation.published.rows import open_rows
from support.data_sets import golds, lines, refusal, table
from support.published import FILES, write

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
        (b"question,answer\n\xff,1\n", "own.csv", "row 1 is not UTF-8"),
        (b"question,\xff\na,1\n", "own.csv", "is not UTF-8"),
        (b'question,answer\na,1\n"b" c,1\n', "own.csv", "line 3"),
        (b'[{"question": "\xff", "answer": "1"}]', "own.json", "row 1 is not UTF-8"),
        ('{"question": "a", "answer": "1"}'.encode("utf-16"), "own.jsonl", "UTF-16"),
        (b"question,question\na,1\n", "own.csv", "twice"),
        (b"PAR1 and then nothing", "own.parquet", "readable Parquet"),
        (b"no Parquet", "own.parquet", "readable Parquet"),
        (gzip.compress(b"{}" * 9999, mtime=0)[:50], "own.jsonl.gz", "cannot be read"),
        (b"\x7fELF\x00", "own.bin", "neither JSON, CSV nor Parquet"),
    ],
)
def test_files_that_cannot_be_read_are_one_line(tmp_path, content, name, word) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert word in refusal(path)
    with pytest.raises(BadInput, match=word):
        Problems.read(path)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"question,answer\na?,1\n\xff?,2\nc?,3\n", "own.csv"),
        (
            b'[{"question": "a?", "answer": 1}, {"question": "\xff?", "answer": 2}, {"question": "c?", "answer": 3}]',
            "o.json",
        ),
        (
            b'{"question": "a?", "answer": 1}\n{"question": "\xff?", "answer": 2}\n{"question": "c?", "answer": 3}',
            "o.jsonl",
        ),
    ],
)
def test_bytes_that_are_no_utf8_cost_their_own_row_alone(tmp_path, content, name) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    said: list[str] = []
    dataset = open_dataset(str(path), skip_bad=True, say=said.append)
    assert [problem.text for problem in dataset.problems] == ["a?", "c?"]
    assert len(said) == 1
    assert "2 is not UTF-8" in said[0]


@pytest.mark.parametrize(
    ("content", "golds"),
    [
        ("Which noun?,problem,solve,quick,very,A\nWhich verb?,run,w,x,y,A\n", ["A", "A"]),
        ("Which noun?,answer,solve,quick,very,A\n", ["A"]),
        ("Which is first?,A,B,C,D,A\nWhich is last?,A,B,C,D,D\n", ["A", "D"]),
        ("question,answer,A,B,C,D\nWhich?,B,w,x,y,z\n", ["B"]),
        ("A,B,C,question,answer,D\nw,x,y,Which?,B,z\n", ["B"]),
    ],
)
def test_a_header_of_six_columns_is_told_from_a_row(tmp_path, content, golds) -> None:
    path = tmp_path / "own.csv"
    path.write_text(content)
    assert [problem.answer for problem in open_dataset(str(path)).problems] == golds


def test_a_carriage_return_alone_is_a_letter_of_its_cell(tmp_path) -> None:
    path = tmp_path / "own.csv"
    path.write_bytes(b'question,answer\r\na\rb?,1\r\n"c\rd\r\ne?",2\r\n')
    assert [problem.text for problem in open_dataset(str(path)).problems] == ["a\rb?", "c\rd\r\ne?"]


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
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["####", "f(1)", "\ud83d", '["a", "\\ud83d"]']),
    lambda cells: st.lists(cells, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "\ud83d"]), cells),
    max_leaves=6,
)
_COLUMNS = """id question prompt text problem solution answer choices A B C D
test entry_point test_list test_setup_code test_imports code"""
_ROWS = st.fixed_dictionaries({}, optional=dict.fromkeys(_COLUMNS.split(), _CELLS))


@given(st.lists(_ROWS, max_size=4), st.sampled_from([None, "number", "math", "choice", "json", "text"]))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_cells_give_a_traceback(tmp_path, rows, kind) -> None:
    path = lines(tmp_path, *rows)
    for read in (lambda: open_dataset(str(path), kind, skip_bad=True).remembered, lambda: Problems.read(path).digest):
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


def test_a_table_without_lists_holds_messages_as_json(tmp_path) -> None:
    path = tmp_path / "own.csv"
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    asked = [json.dumps(chat), "[Hint: it is even] 2 + 2?", "[]", '[{"role": "user"}]']
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["messages", "answer"], *([text, 4] for text in asked)])
    assert [problem.question for problem in open_dataset(str(path)).problems] == [tuple(chat), *asked[1:]]


def test_messages_keep_images_and_calls_of_tools(tmp_path) -> None:
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    told = {"role": "tool", "content": "4", "tool_call_id": "1"}
    path = lines(tmp_path, {"messages": [picture], "answer": "4"}, {"messages": [picture, called, told], "answer": "4"})
    first, second = open_dataset(str(path)).problems
    assert first.question == (picture,)
    assert second.question == (picture, called, told)


def test_half_a_pair_and_bytes_anywhere_in_a_chat_are_text(tmp_path) -> None:
    parts = [{"type": "text", "text": "Smile \ud83d"}]
    path = lines(tmp_path, {"messages": [{"role": "user", "name": "\ud83d", "content": parts}], "answer": "4"})
    (problem,) = open_dataset(str(path)).problems
    assert problem.text == "Smile \ufffd"
    packed = table(tmp_path, messages=pa.array([[{"role": "user", "content": b"1 + 1?"}]]), answer=pa.array(["2"]))
    assert open_dataset(str(packed)).problems[0].question == ({"role": "user", "content": "1 + 1?"},)


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
