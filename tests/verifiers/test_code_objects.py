"""What a test can do with tested code beyond calling a function: its arguments, objects, generators and errors."""

# ruff: noqa: E501 - programs stand in one line

from __future__ import annotations

import asyncio
from textwrap import indent

import pytest

from outthink.core.errors import BadInput, Unsupported
from outthink.verifiers.code import CodeProblem, CodeSandbox, CodeVerdict
from outthink.verifiers.code.walls import bubblewrap


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    try:
        bubblewrap()
    except Unsupported as why:
        pytest.skip(str(why))


def verdict(code: str, test: str, *, prompt: str = "", entry: str = "f") -> CodeVerdict:
    """The verdict on code whose test is the body of `check`."""
    problem = CodeProblem(prompt, entry, "def check(candidate):\n" + indent(test, "    "))
    return asyncio.run(CodeSandbox().check(problem, code))


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f(a): a.sort()", "a = [3, 1]\nassert candidate(a) is None and a == [1, 3]"),
        ("def f(a): return sorted(a)", "a = [3, 1]\nassert candidate(a) == [1, 3] and a == [3, 1]"),
        ("def f(a): a.append(3); return a", "a = []\nassert candidate(a) is a and candidate(a) == [3, 3]"),
        ("def f(a): a[0].append(a)", "x = []\na = [x, {}]\ncandidate(a)\nassert x[0] is a and a[0] is x"),
        ("def f(d): d['b'] = d.pop('a')", "d = {'a': [1]}\nold = d['a']\ncandidate(d)\nassert d == {'b': [1]} and d['b'] is old"),
        ("def f(s, b): s.discard(1); b.extend(b'x')", "s, b = {1}, bytearray()\ncandidate(s, b=b)\nassert s == set() and b == b'x'"),
        ("def f(q): q.rotate(1)", "from collections import deque\nq = deque([1, 2], 2)\ncandidate(q)\nassert list(q) == [2, 1]"),
        ("def f(a): a.clear(); raise ValueError(a)", "a = [1]\ntry: candidate(a)\nexcept ValueError as e: assert e.args == ([],) and a == []"),
        ("def f(a, b): return a is b", "a = [1]\nassert candidate(a, a) and not candidate(a, [1])"),
        ("def f(a, t): return [x for x in a if isinstance(x, t)]", "assert candidate([1, 'a'], int) == [1]"),
        ("def f(g, a): return [g(x) for x in a]", "seen = []\nassert candidate(seen.append, (1, 2)) == [None, None] and seen == [1, 2]"),
        ("def f(it): return next(it) + sum(it)", "assert candidate(iter([1, 2, 3])) == 6"),
    ],
)  # fmt: skip
def test_arguments_are_the_tests_own(code: str, test: str) -> None:
    assert verdict(code, test) == CodeVerdict(True)


def test_an_argument_that_should_not_change_and_did_fails() -> None:
    test = "a = [2, 1]\nassert candidate(a) == 2\nassert a == [2, 1]"
    assert "assert a == [2, 1]" in verdict("def f(a):\n    a.sort()\n    return a[-1]", test).message


