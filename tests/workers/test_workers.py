"""The workers' life: started when needed, killed when they hang, back at once, in turns, gone with their parent."""

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
from outthink.answers.math.reader import MathReader
from outthink.core.errors import OutthinkError
from outthink.workers.pool import WorkerPool

WORKER = Path(sys.modules[WorkerPool.__module__].__file__ or "").with_name("process.py")
# Functions that a worker can be asked for beside ours. `hang` starts a power of integers, where neither a signal's
# handler nor another thread gets in; `wait` ends when somebody has opened a pipe for writing and closed it again.
HELPERS = """
import os
def echo(value):
    return value
def hang(gate=None):
    if gate:
        open(gate, "wb").close()
    return 7 ** (10**9)
def wait(gate):
    with open(gate, "rb") as opened:
        return len(opened.read())
def fail():
    raise ValueError("no")
"""
RUN = f"""
import runpy, sys
sys.path.insert(0, {{folder!r}})
runpy.run_path({str(WORKER)!r}, run_name="__main__")
"""
PARENT = """
import sys
from outthink.workers.pool import WorkerPool
pool = WorkerPool(limit=60, command=[sys.executable, "-P", sys.argv[1]])
assert pool.submit("helpers:echo", 1).result() == 1
if sys.argv[2] == "hanging":
    pool.submit("helpers:hang", sys.argv[3])
    open(sys.argv[3], "rb").read()  # ends when the worker is about to hang
print(pool.pids[0], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "helpers.py").write_text(HELPERS)
    path = tmp_path / "run_worker.py"
    path.write_text(RUN.format(folder=str(tmp_path)))
    return path


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def pool(script: Path, *, limit: float = 20.0, count: int = 1) -> WorkerPool:
    return WorkerPool(limit=limit, count=count, command=[sys.executable, "-P", str(script)])


def ends(pid: int) -> bool:
    """Whether a process that is not ours ends; waits for the event."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 60)[0])
    finally:
        os.close(process)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # Where nobody reaps orphans a dead worker stays visible as a zombie.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()


needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux to wait for others' children")
needs_timers = pytest.mark.skipif(os.name != "posix", reason="elsewhere the wall clock is the limit")


def spent_by_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@needs_timers
def test_a_hang_is_killed_and_later_calls_work(script: Path) -> None:
    workers = pool(script, limit=2.0)
    try:
        assert workers.pids == [], "nothing starts before it is needed"
        assert workers.submit("helpers:echo", [1, "a"]).result() == [1, "a"]
        (first,) = workers.pids
        before = spent_by_children()
        assert workers.submit("helpers:hang").result() is None
        assert not running(first)
        assert spent_by_children() - before >= 1.0, "it had processor time, if only by the ticks of a busy machine"
        assert workers.submit("helpers:echo", 2).result() == 2
        assert workers.pids != [first]
    finally:
        workers.close()


def test_what_raises_has_no_value_and_harms_nobody(script: Path) -> None:
    workers = pool(script)
    try:
        assert workers.submit("helpers:fail").result() is None
        (first,) = workers.pids
        assert workers.submit("helpers:echo", 3).result() == 3
        assert workers.pids == [first]
        with pytest.raises(OutthinkError, match="cannot call helpers:none"):
            workers.submit("helpers:none").result()
    finally:
        workers.close()


def test_whoever_asks_is_served_in_turns(script: Path, gate: Path) -> None:
    workers = pool(script)
    order: list[str] = []
    try:
        first = workers.submit("helpers:wait", str(gate))
        many = [workers.submit("helpers:echo", number, turn="many") for number in range(6)]
        few = [workers.submit("helpers:echo", number, turn="few") for number in range(2)]
        for name, futures in (("many", many), ("few", few)):
            for future in futures:
                future.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
        with gate.open("wb"):
            pass
        assert first.result() == 0
        assert [future.result() for future in (*many, *few)] == [0, 1, 2, 3, 4, 5, 0, 1]
        assert order[:4] == ["many", "few", "many", "few"], "two calls do not wait for six"
    finally:
        workers.close()


