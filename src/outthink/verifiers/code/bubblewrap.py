"""The walls of the sandbox: bubblewrap's command line, and the proof that the walls stand.

Knows namespaces, what of the file system Python needs, and why a system refuses. Does not know what runs
inside, or verdicts.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from outthink.core.errors import Unsupported
from outthink.verifiers.code.seccomp import seccomp_filter

_INSIDE = Path(__file__).with_name("inside")
_PACKAGE = "/sandbox/outthink/verifiers/code/inside"
_START = 60.0  # seconds the self-test may take on a busy machine
_REMEDY = "install it (Debian: apt install bubblewrap; Fedora: dnf install bubblewrap)"
_KERNEL = (
    "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces=10000; "
    "on Ubuntu an AppArmor profile for bwrap; in a container a seccomp profile that permits them)"
)


def running_python() -> Path:
    """The interpreter behind a virtual environment, which needs nothing of the environment's files."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


@functools.lru_cache(maxsize=4)
def walls(bwrap: str) -> tuple[str, ...]:
    """bubblewrap's arguments up to the program: a read-only root of libraries and Python, nothing else.

    There is no writable place, no /proc, no /sys, no device but /dev/null, no network, no environment.
    """
    spaces = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    line = [bwrap, *spaces, "--unshare-cgroup-try", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    line += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--clearenv"]
    # Fixed hashes: a verdict must not depend on the order of a set. PYTHONHOME: no search for the library.
    environment = {
        "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
    }
    for name, value in environment.items():
        line += ["--setenv", name, value]
    for folder in (Path("/lib"), Path("/lib64"), Path("/usr/lib"), Path("/usr/lib64")):
        if folder.is_symlink():
            line += ["--symlink", os.readlink(folder), str(folder)]
        elif folder.is_dir():
            line += ["--ro-bind", str(folder), str(folder)]
    line += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for part in _python_files():
        line += ["--ro-bind-try", str(part), str(part)]
    line += ["--ro-bind", str(_INSIDE), _PACKAGE, "--dev-bind", "/dev/null", "/dev/null"]
    return (*line, "--remount-ro", "/", "--chdir", "/")


def _python_files() -> list[Path]:
    paths = [running_python(), Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("platstdlib"))]
    paths = [Path(str(path).replace(sys.prefix, sys.base_prefix, 1)) for path in paths]
    shared = sysconfig.get_config_var("INSTSONAME")
    if shared and ".so" in str(shared):
        paths.append(Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib") / str(shared))
    system = (Path("/lib"), Path("/lib64"), Path("/usr/lib"), Path("/usr/lib64"))
    return [path for path in dict.fromkeys(paths) if not any(path.is_relative_to(folder) for folder in system)]


def inside(bwrap: str, filter_fd: int, module: str, *arguments: object) -> list[str]:
    """The whole command: one module of `inside` behind the walls.

    Args:
        filter_fd: where bubblewrap reads the system call filter, see `filter_pipe`.
    """
    start = (
        "import sys; sys.path.insert(0, '/sandbox'); "
        f"from outthink.verifiers.code.inside.{module} import main; sys.path.remove('/sandbox'); main()"
    )
    words = [str(argument) for argument in arguments]
    return [*walls(bwrap), "--seccomp", str(filter_fd), str(running_python()), "-s", "-S", "-P", "-c", start, *words]


def filter_pipe() -> int:
    """The read end of a pipe that holds the filter; the caller passes it on and closes it."""
    program = seccomp_filter()
    if program is None:
        raise Unsupported(
            f"code verifier: no system call filter is known for {platform.machine()}; run it on x86_64 or aarch64"
        )
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(program)
    return reader


@functools.lru_cache(maxsize=1)
def bubblewrap() -> str:
    """Where bubblewrap is, once a self-test has shown that its walls stand.

    Raises Unsupported where it is missing, where the kernel forbids it, or where a wall is open; a
    refusal is not remembered, so that a remedy takes effect at the next call.
    """
    if sys.platform != "linux":
        raise Unsupported(f"code verifier: its sandbox needs Linux, this is {sys.platform}; run it there")
    found = shutil.which("bwrap")
    if found is None:
        raise Unsupported(f"code verifier: bubblewrap (bwrap) is not installed; {_REMEDY}")
    prove(found)
    return found


def prove(bwrap: str) -> None:
    """Try from inside what must not work. Raises Unsupported with what failed and the remedy."""
    pipe = filter_pipe()
    try:
        with tempfile.NamedTemporaryFile() as canary:
            done = subprocess.run(  # noqa: S603 - our own command
                inside(bwrap, pipe, "probe", os.getpid(), canary.name),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=(pipe,),
                env={"OUTTHINK_PROBE": "secret"},
                timeout=_START,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unsupported(f"code verifier: bubblewrap cannot run ({error}); {_REMEDY}") from error
    finally:
        os.close(pipe)
    if done.returncode == 0 and done.stdout == b"walls stand\n":
        return
    said = (done.stderr or done.stdout).decode(errors="replace").strip()[-300:]
    if done.stdout.startswith(b"open: "):
        raise Unsupported(f"code verifier: bubblewrap does not isolate here ({said}); use another machine")
    raise Unsupported(f"code verifier: bubblewrap cannot isolate here ({said or done.returncode}); {_KERNEL}")
