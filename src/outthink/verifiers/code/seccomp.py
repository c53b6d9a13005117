"""System calls that code in the sandbox may not make, as a filter for the kernel.

Knows the numbers of two architectures, and how a classic BPF program says "permission denied". Does not
know namespaces and limits, which hold whether or not this filter does.
"""

from __future__ import annotations

import errno
import platform
import struct

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
    "arm64": (0xC00000B7, _AARCH64),
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
