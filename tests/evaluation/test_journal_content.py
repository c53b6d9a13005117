"""A journal belongs to the questions: rows may be removed, added, moved and edited between two runs."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink import BadInput, Sampling, ScriptedEngine
from outthink.engines.protocol import Speed
from outthink.engines.scripted import Completion
from outthink.evaluation.dataset import open_dataset
from outthink.evaluation.record import Recording, record
from outthink.session.store import SampleStore

FAST = Speed(stream=1e6, total=1e8, prefill=1e8, concurrency=8)


class Answers:
    """Answers every call with a number of its own, and keeps who was asked."""

    def __init__(self, start: int) -> None:
        self.asked: list[str] = []
        self.start = start
        self.engine = ScriptedEngine(self.script, model="toy", speed=FAST)

    def script(self, call: Any) -> Completion:
        question = call.messages[-1].text
        self.asked.append(question)
        return Completion(text=f"{question}: the answer is {self.start}.", tokens=4)


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"question": q, "answer": gold}) + "\n" for q, gold in rows))
    return path


def go(source: Path, out: Path, answers: Answers, **plan: Any) -> list[dict[str, Any]]:
    recording = Recording(**{"answer": "number", "samples": 2, **plan})
    asyncio.run(record(open_dataset(str(source), recording.answer), answers.engine, out, recording))
    return parquet.read_table(out).to_pylist()


@contextmanager
def no_room(out: Path):
    """Nothing can be written where OUT's draft goes."""
    blocked = out.with_name(f".{out.name}.{os.getpid()}")
    blocked.mkdir()
    try:
        yield
    finally:
        blocked.rmdir()


def interrupted(source: Path, out: Path, **plan: Any) -> Answers:
    """A run that draws everything and then cannot write its file."""
    answers = Answers(1)
    with no_room(out), pytest.raises(BadInput, match="run the same command again"):
        go(source, out, answers, **plan)
    assert not out.exists()
    return answers


questions = st.lists(st.tuples(st.sampled_from("ABCDE"), st.sampled_from("12")), min_size=1, max_size=7)


@settings(max_examples=25, deadline=None)
@given(before=questions, after=questions)
def test_any_edit_keeps_the_samples_of_every_unchanged_question(before, after) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "q.jsonl", Path(folder) / "toy--q.parquet"
        interrupted(write(source, before), out)
        later = Answers(2)
        rows = go(write(source, after), out, later)
        assert not list(Path(folder).glob("*.journal*"))
    old, new = Counter(q for q, _ in before), Counter(q for q, _ in after)
    assert Counter(later.asked) == {q: 2 * (new[q] - old[q]) for q in new if new[q] > old[q]}
    place: Counter[str] = Counter()
    for at, (question, gold) in enumerate(after):
        mine = rows[2 * at : 2 * at + 2]
        answer = "1" if place[question] < old[question] else "2"
        place[question] += 1
        assert [row["text"] for row in mine] == [f"{question}: the answer is {answer}."] * 2
        assert [row["correct"] for row in mine] == [answer == gold] * 2
        assert {row["problem_id"] for row in mine} == {f"q-{at:04d}"}


def test_more_samples_and_another_kind_of_answer_go_on_with_the_same_samples(tmp_path) -> None:
    source, out = write(tmp_path / "q.jsonl", [("A", "1")]), tmp_path / "toy--q.parquet"
    interrupted(source, out, answer="text")
    later = Answers(2)
    rows = go(source, out, later, samples=3, greedy=True)
    assert later.asked == ["A", "A"]
    assert [(row["sample_idx"], row["answer"]) for row in rows] == [(0, "2"), (1, "1"), (2, "1"), (3, "2")]


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 1}, "seed"), ({"sampling": Sampling(temperature=0.5)}, "sampling"), ({"system": "Be brief."}, "system")],
)
def test_another_run_is_refused_by_what_differs_and_loses_nothing(tmp_path, change, named) -> None:
    source, out = write(tmp_path / "q.jsonl", [("A", "1")]), tmp_path / "toy--q.parquet"
    interrupted(source, out)
    with pytest.raises(BadInput, match=rf"another recording \({named}\)") as refused:
        go(source, out, Answers(2), **change)
    assert "remove" not in str(refused.value)
    later = Answers(2)
    assert {row["answer"] for row in go(source, out, later)} == {"1"}
    assert later.asked == []


def old_journal(out: Path) -> None:
    """The journal as version 0.1 wrote it: samples under their problem's id."""
    database = sqlite3.connect(f"{out}.journal")
    with database:
        database.execute("DELETE FROM about WHERE name != 'recording'")
        places: dict[str, str] = {}
        for (key,) in database.execute("SELECT key FROM samples ORDER BY json_extract(value, '$.text')").fetchall():
            name, _, number = key.rpartition(":")
            problem = places.setdefault(name, f"q-{len(places):04d}")
            database.execute("UPDATE samples SET key = ? WHERE key = ?", (f"{number}:{problem}", key))
    database.close()


