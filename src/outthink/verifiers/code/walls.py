"""The walls of the sandbox: bubblewrap's command line, and the proof that the walls stand.

Knows namespaces, what of the file system Python needs, and why a system refuses. Does not know what runs
inside, or verdicts.
"""

from __future__ import annotations

import compileall
import errno
import functools
import os
import platform
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from outthink.core.errors import Unsupported

# System calls that code in the sandbox may not make, as a classic BPF program. Namespaces and limits hold without it.

# What could make another process or thread, memory that no limit counts, a connection, or another view of
# the system. clone3 answers "no such call": C libraries then try clone, which is denied.
_X86_64 = {
    "fork": 57, "vfork": 58, "clone": 56, "clone3": 435, "ptrace": 101, "socket": 41,
    "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "memfd_create": 319, "memfd_secret": 447,
    "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "open_tree": 428, "move_mount": 429,
    "mount_setattr": 442, "open_by_handle_at": 304, "bpf": 321, "keyctl": 250, "add_key": 248,
    "request_key": 249, "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425,
    "process_vm_readv": 310, "process_vm_writev": 311, "pidfd_open": 434, "pidfd_getfd": 438,
    "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246,
    "kexec_file_load": 320, "personality": 135, "acct": 163, "swapon": 167, "swapoff": 168, "reboot": 169,
    "quotactl": 179, "fanotify_init": 300, "inotify_init": 253, "inotify_init1": 294,
}  # fmt: skip
_AARCH64 = {
    "clone": 220, "clone3": 435, "ptrace": 117, "socket": 198,
    "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180, "memfd_create": 279, "memfd_secret": 447,
    "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "open_tree": 428, "move_mount": 429,
    "mount_setattr": 442, "open_by_handle_at": 265, "bpf": 280, "keyctl": 219, "add_key": 217,
    "request_key": 218, "perf_event_open": 241, "userfaultfd": 282, "io_uring_setup": 425,
    "process_vm_readv": 270, "process_vm_writev": 271, "pidfd_open": 434, "pidfd_getfd": 438,
    "init_module": 105, "finit_module": 273, "delete_module": 106, "kexec_load": 104,
    "kexec_file_load": 294, "personality": 92, "acct": 89, "swapon": 224, "swapoff": 225, "reboot": 142,
    "quotactl": 60, "fanotify_init": 262, "inotify_init1": 26,
}  # fmt: skip
_MACHINES = {
    "x86_64": (0xC000003E, _X86_64),
    "aarch64": (0xC00000B7, _AARCH64),
}
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, RET|K
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_X32 = 0x40000000  # the other numbering of x86_64, unused by any Python


def seccomp_filter(machine: str | None = None) -> bytes | None:
    """The filter as bubblewrap's `--seccomp` reads it, None for an architecture whose numbers are not known."""
    known = _MACHINES.get(machine or platform.machine())
    if known is None:
        return None
    architecture, calls = known
    numbers = sorted(set(calls.values()) - {calls["clone3"]})
    # After the tests stand four answers: allow, denied, no such call, kill.
    tests: list[tuple[int, int, str | None, str | None]] = [
        (_EQUAL, architecture, None, "kill"),
        (_LOAD, 0, None, None),  # offset 0: the call's number
        (_AT_LEAST, _X32, "kill", None),
        (_EQUAL, calls["clone3"], "missing", None),
        *((_EQUAL, number, "denied", None) for number in numbers),
    ]
    lines = [struct.pack("<HBBI", _LOAD, 0, 0, 4)]  # offset 4: the architecture
    answers = {
        "allow": _ALLOW,
        "denied": _ERRNO | errno.EPERM,
        "missing": _ERRNO | errno.ENOSYS,
        "kill": _KILL,
    }
    names = list(answers)
    for index, (code, value, yes, no) in enumerate(tests):
        left = len(tests) - index - 1
        jumps = [0 if name is None else left + names.index(name) for name in (yes, no)]
        lines.append(struct.pack("<HBBI", code, *jumps, value))
    lines += [struct.pack("<HBBI", _RETURN, 0, 0, answer) for answer in answers.values()]
    return b"".join(lines)


_SYSTEM = (Path("/lib"), Path("/lib64"), Path("/usr/lib"), Path("/usr/lib64"))
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
    compileall.compile_dir(_INSIDE, maxlevels=0, quiet=2)  # inside nothing can be written, so each check would compile
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
    for folder in _SYSTEM:
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
    return [path for path in dict.fromkeys(paths) if not any(path.is_relative_to(folder) for folder in _SYSTEM)]


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
    path = shutil.which("bwrap")
    if path is None:
        raise Unsupported(f"code verifier: bubblewrap (bwrap) is not installed; {_REMEDY}")
    prove(path)
    return path


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
    output = (done.stderr or done.stdout).decode(errors="replace").strip()[-300:]
    if done.stdout.startswith(b"open: "):
        raise Unsupported(f"code verifier: bubblewrap does not isolate here ({output}); use another machine")
    raise Unsupported(f"code verifier: bubblewrap cannot isolate here ({output or done.returncode}); {_KERNEL}")
