"""Half a surrogate pair in what a model wrote: shown, kept and counted, never a traceback."""

from __future__ import annotations

import json

import pyarrow.parquet as parquet
import pytest

from outthink.core.text import writable, writable_json
from support.chat_server import ChatServer, chat


@pytest.fixture
def server():
    with ChatServer(lambda seen: chat(["Smile \ud83d", " The answer is 4."], counts=(7, 5))) as running:
        yield running


def test_texts_that_can_be_written() -> None:
    assert writable("Ä\u2028") == "Ä\u2028"
    assert writable("a\ud83db\ude00") == "a\ufffdb\ufffd"
    assert writable("\ud83d\ude00") == "😀"
    assert json.loads(writable_json(json.dumps({"a": "\ud83d", "b": "😀", "c": "\\ud83d"}))) == {
        "a": "\ufffd", "b": "😀", "c": "\\ud83d",
    }  # fmt: skip


def test_ask_shows_it(cli, server) -> None:
    done = cli("ask", "2 + 2?", "--model", server.url)
    assert (done.code, "Smile \ufffd The answer is 4." in done.out) == (0, True)
    done = cli("ask", "2 + 2?", "--model", server.url, "--json", "--answer", "number")
    assert (done.json["answer"], done.json["text"]) == ("4", "Smile \ufffd The answer is 4.")


def test_batch_keeps_it(cli, server, tmp_path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "2 + 2?"}\n')
    out = tmp_path / "a.jsonl"
    done = cli("batch", tmp_path / "q.jsonl", "--model", server.url, "--n", 2, "--out", out)
    assert done.code == 0, done.err
    assert json.loads(out.read_text(encoding="utf-8"))["text"] == "Smile \ufffd The answer is 4."


def test_record_keeps_it_and_it_is_right(cli, server, tmp_path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}\n')
    out = tmp_path / "a.parquet"
    done = cli(
        "record", tmp_path / "q.jsonl", "--model", server.url, "--answer", "number", "--samples", 1, "--out", out
    )
    assert done.code == 0, done.err
    (row,) = parquet.read_table(out).to_pylist()
    assert (row["text"], row["correct"]) == ("Smile \ufffd The answer is 4.", True)
