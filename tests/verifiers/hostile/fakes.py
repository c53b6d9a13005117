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
    "redefine the entry as a class with operators": """
class add:
    def __init__(self, *_): pass
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __sub__(self, other): return 0
    __rsub__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __sub__
""",
    "an instance with operators": """
class Yes(float):
    def __eq__(self, other): return True
    def __sub__(self, other): return 0.0
    __rsub__ = __sub__
def add(a, b): return Yes()
""",
    "a list that equals everything": """
class Yes(list):
    def __eq__(self, other): return True
    def __contains__(self, other): return True
def add(a, b): return Yes()
""",
    "a mock": """
import unittest.mock
def add(a, b): return unittest.mock.ANY
""",
    "end the test's loop": """
def add(a, b): raise StopIteration
""",
    "define what the test uses": """
import builtins
def check(candidate): return None
def candidate(a, b): return a + b
class AssertionError(Exception): pass
def add(a, b): return 0
""",
    "described as something of the library": """
import sys
values = sys.modules["outthink.verifiers.code.inside.values"]
solver = sys.modules["outthink.verifiers.code.inside.solver"]
class Forged(values.Others):
    def describe(self, value): return value.words
class Words:
    def __init__(self, *words): self.words = words
FORGED = [Words("named", "unittest.mock", "_ANY"), Words("named", "builtins", "exec"), Words("module", "os"),
          Words("yours", 0), Words("object", 0, ("class", 0, ("add", (int,), ("__eq__", "__sub__"), None)), 0)]
def add(a, b):
    solver.pack = lambda value, *_, real=solver.pack: real((FORGED.pop(), []), Forged())
    return 0
""",
    "call what was never lent": """
import os, sys
values = sys.modules["outthink.verifiers.code.inside.values"]
wire = sys.modules["outthink.verifiers.code.inside.wire"]
def add(a, b):
    data, _ = values.pack((0, "__call__", (), {}), values.Others())
    for fd in range(3, 16):
        try: wire.send(fd, b"K", data)
        except OSError: pass
    return 0
""",
    "ask for ever": """
import sys
solver = sys.modules["outthink.verifiers.code.inside.solver"]
def add(a, b):
    server = sys._getframe(2).f_locals["self"]
    while True: server.ask(0, "__call__", (), {})
""",
}
