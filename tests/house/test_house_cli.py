"""Every verb explains itself, and says no in one line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from outthink import __version__
from outthink.cli.main import VERBS


def outthink(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as users do."""
    command = [sys.executable, "-c", "from outthink.cli.main import entry; entry()", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "100"}
    )


@pytest.mark.parametrize("verb", VERBS)
def test_help(verb: str) -> None:
    done = outthink(verb, "--help")
    assert done.returncode == 0
    assert f"usage: outthink {verb}" in done.stdout
    assert done.stderr == ""


def test_help_of_all() -> None:
    done = outthink("--help")
    assert done.returncode == 0
    assert not [verb for verb in VERBS if verb not in done.stdout]


def test_version() -> None:
    assert outthink("--version").stdout.strip() == f"outthink {__version__}"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["ask", "", "--answer", "number"], "prompt"),
        (["ask", "1+1", "--strategy", "no-such"], "no-such"),
        (["ask", "1+1", "--strategy", "esc:width=4"], "width=4"),
        (["ask", "1+1", "--budget", "tokens=0"], "budget tokens"),
        (["ask", "1+1", "--budget", "euros=1"], "euros=1"),
        (["compare", "no-such.parquet"], "no-such.parquet"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], part: str) -> None:
    done = outthink(*arguments)
    assert done.returncode == 2
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
