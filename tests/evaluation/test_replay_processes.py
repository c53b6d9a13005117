"""Replay in several processes: what becomes of them at Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.recorded import DEMO, needs_demo

SAMPLES = DEMO / "qwen2.5-coder-1.5b-instruct-q4--demo.parquet"
INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from outthink.evaluation import replay
from outthink.evaluation.compare import CompareSettings, compare
from outthink.strategies import Spec

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started without
replay._SMALL = 0  # else so few samples are replayed in this process

def interrupt(done, total):
    if done == int(sys.argv[2]):
        os.killpg(0, signal.SIGINT)

if __name__ == "__main__":
    specs = [Spec.parse("self-consistency:n=4")]
    try:
        compare([Path(sys.argv[1])], specs, CompareSettings(workers=2), progress=interrupt)
    except KeyboardInterrupt:
        print("interrupted")
"""


@needs_demo
@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups to interrupt")
@pytest.mark.parametrize("done", [0, 1])
def test_ctrl_c_ends_the_processes_without_a_word(tmp_path: Path, done: int) -> None:
    """Before they are started, and while one works and the other one starts perhaps."""
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    command = [sys.executable, str(script), str(SAMPLES), str(done)]
    ended = subprocess.run(command, capture_output=True, text=True, start_new_session=True, check=False)
    assert (ended.stdout, ended.stderr) == ("interrupted\n", "")