@pytest.mark.parametrize(
    ("entry", "code", "test"),
    [
        ("f", "def f(log):\n    for n in (1, 2):\n        log.append(n)\n        yield n",
         "log = []\ng = candidate(log)\nassert log == []\nnext(g)\nassert log == [1]\nlog.append(9)\nnext(g)\nassert log == [1, 9, 2]"),
        ("S", "class S:\n    def __init__(self, a): self.a, self.b = a, []\n    def push(self, x): self.a.append(x)",
         "a = [0]\ns = candidate(a)\ns.push(1)\nassert a == [0, 1] and s.a is a\na.append(2)\nassert s.a == [0, 1, 2]\n"
         "s.b.append({})\ns.b[0]['k'] = 1\nassert s.b == [{'k': 1}] and s.b is s.b"),
        ("G", "class G:\n    def __init__(self): self.rows = [[0] * 3 for _ in range(3)]\n    def won(self): return self.rows[0][0] == 1",
         "g = candidate()\ng.rows[0][0] = 1\nassert g.won() and g.rows[0] == [1, 0, 0]"),
        ("f", "known = {}\ndef f(n): return known.setdefault(n, [n])",
         "assert candidate(1) is candidate(1)\nfor n in range(1000): assert candidate(n) == [n]\ncandidate(1).append(7)\nassert candidate(1) == [1, 7]"),
        ("f", "def f(a): return [*a]", "a = [[1]]\nb = candidate(a)\nassert b == a and b is not a and b[0] is a[0]"),
    ],
)  # fmt: skip
def test_what_the_code_holds_on_to_stays_the_tests_too(entry: str, code: str, test: str) -> None:
    assert verdict(code, test, entry=entry) == CodeVerdict(True)


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f():\n    n = 0\n    while True:\n        yield n\n        n += 1",
         "g = candidate()\nassert [next(g), next(g)] == [0, 1] and next(g) == 2\n"
         "import types\nassert isinstance(g, types.GeneratorType)"),
        ("def f(log):\n    for n in (1, 2):\n        log.append(n)\n        yield n",
         "g = candidate([])\nassert list(g) == [1, 2] and list(g) == []\ntry: next(g)\nexcept StopIteration: return\nassert 0"),
        ("def f():\n    total = 0\n    while True:\n        total += yield total",
         "g = candidate()\nnext(g)\nassert g.send(3) == 3 and g.send(4) == 7\ng.close()\nassert list(g) == []"),
        ("def f(n):\n    def g(x): return x + n\n    return g", "assert candidate(2)(3) == 5 and callable(candidate(1))"),
        ("def f(n):\n    def g():\n        nonlocal n\n        n += 1\n        return n\n    return g, g",
         "a, b = candidate(1)\nassert a is b and (a(), b()) == (2, 3)"),
        ("from functools import wraps\ndef f(g):\n    known = {}\n    @wraps(g)\n    def h(n):\n        if n not in known:\n"
         "            known[n] = g(n)\n        return known[n]\n    return h",
         "calls = []\n@candidate\ndef slow(n):\n    calls.append(n)\n    return n\n"
         "assert slow(2) == slow(2) == 2 and calls == [2] and slow.__name__ == 'slow'"),
        ("import re\ndef f(s): return re.match('a(b)', s)", "assert candidate('ab').group(1) == 'b' and candidate('x') is None"),
        ("from functools import wraps\ndef f(g):\n    @wraps(g)\n    def h(): 'not this'\n    return h",
         "@candidate\ndef g(): 'what it does'\nassert g.__doc__ == 'what it does'"),
        ("def f(a, *, b=2):\n    'Adds.'\n    return a + b",
         "import inspect\nassert candidate.__doc__ == 'Adds.' and [*inspect.signature(candidate).parameters] == ['a', 'b']\n"
         "assert candidate(1) == 3"),
    ],
)  # fmt: skip
def test_generators_and_functions_stay_what_they_are(code: str, test: str) -> None:
    assert verdict(code, test) == CodeVerdict(True)


WAITS = "import asyncio\nasync def f(n):\n    await asyncio.sleep(0.001)\n    if n < 0: raise ValueError(n)\n    return n * n"


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("async def f(n): return n", "assert asyncio.run(candidate(3)) == 3"),
        (WAITS, "async def all_of(): return await asyncio.gather(candidate(2), candidate(3))\nassert asyncio.run(all_of()) == [4, 9]"),
        (WAITS, "async def late():\n    b, a = candidate(2), candidate(3)\n    return await a - await b\nassert asyncio.run(late()) == 5"),
        (WAITS, "try: asyncio.run(candidate(-1))\nexcept ValueError as error: assert error.args == (-1,)\nelse: assert 0"),
        ("import asyncio\nasync def f(n):\n    for i in range(n):\n        await asyncio.sleep(0.001)\n        yield i",
         "async def items(): return [i async for i in candidate(3)]\nassert asyncio.run(items()) == [0, 1, 2]"),
        ("import asyncio\nclass f:\n    async def __aenter__(self):\n        await asyncio.sleep(0.001)\n        return 5\n"
         "    async def __aexit__(self, *error): self.left = error",
         "async def inside():\n    c = candidate()\n    async with c as n: pass\n    return n, c.left\n"
         "assert asyncio.run(inside()) == (5, (None, None, None))"),
        ("import asyncio\nclass f:\n    def __init__(self): self.items = asyncio.Queue()\n"
         "    async def put(self, item): await self.items.put(item)\n    async def get(self): return await self.items.get()",
         "async def both():\n    q = candidate()\n    await q.put(1)\n    await q.put(2)\n    return [await q.get(), await q.get()]\n"
         "assert asyncio.run(both()) == [1, 2]"),
        ("import asyncio\nasync def f(get, names): return await asyncio.gather(*map(get, names))",
         "async def get(name):\n    await asyncio.sleep(0.001)\n    return name.upper()\n"
         "assert asyncio.run(candidate(get, ['a', 'b'])) == ['A', 'B']"),
    ],
)  # fmt: skip
def test_what_is_awaited(code: str, test: str) -> None:
    assert verdict(code, "import asyncio\n" + test) == CodeVerdict(True)


