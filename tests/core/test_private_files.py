"""Files that hold what people and models said are their owner's alone, whatever the umask is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from outthink.controller.online.learner import Log
from outthink.core.paths import private_file, private_folder
from outthink.evaluation.verify import _ScoreJournal
from outthink.session.store import SampleStore


@pytest.fixture(params=[0, 0o022, 0o277, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(folder: Path) -> set[tuple[str, str]]:
    """Kinds and rights of all that lies below a folder."""
    return {
        ("folder" if path.is_dir() else "file", oct(stat.S_IMODE(path.stat().st_mode))) for path in folder.rglob("*")
    }


@pytest.mark.usefixtures("umask")
def test_folders_and_files_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    file = private_file(private_folder(tmp_path / "a" / "b" / "c") / "file")
    file.write_text("content")
    assert modes(tmp_path) == {("folder", "0o700"), ("file", "0o600")}
    assert private_file(file).read_text() == "content"


def test_what_exists_keeps_its_rights_and_its_content(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    file = tmp_path / "file"
    file.write_text("content")
    file.chmod(0o640)
    private_file(private_folder(tmp_path) / "file")
    assert (oct(file.stat().st_mode)[-3:], oct(tmp_path.stat().st_mode)[-3:], file.read_text()) == (
        "640",
        "755",
        "content",
    )
    with pytest.raises(FileExistsError):
        private_folder(file)


@pytest.mark.usefixtures("umask")
def test_journals_and_caches(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "one" / "responses.sqlite")
    store.about("name", "value")  # which writes to the log beside the file
    scores = _ScoreJournal(tmp_path / "two" / "out.parquet", "run", lambda count: None)
    log = Log(tmp_path / "three" / "log")
    assert modes(tmp_path) == {("folder", "0o700"), ("file", "0o600")}
    assert len(list(tmp_path.rglob("*-wal"))) == 2
    del store, scores, log