def test_a_journal_of_0_1_is_read_where_its_questions_still_match(tmp_path) -> None:
    rows = [("A", "1"), ("B", "1"), ("C", "1")]
    source, out = write(tmp_path / "q.jsonl", rows), tmp_path / "toy--q.parquet"
    interrupted(source, out)
    old_journal(out)
    later = Answers(2)
    assert [row["text"][0] for row in go(source, out, later)] == ["A", "A", "B", "B", "C", "C"]
    assert later.asked == []


def test_a_journal_of_0_1_is_refused_where_a_row_is_gone_or_new(tmp_path) -> None:
    rows = [("A", "1"), ("B", "1"), ("C", "1")]
    source, out = write(tmp_path / "q.jsonl", rows), tmp_path / "toy--q.parquet"
    interrupted(source, out)
    old_journal(out)
    for edited in (rows[:1] + rows[2:], [*rows, ("D", "1")]):
        with pytest.raises(BadInput, match=r"version 0\.1") as refused:
            go(write(source, edited), out, Answers(2))
        assert "remove" not in str(refused.value)
    assert {row["answer"] for row in go(write(source, rows), out, Answers(2))} == {"1"}


def test_a_full_disk_under_the_journal_is_one_line_and_keeps_what_is_saved(tmp_path, monkeypatch) -> None:
    source, out = write(tmp_path / "q.jsonl", [(letter * 40, "1") for letter in "ABCDEFGH"]), tmp_path / "o.parquet"
    connect = sqlite3.connect

    def small(*given: Any, **options: Any) -> sqlite3.Connection:
        database = connect(*given, **options)
        database.execute("PRAGMA max_page_count = 7")
        return database

    first = Answers(1)
    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", small)
        with pytest.raises(BadInput, match="full"):
            go(source, out, first, samples=8)
    later = Answers(2)
    rows = go(source, out, later, samples=8)
    kept = sum(row["answer"] == "1" for row in rows)
    assert kept > 0
    assert len(later.asked) == 64 - kept


def test_a_journal_that_is_opened_on_a_full_disk_is_not_to_be_removed(tmp_path, monkeypatch) -> None:
    connect = sqlite3.connect

    def full(*given: Any, **options: Any) -> sqlite3.Connection:
        database = connect(*given, **options)
        database.execute("PRAGMA max_page_count = 1")
        return database

    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(BadInput, match="make room there, and run the same command again") as refused:
        SampleStore(tmp_path / "o.parquet.journal")
    assert "remove" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE samples SET value = '{'",
        "UPDATE samples SET value = '[]'",
        "UPDATE samples SET value = '{}'",
        "UPDATE about SET value = '['",
        "UPDATE about SET value = '[1]'",
        "ALTER TABLE samples RENAME COLUMN value TO other",
    ],
)
def test_a_journal_that_is_damaged_is_one_line(tmp_path, change) -> None:
    source, out = write(tmp_path / "d.jsonl", [("A", "1")]), tmp_path / "toy--d.parquet"
    interrupted(source, out)
    with sqlite3.connect(f"{out}.journal") as database:
        database.execute(change)
    database.close()
    with pytest.raises(BadInput, match="is damaged"):
        go(source, out, Answers(2))


def test_a_folder_that_is_a_file_is_one_line(tmp_path) -> None:
    source = write(tmp_path / "d.jsonl", [("A", "1")])
    with pytest.raises(BadInput, match="cannot be written"):
        go(source, source / "toy--d.parquet", Answers(1))


def test_names_of_files_may_be_no_utf8_and_too_long(tmp_path) -> None:
    source = write(tmp_path / os.fsdecode(b"caf\xe9.jsonl"), [("A", "1")])
    assert [row["problem_id"] for row in go(source, tmp_path / "o.parquet", Answers(1))] == ["caf\ufffd-0000"] * 2
    asked = Answers(1)
    with pytest.raises(BadInput, match="no UTF-8"):
        go(source, tmp_path / os.fsdecode(b"caf\xe9.parquet"), asked)
    assert asked.asked == []
    with pytest.raises(BadInput, match="does not exist"):
        open_dataset("long" * 2000)


def test_a_lone_surrogate_is_recorded_and_right(tmp_path) -> None:
    source, out = write(tmp_path / "q.jsonl", [("A", "4")]), tmp_path / "toy--q.parquet"
    text = "Smile \ud83d The answer is 4."
    engine = ScriptedEngine(lambda call: Completion(text=text, tokens=4), model="toy", speed=FAST)
    plan = Recording(answer="number", samples=1)
    asyncio.run(record(open_dataset(str(source), "number"), engine, out, plan))
    (row,) = parquet.read_table(out).to_pylist()
    assert (row["text"], row["correct"]) == ("Smile \ufffd The answer is 4.", True)
