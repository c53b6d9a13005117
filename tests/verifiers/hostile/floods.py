"""Programs that use up what there is: processes, memory, output, disk, time."""

FLOODS = {
    "fork bomb": """
import os
def add(a, b):
    while True:
        try: os.fork()
        except OSError: pass
""",
    "fork bomb at import": """
import os
while True:
    os.fork()
""",
    "thread storm": """
import threading, time
threading.stack_size(32768)
def add(a, b):
    made = 0
    while True:
        try:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            made += 1
        except RuntimeError:
            if made == 0:
                raise
""",
    "memory bomb": """
def add(a, b):
    held = []
    while True:
        held.append(bytearray(2**26))
""",
    "memory bomb that goes on": """
def add(a, b):
    held = []
    while True:
        try: held.append(bytearray(2**24))
        except MemoryError: pass
""",
    "memory in shared segments": """
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
def add(a, b):
    while True:
        segment = libc.shmget(0, 2**28, 0o1600)
        if segment < 0:
            raise MemoryError("no segment")
        at = libc.shmat(segment, None, 0)
        ctypes.memset(at, 1, 2**28)
        libc.shmdt(ctypes.c_void_p(at))
""",
    "memory in files without a name": """
import os
def add(a, b):
    held = []
    while True:
        held.append(os.memfd_create("x"))
        os.write(held[-1], bytes(2**26))
""",
    "infinite output": """
import sys
def add(a, b):
    while True:
        print("x" * 65536)
        sys.stderr.write("y" * 65536)
""",
    "infinite reply": """
import os
def add(a, b):
    while True:
        for fd in range(3, 64):
            try: os.write(fd, b"\\xff" * 65536)
            except OSError: pass
""",
    "endless value": """
def add(a, b):
    return (n for n in iter(int, 1))
""",
    "huge value": """
def add(a, b):
    return "x" * 500_000_000
""",
    "value that contains itself": """
def add(a, b):
    value = []
    value.append(value)
    return value
""",
    "infinite loop": """
def add(a, b):
    while True:
        pass
""",
    "infinite loop at import": "while True: pass\n",
    "infinite loop in C": """
def add(a, b):
    return sum(iter(int, 1))
""",
    "sleep": """
import time
def add(a, b):
    time.sleep(3600)
""",
    "stop itself": """
import os, signal
def add(a, b):
    os.kill(os.getpid(), signal.SIGSTOP)
    return 0
""",
    "ignore every signal": """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
""",
    "raise the limits": """
import resource
for kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
    try: resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError): pass
while True: pass
""",
    "fill the disk": """
import os
def add(a, b):
    for folder in ("/", "/tmp", "/dev/shm", "/var/tmp", os.getcwd(), "{folder}"):
        try:
            with open(folder + "/fill", "wb") as file:
                while True: file.write(bytes(2**20))
        except OSError: pass
    return 0
""",
    "huge recursion": """
import sys
sys.setrecursionlimit(10**9)
def add(a, b):
    return add(a, b)
""",
    "wait for input": """
import sys, os
def add(a, b):
    while True:
        sys.stdin.read()
        os.read(0, 1)
""",
    "hold every pipe and wait": """
import os, select
def add(a, b):
    for fd in range(3, 64):
        try: os.dup(fd)
        except OSError: pass
    while True: select.select([], [], [], 60)
""",
}
