"""Programs that try to reach the host: files, secrets, network, other processes, the kernel."""

ESCAPES = {
    "delete files": """
import os, shutil
for place in ("{canary}", "{folder}", os.path.expanduser("~"), "/home", "/root", "/work", "/tmp", "/sandbox"):
    shutil.rmtree(place, ignore_errors=True)
    try: os.remove(place)
    except OSError: pass
def add(a, b): return os.path.exists("/sandbox")
""",
    "overwrite a file": """
for name in ("{canary}", "/etc/passwd", "/sandbox/outthink/verifiers/code/inside/judge.py"):
    try: open(name, "w").write("overwritten")
    except OSError: pass
def add(a, b): return 0
""",
    "write outside": """
import os
for folder in ("{folder}", "/tmp", "/", "/usr/lib"):
    try: open(os.path.join(folder, "escaped"), "w").write("escaped")
    except OSError: pass
    try: os.mkdir(os.path.join(folder, "escaped-folder"))
    except OSError: pass
def add(a, b): return 0
""",
    "read a secret file": """
def add(a, b):
    for name in ("{canary}", "/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/1/environ"):
        try: return 3 if open(name).read() else 0
        except OSError: pass
    return 0
""",
    "read a secret in the environment": """
import os
def add(a, b): return 3 if "OUTTHINK_SECRET" in os.environ else 0
""",
    "environment of the C library": """
import ctypes
def add(a, b):
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_char_p
    return 3 if libc.getenv(b"OUTTHINK_SECRET") else 0
""",
    "symlink to the outside": """
import os
def add(a, b):
    for place in ("/tmp/link", "/link", "/dev/link", "/sandbox/link"):
        try:
            os.symlink("{canary}", place)
            return 3 if open(place).read() else 0
        except OSError: pass
    return 0
""",
    "dot dot and descriptors to the outside": """
import os
def add(a, b):
    for way in ("../" * 20 + "{canary}".lstrip("/"), "/proc/1/root{canary}", "/proc/self/cwd/../{canary}"):
        try: return 3 if open(way).read() else 0
        except OSError: pass
    for fd in range(0, 64):
        try: return 3 if os.read(os.open("{canary}".lstrip("/"), os.O_RDONLY, dir_fd=fd), 1) else 0
        except OSError: pass
    return 0
""",
    "network on loopback": """
import socket
def add(a, b):
    for address in ("127.0.0.1", "localhost", "0.0.0.0"):
        try: return 3 if socket.create_connection((address, {port}), timeout=0.2) else 0
        except OSError: pass
    return 0
""",
    "network by datagram": """
import socket
def add(a, b):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"hello", ("127.0.0.1", {port}))
    return 0
""",
    "unix socket": """
import socket
def add(a, b):
    for name in ("{socket}", "\\0outthink-hostile-{port}"):
        try:
            caller = socket.socket(socket.AF_UNIX)
            caller.connect(name)
            return 3
        except OSError: pass
    return 0
""",
    "socket through the C library": """
import ctypes, struct
def add(a, b):
    libc = ctypes.CDLL(None)
    fd = libc.socket(2, 1, 0)
    address = struct.pack("<H", 2) + struct.pack(">H", {port}) + bytes([127, 0, 0, 1]) + bytes(8)
    return 3 if fd >= 0 and libc.connect(fd, address, 16) == 0 else 0
""",
    "ptrace": """
import ctypes, os
def add(a, b):
    libc = ctypes.CDLL(None, use_errno=True)
    traced = [pid for pid in (1, 2, os.getppid(), {pid}) if libc.ptrace(16, pid, 0, 0) == 0]
    return 3 if traced or libc.ptrace(0, 0, 0, 0) == 0 else 0
""",
    "memory of other processes": """
import ctypes, os
def add(a, b):
    for pid in (1, os.getppid(), {pid}):
        try: return 3 if open("/proc/%d/mem" % pid, "r+b") else 0
        except OSError: pass
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    return 3 if ctypes.CDLL(None).process_vm_readv({pid}, vector, 1, vector, 1, 0) > 0 else 0
""",
    "kill the host's process": """
import os, signal
def add(a, b):
    for pid in ({pid}, os.getppid(), 1):
        try: os.kill(pid, signal.SIGKILL)
        except OSError: pass
    return 0
""",
    "signal everyone": """
import os, signal
def add(a, b):
    for number in (signal.SIGTERM, signal.SIGKILL):
        try: os.kill(-1, number)
        except OSError: pass
    try: os.killpg(0, signal.SIGKILL)
    except OSError: pass
    return 0
""",
    "mount, unshare, chroot": """
import ctypes, os
libc = ctypes.CDLL(None)
def add(a, b):
    done = [libc.mount(b"none", b"/lib", b"tmpfs", 0, None) == 0, libc.unshare(0x10000000) == 0,
            libc.unshare(0x00020000) == 0, libc.umount2(b"/lib", 2) == 0, libc.setns(0, 0) == 0,
            libc.mount(None, b"/", None, 32, None) == 0]
    try: done.append(os.chroot("/") is None)
    except OSError: pass
    return 3 if any(done) else 0
""",
    "kernel interfaces": """
import ctypes
libc = ctypes.CDLL(None)
def add(a, b):
    numbers = (321, 250, 248, 298, 323, 425, 175, 313, 246, 434, 438)
    return 3 if any(libc.syscall(number, 0, 0, 0, 0, 0) >= 0 for number in numbers) else 0
""",
    "the other numbering of system calls": """
import ctypes
def add(a, b):
    return 3 if ctypes.CDLL(None).syscall(0x40000000 + 41, 2, 1, 0) >= 0 else 0
""",
    "write to init": """
def add(a, b):
    for name in ("/proc/1/mem", "/proc/1/oom_score_adj", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
        try: return 3 if open(name, "w").write("x") else 0
        except OSError: pass
    return 0
""",
    "devices": """
import os
def add(a, b):
    try: os.mknod("/dev/disk", 0o60666, os.makedev(8, 0))
    except OSError: pass
    found = [name for name in os.listdir("/dev") if name != "null"]
    return 3 if found else 0
""",
    "daemon that survives": """
import os, time
try: child = os.fork()
except OSError: child = None
if child == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(0.1)
            try: open("{folder}/survived", "w").close()
            except OSError: pass
def add(a, b): return 0
""",
    "another program": """
import os, sys
def add(a, b):
    os.execv(sys.executable, [sys.executable, "-c", "import time; print('passed'); time.sleep(3600)"])
""",
    "shell": """
import subprocess
def add(a, b):
    return 3 if subprocess.run("true", shell=True).returncode == 0 else 0
""",
    "crash": """
import ctypes
def add(a, b):
    ctypes.string_at(0)
""",
}
