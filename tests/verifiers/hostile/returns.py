"""Programs whose function `f` returns, raises or leaves behind what hurts whoever touches it; none returns 3."""

RETURNS = {
    "a plain object": "class Z: pass\ndef f(x): return Z()",
    "itself": "def f(x): return f",
    "a module": "import os\ndef f(x): return os",
    "its own module": "import sys\ndef f(x): return sys.modules[__name__]",
    "a frame": "import sys\ndef f(x): return sys._getframe()",
    "a traceback": "def f(x):\n    try: 1 / 0\n    except Exception as error: return error.__traceback__",
    "code": "def f(x): return f.__code__",
    "an open file": "import sys\ndef f(x): return sys.stdout",
    "a lock": "import threading\ndef f(x): return threading.Lock()",
    "a view of memory": "def f(x): return memoryview(b'abc')",
    "a generator of itself": "def f(x):\n    def g():\n        yield it\n    it = g()\n    return it",
    "a coroutine that leaves": "async def f(x): raise SystemExit",
    "a list in itself": "def f(x):\n    y = []\n    y.append(y)\n    return y",
    "nested without end": "def f(x):\n    y = []\n    for _ in range(100_000): y = [y]\n    return y",
    "a huge text": "def f(x): return 'a' * (20 << 20)",
    "a huge number": "def f(x): return 1 << (8 << 20)",
    "half a pair": "def f(x): return '\\ud800'",
    "an error of half a pair": "def f(x): raise ValueError('\\ud800\\x1b[2J' * 100)",
    "comparing leaves": "class Z:\n    def __eq__(s, o): raise SystemExit\n    __hash__ = None\ndef f(x): return Z()",
    "showing leaves": "class Z:\n    def __repr__(s): raise SystemExit\n    __str__ = __repr__\ndef f(x): return Z()",
    "shows itself as a number": "class Z:\n    def __repr__(s): return 3\n    __str__ = __repr__\ndef f(x): return Z()",
    "hashing is interrupted": "class Z:\n    def __hash__(s): raise KeyboardInterrupt\ndef f(x): return Z()",
    "every attribute leaves": "class Z:\n    def __getattribute__(s, n): raise SystemExit\ndef f(x): return Z()",
    "no class": "class Z:\n    @property\n    def __class__(s): raise SystemExit\ndef f(x): return Z()",
    "another class": "class Z:\n    @property\n    def __class__(s): return int\ndef f(x): return Z()",
    "copying leaves": (
        "class Z:\n    def __reduce_ex__(s, p): raise SystemExit\n    def __deepcopy__(s, m): raise SystemExit\n"
        "def f(x): return Z()"
    ),
    "deleting ends the process": "import os\nclass Z:\n    def __del__(s): os._exit(161)\ndef f(x): return Z()",
    "a class that breaks its own rules": (
        "class M(type):\n    def __eq__(s, o): raise SystemExit\n    def __hash__(s): raise KeyboardInterrupt\n"
        "    def __repr__(s): raise SystemExit\n    def __getattribute__(s, n): raise SystemExit\n"
        "class Z(metaclass=M): pass\ndef f(x): return Z()"
    ),
    "a name that is none": "class Z: pass\nZ.__name__ = '\\ud800'\nZ.__module__ = 5\ndef f(x): return Z()",
    "a list that cannot be walked": "class Z(list):\n    def __iter__(s): raise SystemExit\ndef f(x): return Z([1])",
    "a mapping without keys": "class Z(dict):\n    def keys(s): raise SystemExit\ndef f(x): return Z(a=1)",
    "keys that change": (
        "class K:\n    n = 0\n    def __hash__(s): K.n += 1; return K.n\ndef f(x): return {K(): 1, K(): 2}"
    ),
    "a proxy of the dead": "import weakref\nclass Z: pass\ndef f(x): return weakref.proxy(Z())",
    "a mock": "from unittest import mock\ndef f(x): return mock.MagicMock()",
    "a date with a zone that leaves": (
        "import datetime\nclass T(datetime.tzinfo):\n    def utcoffset(s, d): raise SystemExit\n"
        "def f(x): return datetime.datetime(2020, 1, 1, tzinfo=T())"
    ),
    "leaves": "def f(x): raise SystemExit(0)",
    "leaves with an object": "class Z:\n    def __str__(s): raise SystemExit\ndef f(x): raise SystemExit(Z())",
    "is interrupted": "def f(x): raise KeyboardInterrupt",
    "an error that cannot be shown": (
        "class B(ValueError):\n    def __str__(s): raise SystemExit\n    __repr__ = __str__\ndef f(x): raise B(x)"
    ),
    "an error that shows itself as an error": (
        "class B(BaseException):\n    def __str__(s): raise B\n    __repr__ = __str__\ndef f(x): raise B(x)"
    ),
    "an error without arguments": "class B(ValueError):\n    args = property(lambda s: 1 / 0)\ndef f(x): raise B(x)",
    "an error in itself": "def f(x):\n    error = ValueError()\n    error.args = (error,)\n    raise error",
    "a group of interruptions": "def f(x): raise BaseExceptionGroup('a', [KeyboardInterrupt()])",
    "an exit code of no signal": "import os\ndef f(x): os._exit(161)",
    "another exit code of no signal": "import os\ndef f(x): os._exit(160)",
    "an exit code of no signal at once": "import os\nos._exit(161)\ndef f(x): pass",
    "a signal without a name": "import os\ndef f(x): os.kill(os.getpid(), 63)",
    "no function": "f = 5",
    "a class whose objects cannot be made": (
        "class M(type):\n    def __call__(s, *a): raise SystemExit\nclass f(metaclass=M): pass"
    ),
    "a callable without a name": (
        "class Z:\n    def __call__(s, *a): return s\n    @property\n    def __name__(s): raise SystemExit\nf = Z()"
    ),
    "keeps what it is given": "L = []\ndef f(x):\n    L.append(x)\n    return L",
    "changes what it is given": (
        "import os\ndef f(x):\n    if type(x) is list: x.append(os)\n    if type(x) is dict: x[os] = x\n    return x"
    ),
    "calls what it is given": "import os\ndef f(x): return x(os) if callable(x) else os",
    "closes its pipes": "import os\ndef f(x): os.closerange(0, 20)",
}
TESTS = {
    "handed back": """
def check(candidate):
    x = candidate(1)
    assert candidate(x) == candidate([x, {1: x}]) == candidate({2: x}) == 3
""",
    "handed back by a function": """
def check(candidate):
    assert candidate(lambda *given: given or candidate(1)) == 3
""",
    "shown": """
def check(candidate):
    x = candidate(1)
    assert f"{x}" == repr(x) == "3", f"{x!r} is no {x}"
""",
    "copied and derived from": """
import copy
def check(candidate):
    x = copy.deepcopy(candidate(1))
    class Mine(type(x)): pass
    assert x in (3, 4) and candidate(Mine()) == 3
""",
}
"""Tests of `f` that touch what it returned before they compare it with 3."""
