"""Where a command's output goes may be full, closed or gone: one line or none, and the answer is not lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import outthink
from support.chat_server import ChatServer, Hang, Reply
from support.waiting import until

COMMAND = [sys.executable, "-c", "from outthink.cli.main import entry; entry()"]
MODULE = [sys.executable, "-m", "outthink"]


@pytest.fixture
def run(tmp_path):
    source = str(Path(outthink.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": source, "OUTTHINK_CACHE": str(tmp_path)}
    for name in ("OUTTHINK_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        env.pop(name, None)

    def start(*arguments: str, redirected: str = "") -> subprocess.CompletedProcess[str]:
        # The shell closes and redirects streams, as a user's does.
        words = ["bash", "-c", f'"$@" {redirected}', "bash", *COMMAND, *arguments]
        return subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    return start


@pytest.mark.parametrize("verb", [("strategies",), ("strategies", "--json"), ("cache", "path")])
def test_a_full_disk_under_standard_output_is_one_line(run, verb) -> None:
    done = run(*verb, redirected="> /dev/full")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"outthink {verb[0]}: file: 'standard output' cannot be read or written (No space left on device); "
        "check its permissions and the space there"
    ]


GONE = [("strategies",), ("strategies", "--markdown"), ("cache", "path"), ("--print-completion", "bash")]


@pytest.mark.parametrize("verb", GONE)
def test_a_reader_that_has_gone_is_no_failure_of_ours(run, verb) -> None:
    # `true` ends at once; the pipe is closed before anything is written.
    done = run(*verb, redirected="2> >(cat >&2) | true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("lost", ["2> /dev/full", "2>&-", "<&-", "<&- 2>&-"])
def test_an_answer_outlives_the_other_streams(run, server, lost) -> None:
    done = run("ask", "6 * 7?", "--model", server.url, "--answer", "number", "--seed", "1", redirected=lost)
    assert (done.returncode, done.stdout) == (0, "42\n")


def test_without_standard_output_the_receipt_is_still_shown(run, server) -> None:
    done = run("ask", "6 * 7?", "--model", server.url, redirected=">&-")
    assert done.returncode == 0
    assert "finished" in done.stderr


def test_no_standard_input_is_no_question(run) -> None:
    done = run("ask", redirected="<&-")
    assert (done.returncode, done.stderr) == (
        2,
        "outthink ask: prompt: '' is empty; write a question or pipe one in\n",
    )


def test_an_interrupt_while_verbs_are_read_is_one_line() -> None:
    code = """
from outthink.cli import main
def interrupted():
    raise KeyboardInterrupt
main.parser = interrupted
main.entry()
"""
    source = str(Path(outthink.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "outthink: interrupted\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["cache", "path"], 0), (["compare", "no-such.parquet"], 2), (["no"], 2)],
)
def test_the_module_is_the_command(arguments, code) -> None:
    script, module = (subprocess.run([*way, *arguments], capture_output=True, text=True) for way in (COMMAND, MODULE))
    assert (module.returncode, module.stdout, module.stderr) == (code, script.stdout, script.stderr)
    assert script.returncode == code


@pytest.mark.parametrize(
    "start",
    ["from outthink.cli.main import entry; entry()", "runpy.run_module('outthink', run_name='__main__')"],
    ids=["script", "module"],
)
def test_an_interrupt_ends_with_130(start, tmp_path) -> None:
    # A shell's background jobs, of which this may be one, are started without the handler.
    code = f"import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); {start}"
    env = {**os.environ, "OUTTHINK_CACHE": str(tmp_path)}
    with ChatServer(Reply((Hang(),))) as server:
        command = [sys.executable, "-c", code, "ask", "6 * 7?", "--model", server.url]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until(lambda: server.calls or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "interrupted" in err
    assert "Traceback" not in err