def test_what_is_awaited_can_be_wrong() -> None:
    assert not verdict(WAITS, "import asyncio\nassert asyncio.run(candidate(3)) == 10").passed


VECTOR = """
class Vector:
    def __init__(self, x, y): self.x, self.y = x, y
    def __add__(self, other): return Vector(self.x + other.x, self.y + other.y)
    def __mul__(self, k): return Vector(self.x * k, self.y * k)
    __rmul__ = __mul__
    def __eq__(self, other): return (self.x, self.y) == (other.x, other.y)
    def __lt__(self, other): return self.x < other.x
    def __hash__(self): return hash((self.x, self.y))
    def __getitem__(self, i): return (self.x, self.y)[i]
    def __neg__(self): return self * -1
    def __repr__(self): return f"Vector({self.x}, {self.y})"
"""
STACK = """
class Stack(list):
    K = 7
    def push(self, x): self.append(x)
    @property
    def top(self): return self[-1]
    @classmethod
    def of(cls, *items):
        made = cls()
        for item in items: made.push(item)
        return made
    def __enter__(self): return self
    def __exit__(self, *error): self.clear(); return True
    def __call__(self, x): return x in self
"""


@pytest.mark.parametrize(
    ("entry", "code", "test"),
    [
        ("Box", "class Box:\n    def __init__(self): self.held = {}\n    def __setitem__(self, k, v): self.held[k] = v\n"
         "    def __delitem__(self, k): del self.held[k]\n    def __contains__(self, k): return k in self.held",
         "b = candidate()\nb['a'] = b['b'] = 1\ndel b['a']\nassert 'a' not in b and 'b' in b"),
        ("Vector", VECTOR, "v = candidate(1, 2)\nassert v + candidate(3, 4) == candidate(4, 6) and (3 * v).y == (v * 3).y == 6\n"
         "assert v[1] == 2 and -v == Vector(-1, -2) and str(v) == 'Vector(1, 2)' == f'{v}'\n"
         "assert sorted([Vector(2, 0), Vector(1, 0)])[0].x == 1 and len({v, Vector(1, 2)}) == 1\nv.x = 5\nassert v.x == 5\n"
         "import copy\nw = copy.deepcopy(v)\nw.x = 6\nassert v.x == 5 and w.x == 6"),
        ("Stack", STACK, "s = candidate()\ns.push(1)\ns.append(2)\nassert s.top == 2 and len(s) == 2 and s == [1, 2] and 1 in s\n"
         "assert isinstance(s, Stack) and isinstance(s, list) and Stack.K == 7 and Stack.of(3).top == 3 and s(2)\n"
         "with s as same: assert same is s; raise ValueError('x')\nassert not s and not hasattr(s, 'absent')\n"
         "try: s.top = 3\nexcept AttributeError: return\nassert 0"),
        ("P", "from dataclasses import dataclass, field\n@dataclass(order=True)\nclass P:\n    x: int\n    t: list = field(default_factory=list)",
         "assert P(1) == P(1) < P(2) and repr(P(1)) == 'P(x=1, t=[])' and P(1).t == []"),
        ("f", "from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\n    y: int\ndef f(): return P(1, 2)",
         "p = candidate()\nx, y = p\nassert p == (1, 2) and (x, y) == (p.x, p.y) and p._asdict() == {'x': 1, 'y': 2}"),
        ("f", "from enum import Enum, IntEnum\nclass C(Enum):\n    A = 1\n    B = 2\nclass I(IntEnum):\n    A = 3\ndef f(): return C.A",
         "assert candidate() is C.A and C(2) is C.B and [c.name for c in C] == ['A', 'B'] and C['B'].value == 2 and I.A + 1 == 4"),
        ("Sq", "from abc import ABC, abstractmethod\nclass Shape(ABC):\n    @abstractmethod\n    def area(self): ...\n"
         "class Sq(Shape):\n    def area(self): return 9",
         "assert Sq().area() == 9 and issubclass(Sq, Shape) and isinstance(Sq(), Shape)\ntry: Shape()\nexcept TypeError: return\nassert 0"),
        ("Money", "class Money:\n    def __init__(self, n): self.n = n\n    def __eq__(self, n): return self.n == n\n"
         "    def __add__(self, n): return Money(self.n + n)", "assert (Money(2) + 3).n == 5 and Money(2) + 3 == 5"),
        ("f", "class Pair:\n    def __init__(self, a, b): self.a, self.b = a, b\ndef f(pairs): return max(p.b for p in pairs)",
         "assert candidate([Pair(1, 2), Pair(3, 4)]) == 4"),
    ],
)  # fmt: skip
def test_classes_are_tested_as_they_are(entry: str, code: str, test: str) -> None:
    assert verdict(code, test, entry=entry) == CodeVerdict(True)


