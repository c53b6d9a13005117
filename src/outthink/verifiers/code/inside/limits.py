"""The first thing a process in the sandbox does to itself. Knows resource limits; does not know what runs then."""

from __future__ import annotations

import os
import resource


def confine(cpu: int, memory: int) -> tuple[int, int]:
    """Take the pipes away from descriptors 0 and 1, and lower every limit for good.

    Args:
        cpu: seconds of processor time. memory: bytes of address space.

    Returns where the two pipes are now: the one to read from, the one to write to.
    """
    pipes = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    limits = {
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: 1,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for kind, value in limits.items():
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    return pipes
