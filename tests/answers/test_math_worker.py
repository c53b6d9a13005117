"""The math worker's life: lazy, killed when it hangs, back at once, gone with its parent."""

from __future__ import annotations

import os
import resource
import select
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
# The real worker, but `hang` starts a power of integers, where neither a signal's handler nor another thread gets in,
# and reading `loop` does not end.
HANGING = f"""
import importlib.util, os
spec = importlib.util.spec_from_file_location("math_worker", {str(WORKER)!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
def loop(latex):
    while True:
        pass
tame, parsed = worker.tame, worker.parsed
worker.parsed = lambda latex: worker.timeout(0.2)(loop)(latex) if "loop" in latex else parsed(latex)
def hang():
    if gate := os.environ.get("HANGING"):
        open(gate, "wb").close()
    return 7 ** (10**9)
worker.tame = lambda latex: hang() if "hang" in latex else tame(latex)
worker.main()
"""
PARENT = """
import os, sys
from outthink.answers.math import MathReader
from outthink.answers.math_process import MathProcess
process = MathProcess(limit=60, command=[sys.executable, "-P", sys.argv[1]])
assert MathReader(process).read_now("\\\\boxed{x+1}").answer == "x+1"
if sys.argv[2] == "hanging":
    process.submit("match", answer="hang", against=[])
    open(os.environ["HANGING"], "rb").read()  # ends when the worker is about to hang
print(process.pid, flush=True)
sys.stdin.read()
"""


# The real worker, but `wait` waits until somebody has opened the pipe of that name for writing and closed it again.
WAITING = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("math_worker", {str(WORKER)!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
gate = sys.argv.pop(1)
worker.tame = lambda latex: open(gate, "rb").read() == b""
worker.main()
"""


@pytest.fixture
def waiting(tmp_path: Path) -> Path:
    script = tmp_path / "waiting_worker.py"
    script.write_text(WAITING)
    return script


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


def ends(pid: int) -> bool:
    """Wait until a process, a child or not, has ended."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 60)[0])
    finally:
        os.close(process)


needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux to wait for others' children")


def spent_by_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.skipif(os.name != "posix", reason="elsewhere the wall clock is the limit")
def test_a_hang_is_killed_and_later_reads_work(hanging: Path) -> None:
    process = MathProcess(limit=2.0, command=[sys.executable, "-P", str(hanging)])
    reader = MathReader(process)
    try:
        assert process.pid is None, "nothing starts before it is needed"
        assert reader.read_now(r"\boxed{3} and \boxed{4}").answer == "4"
        assert process.pid is None, "plain numbers need no worker"
        assert reader.read_now(r"\boxed{x+1}").answer == "x+1"
        first = process.pid
        assert first is not None
        before = spent_by_children()
        assert reader.read_now(r"\boxed{hang} 5") == Reading(None, "none")
        assert not running(first)
        assert spent_by_children() - before >= 1.9, "it had the processor time that it was promised"
        assert reader.read_now(r"\boxed{1+x}").answer == "x+1"
        assert process.pid not in (None, first)
    finally:
        process.close()


@pytest.mark.skipif(os.name != "posix", reason="elsewhere the wall clock is the limit")
def test_time_in_which_others_have_the_cores_does_not_count(waiting: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    process = MathProcess(limit=0.8, command=[sys.executable, "-P", str(waiting), str(gate)])
    try:
        reply = process.submit("match", answer="wait", against=[])
        with gate.open("wb"):  # opens when the operation has come to wait for it
            until = time.process_time() + 1.0
            while time.process_time() < until:  # at least as much passes on the wall clock
                continue
            assert not reply.done()
        assert reply.result() == [-1, []]
    finally:
        process.close()


@pytest.mark.skipif(os.name != "posix", reason="elsewhere the wall clock is the limit")
def test_a_worker_that_waits_for_ever_meets_the_backstop(waiting: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    process = MathProcess(limit=0.05, command=[sys.executable, "-P", str(waiting), str(gate)])
    try:
        reply = process.submit("match", answer="wait", against=[])
        with gate.open("wb"):
            assert reply.result() is None
    finally:
        process.close()


def test_the_limits_of_one_comparison_are_processor_time(hanging: Path) -> None:
    process = MathProcess(command=[sys.executable, "-P", str(hanging)])
    try:
        assert process.submit("match", answer="loop", against=["x"]).result() is None
        worker = process.pid
        assert process.submit("match", answer="x+1", against=["1+x"]).result() == [0, []]
        assert process.pid == worker, "it left the loop by itself"
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


@needs_pidfd
@pytest.mark.parametrize("state", ["idle", "hanging"])
def test_no_worker_outlives_a_killed_parent(hanging: Path, state: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(hanging), state],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HANGING": str(gate)},
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert running(pid)
        parent.kill()
    assert ends(pid)


@needs_pidfd
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
