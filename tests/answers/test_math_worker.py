"""The math worker's life: lazy, killed when it hangs, back at once, gone with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from outthink.answers import Reading
from outthink.answers.math import MathReader
from outthink.answers.math_process import MathProcess
from outthink.core.errors import OutthinkError

WORKER = Path(sys.modules[MathProcess.__module__].__file__ or "").with_name("math_worker.py")
# The real worker, but `hang` starts a power of integers: neither a signal nor another thread gets in.
HANGING = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("math_worker", {str(WORKER)!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
tame = worker.tame
worker.tame = lambda latex: 7 ** (10**9) if "hang" in latex else tame(latex)
worker.main()
"""
PARENT = """
import sys, time
from outthink.answers.math import MathReader
from outthink.answers.math_process import MathProcess
process = MathProcess(limit=60, command=[sys.executable, "-P", sys.argv[1]])
assert MathReader(process).read_now("\\\\boxed{x+1}").answer == "x+1"
if sys.argv[2] == "hanging":
    process.submit("match", answer="hang", against=[])
    time.sleep(0.5)
print(process.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    script = tmp_path / "hanging_worker.py"
    script.write_text(HANGING)
    return script


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # Where nobody reaps orphans a dead worker stays visible as a zombie.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()


def ends(pid: int, *, within: float = 15.0) -> bool:
    end = time.monotonic() + within
    while running(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not running(pid)


def test_a_hang_is_killed_and_later_reads_work(hanging: Path) -> None:
    process = MathProcess(limit=5.0, command=[sys.executable, "-P", str(hanging)])
    reader = MathReader(process)
    try:
        assert process.pid is None, "nothing starts before it is needed"
        assert reader.read_now(r"\boxed{3} and \boxed{4}").answer == "4"
        assert process.pid is None, "plain numbers need no worker"
        assert reader.read_now(r"\boxed{x+1}").answer == "x+1"
        first = process.pid
        assert first is not None
        started = time.monotonic()
        assert reader.read_now(r"\boxed{hang} 5") == Reading(None, "none")
        assert 4.9 < time.monotonic() - started < 15
        assert ends(first)
        assert reader.read_now(r"\boxed{1+x}").answer == "x+1"
        assert process.pid not in (None, first)
    finally:
        process.close()


def test_a_worker_that_was_killed_is_replaced(hanging: Path) -> None:
    process = MathProcess(command=[sys.executable, "-P", str(hanging)])
    try:
        assert process.submit("match", answer="x", against=["y", "x"]).result() == [1, []]
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        assert process.submit("match", answer="x", against=["y"]).result() == [-1, []]
    finally:
        process.close()


@pytest.mark.parametrize("command", [[sys.executable, "-c", "raise SystemExit(1)"], ["/no/such/python"]])
def test_a_worker_that_cannot_start_says_so(command: list[str]) -> None:
    process = MathProcess(command=command)
    with pytest.raises(OutthinkError, match="could not start"):
        process.submit("match", answer="x", against=[]).result()


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
@pytest.mark.parametrize("state", ["idle", "hanging"])
def test_no_worker_outlives_a_killed_parent(hanging: Path, state: str) -> None:
    if state == "hanging" and not sys.platform.startswith("linux"):
        pytest.skip("elsewhere a hanging worker ends by its own timer, a minute later here")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(hanging), state], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert running(pid)
        parent.kill()
    assert ends(pid)


def test_a_normal_end_leaves_no_worker_and_no_noise() -> None:
    code = (
        "from outthink.answers import read_sync\n"
        "from outthink.answers.math_process import shared\n"
        "read_sync('math', r'\\boxed{x+1}')\n"
        "print(shared().pid)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert ends(int(done.stdout))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_gets_a_worker_of_its_own() -> None:
    code = (
        "import os, sys\n"
        "from outthink.answers import read_sync\n"
        "from outthink.answers.math_process import shared\n"
        "read_sync('math', r'\\boxed{x+1}')\n"
        "mine, child = shared().pid, os.fork()\n"
        "assert read_sync('math', r'\\boxed{1+x}').answer == '1+x'\n"
        "if child == 0:\n"
        "    os._exit(0 if shared().pid != mine else 1)\n"
        "assert shared().pid == mine\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_the_room_is_light() -> None:
    code = "import sys, outthink.answers; print(*{'sympy', 'math_verify', 'numpy', 'subprocess'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("", "")
