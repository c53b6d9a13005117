"""Bulk scoring that is interrupted: nothing saved is lost, nothing is scored twice."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from outthink import BadInput
from outthink.core.errors import EngineError
from outthink.evaluation.dataset import Problems
from outthink.evaluation.sample_file import SampleFile
from outthink.evaluation.verify import verify
from support.judges import Judge, write_problems, write_samples

SLOW = """
import asyncio, sys
from pathlib import Path
from outthink.evaluation.dataset import Problems
from outthink.evaluation.sample_file import SampleFile
from outthink.evaluation.verify import verify
from support.judges import Judge
samples, problems, out = map(Path, sys.argv[1:])
tell = lambda done, total: print(done, flush=True)
asyncio.run(verify(SampleFile(samples), Problems.read(problems), Judge(seconds=0.2), out, progress=tell))
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    samples = write_samples(tmp_path / "toy--sums.parquet", problems=12)
    return samples, write_problems(tmp_path / "problems.parquet", problems=12), tmp_path / "scored.parquet"


def run(files: tuple[Path, Path, Path], judge: Judge, **options) -> None:
    samples, problems, out = files
    asyncio.run(verify(SampleFile(samples), Problems.read(problems), judge, out, **options))


def whole(files: tuple[Path, Path, Path], tmp_path: Path) -> list[dict]:
    """What an undisturbed run writes."""
    run((*files[:2], tmp_path / "undisturbed.parquet"), Judge())
    return parquet.read_table(tmp_path / "undisturbed.parquet").to_pylist()


def test_kill_9_loses_nothing_that_was_saved(files, tmp_path) -> None:
    command = [sys.executable, "-c", SLOW, *map(str, files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as child:
        assert child.stdout is not None
        saved = 0
        for line in child.stdout:
            saved = int(line)
            if saved > 8:
                child.send_signal(signal.SIGKILL)
                break
        rest = [int(line) for line in child.stdout]
    assert child.returncode == -signal.SIGKILL
    saved = max([saved, *rest])
    assert 8 < saved < 48
    assert not files[2].exists()
    judge, received = Judge(), []
    run(files, judge, progress=lambda done, total: received.append((done, total)))
    assert received[0][0] >= saved
    assert len(judge.seen) == 48 - received[0][0]
    assert received[-1] == (48, 48)
    assert parquet.read_table(files[2]).to_pylist() == whole(files, tmp_path)


def test_a_verifier_that_dies_keeps_what_it_has_scored(files, tmp_path) -> None:
    dying = Judge(dies_after=20)
    with pytest.raises(EngineError, match="died"):
        run(files, dying)
    assert not files[2].exists()
    again = Judge()
    run(files, again)
    assert len(dying.seen) + len(again.seen) == 47  # one text is empty
    assert not set(dying.seen) & set(again.seen)
    assert parquet.read_table(files[2]).to_pylist() == whole(files, tmp_path)


def test_the_journal_of_another_run_is_refused(files, tmp_path) -> None:
    with pytest.raises(EngineError):
        run(files, Judge(dies_after=20))
    with pytest.raises(BadInput, match="journal of another run"):
        run(files, Judge(id="judge@2"))
    others = write_samples(tmp_path / "others.parquet", problems=11)
    with pytest.raises(BadInput, match="journal of another run"):
        run((others, *files[1:]), Judge())
    run(files, Judge())


def test_a_journal_on_a_full_disk_is_not_to_be_removed(files, monkeypatch) -> None:
    with pytest.raises(EngineError):
        run(files, Judge(dies_after=20))
    connect = sqlite3.connect

    def full(*given: Any, **options: Any) -> sqlite3.Connection:
        return _Full(connect(*given, **options))  # type: ignore[return-value]

    class _Full:
        def __init__(self, database: sqlite3.Connection) -> None:
            self._database = database

        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if statement.startswith("INSERT"):
                raise sqlite3.OperationalError("database or disk is full")
            return self._database.execute(statement, *values)

        def close(self) -> None:
            self._database.close()

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", full)
        with pytest.raises(BadInput, match="make room there, and run the same command again") as refused:
            run(files, Judge())
    assert "remove" not in str(refused.value)
    run(files, Judge())


def test_a_file_that_is_no_journal_is_refused(files) -> None:
    files[2].with_name("scored.parquet.journal").write_text("something of mine, long enough to be no database" * 100)
    with pytest.raises(BadInput, match="no journal"):
        run(files, Judge())


def test_an_existing_file_is_never_overwritten(files) -> None:
    files[2].write_text("mine")
    judge = Judge()
    with pytest.raises(BadInput, match="exists already"):
        run(files, judge)
    assert (files[2].read_text(), judge.seen) == ("mine", [])


def test_a_run_killed_after_its_file_was_written_just_ends(files) -> None:
    with pytest.raises(EngineError):
        run(files, Judge(dies_after=20))
    files[2].write_text("written by the run that was killed")
    run(files, Judge())
    assert parquet.read_table(files[2]).num_rows == 48
