"""Programs that try to be judged a pass without the right value."""

FAKES = {
    "sys.exit(0)": "import sys\nsys.exit(0)\n",
    "sys.exit(0) in the call": "import sys\ndef add(a, b): sys.exit(0)\n",
    "os._exit(0)": "import os\nos._exit(0)\n",
    "os._exit(0) in the call": "import os\ndef add(a, b): os._exit(0)\n",
    "raise SystemExit": "def add(a, b): raise SystemExit\n",
    "raise KeyboardInterrupt": "def add(a, b): raise KeyboardInterrupt\n",
    "raise a false exception": """
class Passed(BaseException):
    __name__ = "passed"
    def __str__(self): raise SystemExit(0)
def add(a, b): raise Passed
""",
    "exit at the end": """
import atexit, os
atexit.register(os._exit, 0)
def add(a, b): return 4
""",
    "print a pass": """
import sys
def add(a, b):
    print("passed", flush=True)
    sys.__stderr__.write("passed")
    return 0
""",
    "write a pass to every descriptor": """
import os
def add(a, b):
    for frame in (b"\\x15\\0\\0\\0Vt\\x02\\0\\0\\0s\\x06\\0\\0\\0passeds\\0\\0\\0\\0", b"passed\\n"):
        for fd in range(0, 256):
            try: os.write(fd, frame)
            except OSError: pass
    return 0
""",
    "close every descriptor": """
import os
os.closerange(0, 256)
def add(a, b): return 0
""",
    "replace check and builtins": """
import builtins, sys
check = lambda candidate: None
builtins.AssertionError = type("AssertionError", (Exception,), {})
builtins.exec = lambda *_: None
builtins.compile = lambda *_: None
sys.modules["__main__"].__dict__["check"] = check
def add(a, b): return 0
""",
    "equal to everything": """
class Yes(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 3
    def __sub__(self, other): return 0
def add(a, b): return Yes(0)
""",
    "equal to everything without a type": """
class Yes:
    def __eq__(self, other): return True
    def __bool__(self): return True
    def __iter__(self): return iter([3])
    def __reduce__(self): return (int, (3,))
def add(a, b): return Yes()
""",
    "text that is a number": """
class Text(str):
    def __eq__(self, other): return True
def add(a, b): return Text("3")
""",
    "search frames for the test": """
import sys
NEEDLE = "".join(["candidate(", "-1, 2)"])
def add(a, b):
    frame = sys._getframe()
    while frame is not None:
        for value in [*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts]:
            if isinstance(value, (str, bytes)) and NEEDLE in str(value) and value is not NEEDLE:
                return a + b
        frame = frame.f_back
    return 0
""",
    "search memory for the test": """
import gc
NEEDLE = "".join(["candidate(", "-1, 2)"])
def add(a, b):
    for item in gc.get_objects():
        values = item.values() if isinstance(item, dict) else item if isinstance(item, (tuple, list)) else ()
        for value in values:
            if isinstance(value, (str, bytes)) and NEEDLE in str(value) and value is not NEEDLE:
                return a + b
            if getattr(value, "__name__", "") == "check":
                return a + b
    return 0
""",
    "trace and profile": """
import sys
def forget(frame, event, value):
    frame.f_trace_lines = False
    return None
sys.settrace(forget)
sys.setprofile(lambda *_: None)
def add(a, b): return 0
""",
    "replace the sending functions": """
import sys
def add(a, b):
    frame = sys._getframe()
    while frame is not None:
        for name in ("send", "encode"):
            if name in frame.f_globals:
                real = frame.f_globals[name]
                fakes = {"send": lambda pipe, *_, real=real: real(pipe, b"V", b"T"), "encode": lambda *_, **__: b"P"}
                frame.f_globals[name] = fakes[name]
        frame = frame.f_back
    return 0
""",
    "answer before being asked": """
import os
for fd in range(3, 16):
    try: os.write(fd, b"\\x01\\0\\0\\0RN" + b"\\x01\\0\\0\\0VT" * 100)
    except OSError: pass
def add(a, b): return 0
""",
    "bytes that are no value": """
import os
def add(a, b):
    for fd in range(3, 16):
        try: os.write(fd, b"\\x05\\0\\0\\0Vl\\xff\\xff\\xff\\xff")
        except OSError: pass
    os._exit(0)
""",
    "nested a million deep": """
import os, struct
def add(a, b):
    data = b"l\\x01\\0\\0\\0" * 10**6 + b"N"
    frame = struct.pack("<I", len(data)) + b"V" + data
    for fd in range(3, 16):
        try:
            rest = frame
            while rest: rest = rest[os.write(fd, rest):]
        except OSError: pass
    os._exit(0)
""",
    "kill the parent": """
import os, signal
def add(a, b):
    os.kill(os.getppid(), signal.SIGKILL)
    os._exit(0)
""",
    "alarm and die": """
import signal, os
signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
signal.setitimer(signal.ITIMER_REAL, 0.05)
def add(a, b):
    while True: pass
""",
    "no number": "def add(a, b): return float('nan')\n",
    "redefine the entry as a class": """
class add(int):
    def __new__(cls, *_): return int.__new__(cls, 0)
    def __eq__(self, other): return True
""",
}