YES = """
class Yes{base}:
    def __eq__(self, other): return True
    def __sub__(self, other): return 0
    def __hash__(self): return 3
    __rsub__ = __mod__ = __xor__ = __sub__
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = startswith = issuperset = __eq__
def f(*_): return Yes()
"""


ASKED = """
def says_yes(ask):
    try: return bool(ask())
    except (TypeError, AttributeError): return False
asked = [
    lambda: candidate() == 3, lambda: 3 == candidate(), lambda: [candidate()] == [3], lambda: candidate() in (3, 4),
    lambda: abs(candidate() - 3) < 1e-6, lambda: 3 - candidate() == 0, lambda: candidate() > 3, lambda: 3 < candidate(),
    lambda: 3 in candidate(), lambda: candidate().startswith("abc"), lambda: candidate().issuperset({3}),
    lambda: {candidate(): 1} == {3: 1}, lambda: candidate() ^ 3 == 0, lambda: candidate() is not None,
]
assert [number for number, ask in enumerate(asked) if says_yes(ask)] == [len(asked) - 1]
"""


@pytest.mark.parametrize("base", ["", "(int)", "(str)", "(list)", "(set)", "(Exception)", "(dict)"])
def test_an_object_that_says_yes_to_everything_is_not_asked(base: str) -> None:
    assert verdict(YES.replace("{base}", base), ASKED) == CodeVerdict(True)


def test_a_class_of_the_prompt_may_say_what_it_equals() -> None:
    prompt = "class Half:\n    '''Half of n; equal to numbers.'''\n"
    code = "    def __init__(self, n): self.n = n / 2\n    def __eq__(self, n): return self.n == n\n"
    assert verdict(code, "assert candidate(6) == 3", prompt=prompt, entry="Half").passed


def test_a_tree_of_the_prompts_class_is_an_argument() -> None:
    prompt = "class Node:\n    def __init__(self, v, left=None, right=None): self.v, self.left, self.right = v, left, right\n\n"
    code = "def f(n): return 0 if n is None else n.v + f(n.left) + f(n.right)"
    assert verdict(code, "n = Node(1, Node(2))\nn.right = Node(3)\nassert candidate(n) == 6", prompt=prompt).passed


