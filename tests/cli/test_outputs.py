"""Files that a command writes are looked at before its work, and only regular ones are replaced."""

from __future__ import annotations

import os
import re

import pytest

from outthink.core.paths import write_file
from support.recorded import DEMO, needs_demo

SAMPLES = DEMO / "qwen2.5-coder-0.5b-instruct-q4--demo.parquet"


@pytest.mark.parametrize(
    "verb", [("calibrate", "--out"), ("compare", "--json"), ("compare", "--html"), ("policy", "show", "--html")]
)
@pytest.mark.parametrize(("name", "problem"), [("", "is a folder"), ("none/x", "is in a folder that does not exist")])
def test_a_file_that_cannot_be_written_is_refused_first(cli, tmp_path, monkeypatch, verb, name, problem) -> None:
    monkeypatch.chdir(tmp_path)
    *words, flag = verb
    done = cli(*words, SAMPLES, flag, name)  # were it read before, a file of samples would be no policy
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"outthink {verb[0]}: {flag}: {name or '.'!r} {problem};")


def test_a_link_and_a_pipe_are_written_to_and_stay(tmp_path) -> None:
    real, link, pipe = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    real.write_text("old")
    link.symlink_to(real)
    write_file(link, "new")
    assert (link.is_symlink(), real.read_text()) == (True, "new")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_file(pipe, "through")
        assert (os.read(reader, 100), pipe.is_fifo()) == (b"through", True)
    finally:
        os.close(reader)


@needs_demo
def test_problems_that_are_no_file_are_refused(cli, tmp_path) -> None:
    done = cli("compare", SAMPLES, "--strategy", "single", "--problems", tmp_path / "none.parquet")
    assert (done.code, "--problems" in done.err, done.err.count("\n")) == (2, True, 1)


@needs_demo
@pytest.mark.parametrize(("no_color", "columns"), [("", 40), ("1", 40), ("", 200)])
def test_a_plot_fits_the_terminal_and_heeds_no_color(cli, monkeypatch, no_color, columns) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": str(columns), "NO_COLOR": no_color}.items():
        monkeypatch.setenv(name, value)  # FORCE_COLOR stands for a terminal
    done = cli("compare", SAMPLES, "--strategy", "single", "--seeds", 1, "--plot")
    assert done.code == 0, done.err
    plot = done.out[done.out.rindex("time model:") :].partition("\n")[2]
    assert ("\x1b[" in plot) == (not no_color)
    curve = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in plot.splitlines() if "│" in line]
    assert max(map(len, curve)) <= min(76, columns)