def test_several_workers_work_side_by_side(script: Path, gate: Path) -> None:
    workers = pool(script, count=2)
    try:
        first = workers.submit("helpers:wait", str(gate))
        assert workers.submit("helpers:echo", 1).result() == 1, "while the first one waits"
        assert len(workers.pids) == 2
        with gate.open("wb"):
            pass
        assert first.result() == 0
    finally:
        workers.close()


def test_a_cancelled_call_is_dropped(script: Path, gate: Path) -> None:
    workers = pool(script)
    try:
        first = workers.submit("helpers:wait", str(gate))
        dropped = workers.submit("helpers:hang")
        assert dropped.cancel()
        with gate.open("wb"):
            pass
        assert first.result() == 0
        assert workers.submit("helpers:echo", 1).result() == 1
    finally:
        workers.close()


@needs_timers
def test_time_in_which_others_have_the_cores_does_not_count(script: Path, gate: Path) -> None:
    workers = pool(script, limit=0.8)
    try:
        reply = workers.submit("helpers:wait", str(gate))
        with gate.open("wb"):  # opens when the call has come to wait for it
            until = time.process_time() + 1.0
            while time.process_time() < until:  # at least as much passes on the wall clock
                continue
            assert not reply.done()
        assert reply.result() == 0
    finally:
        workers.close()


@needs_timers
def test_a_worker_that_waits_for_ever_meets_the_backstop(script: Path, gate: Path) -> None:
    workers = pool(script, limit=0.05)
    try:
        reply = workers.submit("helpers:wait", str(gate))
        with gate.open("wb"):
            assert reply.result() is None
    finally:
        workers.close()


def test_a_worker_that_was_killed_is_replaced(script: Path) -> None:
    workers = pool(script)
    try:
        assert workers.submit("helpers:echo", 1).result() == 1
        os.kill(workers.pids[0], signal.SIGKILL)
        assert workers.submit("helpers:echo", 2).result() == 2
    finally:
        workers.close()


@pytest.mark.parametrize("command", [[sys.executable, "-c", "raise SystemExit(1)"], ["/no/such/python"]])
def test_a_worker_that_cannot_start_says_so(command: list[str]) -> None:
    workers = WorkerPool(command=command)
    with pytest.raises(OutthinkError, match="could not start"):
        workers.submit("builtins:abs", 1).result()


@needs_pidfd
@pytest.mark.parametrize("state", ["idle", "hanging"])
def test_no_worker_outlives_a_killed_parent(script: Path, state: str, gate: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(script), state, str(gate)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
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
        "from outthink.workers.pool import shared\n"
        "read_sync('math', r'\\boxed{x+1}')\n"
        "print(*shared().pids)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert ends(int(done.stdout))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_gets_a_worker_of_its_own() -> None:
    code = (
        "import os, sys\n"
        "from outthink.answers import read_sync\n"
        "from outthink.workers.pool import shared\n"
        "read_sync('math', r'\\boxed{x+1}')\n"
        "mine, child = shared().pids, os.fork()\n"
        "assert read_sync('math', r'\\boxed{1+x}').answer == '1+x'\n"
        "if child == 0:\n"
        "    os._exit(0 if shared().pids != mine else 1)\n"
        "assert shared().pids == mine\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_the_room_is_light() -> None:
    code = "import sys, outthink.answers; print(*{'sympy', 'math_verify', 'numpy', 'subprocess'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_plain_numbers_need_no_worker_and_formulas_do(script: Path) -> None:
    workers = pool(script)
    reader = MathReader(workers)
    try:
        assert reader.read_now(r"\boxed{3}. No: \boxed{4}") == Reading("4", "boxed")
        assert workers.pids == []
        assert reader.read_now(r"\boxed{x+1}").answer == "x+1"
        assert reader.read_now(r"\boxed{1+x}").answer == "x+1"
        assert len(workers.pids) == 1
    finally:
        workers.close()