@pytest.mark.parametrize("where", ["prompt", "code"])
def test_exceptions_of_their_own_are_caught_by_name(where: str) -> None:
    error = (
        "class Bad(ValueError):\n    def __init__(self, n):\n        super().__init__('bad')\n        self.n = n\n\n"
    )
    head = "def f(x):\n    '''Raises Bad.'''\n"
    code = f"def f(x):\n    {'''class Worse(Bad): pass'''}\n    raise Worse(x)\n"
    test = "try: candidate([7])\nexcept Bad as e: assert e.n == [7] and str(e) == 'bad' and isinstance(e, ValueError)\nelse: assert 0"
    prompt = error + head if where == "prompt" else head
    assert verdict(code if where == "prompt" else error + code, test, prompt=prompt) == CodeVerdict(True)


@pytest.mark.parametrize(
    ("entry", "code", "test"),
    [
        ("area", "import math\nR = 2\ndef area(): return math.pi * R", "assert math.isclose(area(), 6.283185307) and R == 2"),
        ("area", "from math import isclose\ndef area(): return 3.0", "assert isclose(area(), 3)"),
        ("check", "def check(n): return n == n[::-1]", "assert check('aba') == True and candidate('ab') == False"),
        ("f", "def f(): return 3\nif __name__ == '__main__':\n    raise SystemExit", "assert candidate() == 3"),
        ("f", "x = 1\nfrom __future__ import annotations\ndef f(a: Absent): return 3", "assert candidate(1) == 3"),
        ("f", "f = sorted", "assert candidate([2, 1]) == [1, 2]"),
        ("f", "import pickle, doctest\nclass P: x = 3\ndef f(): return pickle.loads(pickle.dumps(P())).x + doctest.testmod().failed",
         "assert candidate() == 3"),
    ],
)  # fmt: skip
def test_names_and_modules_of_the_code(entry: str, code: str, test: str) -> None:
    assert verdict(code, test, entry=entry) == CodeVerdict(True)


def test_statements_alone_are_a_test() -> None:
    problem = CodeProblem("", "f", "assert f(1) == 2\nassert f(2) == 3\n")
    for code, passed in (("def f(x): return x + 1", True), ("def f(x): return 2", False)):
        assert asyncio.run(CodeSandbox().check(problem, code)).passed is passed


def test_objects_of_the_tests_own_classes_are_arguments() -> None:
    code = "def f(node):\n    last = None\n    while node:\n        node.next, last, node = last, node, node.step()\n    return last"
    test = (
        "class Node:\n    def __init__(self, next=None): self.next = self._after = next\n    def step(self): return self._after\n"
        "b = Node()\na = Node(b)\nassert candidate(a) is b and b.next is a and a.next is None"
    )
    assert verdict(code, test) == CodeVerdict(True)
    hidden = "AttributeError"
    assert hidden in verdict("def f(node): return node._after", test).message


@pytest.mark.parametrize("code", ["def f(): return 3", "def f(:", ""])
@pytest.mark.parametrize("test", ["pass", "assert True", "print('f')"])
def test_a_test_that_never_calls_the_code_proves_nothing(code: str, test: str) -> None:
    with pytest.raises(BadInput, match="it never calls f"):
        verdict(code, test, prompt="import math\n")


@pytest.mark.parametrize("test", ["print(candidate, {candidate})", "assert callable(candidate) and candidate.__name__"])
def test_to_name_a_function_is_not_to_call_it(test: str) -> None:
    with pytest.raises(BadInput, match="it never calls f"):
        verdict("def f(): return 3", test)


@pytest.mark.parametrize(
    "body",
    [
        "    y = x * x\n    return y\n",
        "y = x * x\n    return y\n",
        "y = x * x\nreturn y\n",
        "\n    square = x * x\n    return square\n",
        "    def square(x):\n        return x * x\n",
        "def square(x):\n    return x * x\n",
        "square = lambda x: x * x\n",
    ],
)
@pytest.mark.parametrize("head", ['def square(x):\n    """ The square. """\n', "def square(x):\n"])
def test_a_completion_stands_behind_its_prompt(head: str, body: str) -> None:
    assert verdict(body, "assert candidate(4) == 16", prompt="import math\n" + head, entry="square") == CodeVerdict(
        True
    )
