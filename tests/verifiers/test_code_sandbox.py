"""Code against its test: what passes, what fails and why, and where the sandbox refuses."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from outthink.core.errors import BadInput, EngineError, Unsupported
from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.verifiers.code import CodeLimits, CodeProblem, CodeSandbox, CodeVerdict, CodeVerifier, check_all
from outthink.verifiers.code import walls as bubblewrap
from outthink.verifiers.code.walls import seccomp_filter

ADD = CodeProblem(
    "def add(a, b):\n    '''The sum.'''\n", "add", "def check(candidate):\n    assert candidate(1, 2) == 3\n"
)
RIGHT, WRONG = "```python\ndef add(a, b):\n    return a + b\n```", "```python\ndef add(a, b):\n    return a - b\n```"


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    try:
        bubblewrap.bubblewrap()
    except Unsupported as why:
        pytest.skip(str(why))


def verdict(code: str, test: str, *, prompt: str = "", limits: CodeLimits | None = None) -> CodeVerdict:
    """The verdict on code whose test is the body of `check`."""
    body = "def check(candidate):\n" + "".join(f"    {line}\n" for line in test.splitlines())
    sandbox = CodeSandbox(limits or CodeLimits())
    return asyncio.run(sandbox.check(CodeProblem(prompt, "f", body), code))


def judged(tasks: list[tuple[CodeProblem, str]], *, workers: int = 1) -> list[CodeVerdict]:
    return asyncio.run(check_all(tasks, CodeSandbox(), workers=workers))


def test_right_and_wrong() -> None:
    texts = [RIGHT, WRONG, "    return a + b\n", "I do not know.", ""]
    verdicts = judged([(ADD, text) for text in texts], workers=2)
    assert [item.passed for item in verdicts] == [True, False, True, False, False]
    assert verdicts[1].message == "AssertionError at line 2 of the test: assert candidate(1, 2) == 3"
    assert "SyntaxError" in verdicts[3].message


@pytest.mark.parametrize(
    "text",
    [
        "Here it is:\n\nimport math\ndef add(a, b):\n    return math.fsum([a, b])\n\nIt adds two numbers.\n",
        "```\ndef add(a, b):\n    return plus(a, b)\n```\nwith\n```\ndef plus(a, b):\n    return a + b\nplus(1)\n```\n",
        "    return a + b\n```\nThe sum of both.\n",
        "def add(a, b):\n    return a + b\n\nFor example:\n```\n>>> add(1, 2)\n3\n```\n",
        "```python\nreturn a + b\n```",
        "~~~\n    def add(a, b):\n        return a + b\n~~~",
        "````md\n```python\ndef add(a, b):\n    return a + b\n```\n````",
        "The answer:\n\n    def add(a, b):\n        return a + b\n\nIt adds.",
        "Just `def add(a, b): return a + b`.",
        "Just ```python def add(a, b): return a + b```",
        "    c = a + b\n    return c\n\nThe sum of both.\n",
    ],
)
def test_code_as_models_write_it(text: str) -> None:
    assert judged([(ADD, text)]) == [CodeVerdict(True)]


PAIRS = CodeProblem("", "longest", "def check(candidate):\n    assert longest([Pair(1, 5), Pair(2, 3)]) == 5\n")
LONGEST = "```\ndef longest(pairs):\n    return max(pair.b for pair in pairs)\n```\n"


@pytest.mark.parametrize(
    "pair",
    [
        "class Pair:\n    def __init__(self, a, b): self.a, self.b = a, b\n",
        "from collections import namedtuple\nPair = namedtuple('Pair', 'a b')\nprint(longest([Pair(1, 2)]))\n",
    ],
)
def test_what_only_the_test_needs_of_other_blocks_is_taken_along(pair: str) -> None:
    texts = [f"```\n{pair}```\n{LONGEST}", f"{LONGEST}with\n```\n{pair}```", LONGEST]
    missing = CodeVerdict(False, "the code does not define Pair, which the test calls")
    assert judged([(PAIRS, text) for text in texts]) == [CodeVerdict(True), CodeVerdict(True), missing]


def test_code_that_was_only_thought_is_not_judged() -> None:
    texts = [f"<think>{WRONG}</think>{RIGHT}", f"{WRONG}</think>{RIGHT}", f"<think>{RIGHT}", f"<think>{RIGHT}</think>"]
    assert [item.passed for item in judged([(ADD, text) for text in texts])] == [True, True, False, False]
    verifier = CodeVerifier({"p": ADD})
    scores = asyncio.run(verifier.score(Request.of("Add.", problem="p"), [Candidate((text,)) for text in texts]))
    assert [score.steps for score in scores] == [(1.0,), (1.0,), (0.0,), (0.0,)]


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f(x): return x", "for x in (None, 1.5, 'é', b'x', [1, (2,)], {'a': {1}}): assert candidate(x) == x"),
        ("def f(x): return x", "assert candidate(float('nan')) != candidate(0) and candidate(True) is True"),
        ("def f(x): return (n * n for n in x)", "assert tuple(candidate([1, 2])) == (1, 4)"),
        ("from collections import Counter\nf = Counter", "assert candidate('aab') == {'a': 2, 'b': 1}"),
        ("def f(x): return 1 // x", "try: candidate(0)\nexcept ZeroDivisionError: pass\nelse: assert False"),
        ("class E(KeyError): pass\ndef f(x): raise E(x)", "try: candidate(0)\nexcept KeyError: pass\nelse: 1 / 0"),
        ("def f(x): return b'\\xff'.decode()", "try: candidate(0)\nexcept ValueError: pass\nelse: assert False"),
        ("def f(*, a=1): return a", "assert candidate() == 1 and candidate(a=2) == 2"),
        ("n = 0\ndef f():\n    global n\n    n += 1\n    return n", "assert [candidate(), f()] == [1, 2]"),
        ("from dataclasses import dataclass as d\n@d\nclass P: x: int\ndef f(): return P(3).x", "assert candidate()"),
        ("def f(): print('x' * 10**6); return 3", "print('noise'); assert candidate() == 3"),
        ("async def g(): return 3\nimport asyncio\ndef f(): return asyncio.run(g())", "assert candidate() == 3"),
    ],
)  # fmt: skip
def test_honest_code_passes(code: str, test: str) -> None:
    assert verdict(code, test) == CodeVerdict(True)


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f(x): return (n for n in x)", "assert candidate([1]) == [1]"),
        ("def f() -> Optional: return 3", "assert candidate() == 3"),  # no future import of ours reaches it
        ("def f(): raise SystemExit(0)", "try: candidate()\nexcept BaseException: pass"),
        ("import os\ndef f(): os._exit(0)", "try: candidate()\nexcept BaseException: pass"),
        ("def f(): return 1", "assert candidate() is True"),
        ("import numpy\ndef f(): return 3", "assert candidate() == 3"),  # nothing of the host's packages
        ("def f(): return input()", "assert candidate() == ''"),
        ("def f():\n    open('/tmp/x', 'w')\n    return 3", "assert candidate() == 3"),
        ("def g(): return 3", "assert candidate() == 3"),
    ],
)
def test_what_must_not_pass(code: str, test: str) -> None:
    result = verdict(code, test)
    assert not result.passed
    assert result.message


def test_a_test_uses_the_helpers_of_the_prompt() -> None:
    prompt = "import math\ndef twice(x):\n    return 2 * x\ndef f(x):\n    '''Half.'''\n"
    test = "assert math.isclose(twice(candidate(3)), 3)"
    assert verdict("    return x / 2\n", test, prompt=prompt).passed
    unfinished = prompt.replace("    '''Half.'''\n", "")
    assert verdict("    return x / 2\n", test, prompt=unfinished).passed


def test_limits_of_time() -> None:
    result = verdict("def f():\n    while True: pass\n", "candidate()", limits=CodeLimits(cpu=1, wall=60))
    assert "killed" in result.message
    result = verdict("import time\ndef f(): time.sleep(3600)", "candidate()", limits=CodeLimits(wall=0.3))
    assert result == CodeVerdict(False, "not done after 0.3 s")


def test_limits_of_memory() -> None:
    code = "def f(n): return len(bytearray(n * 2**20))"
    small, large = CodeLimits(memory=2**28), CodeLimits(memory=2**30)
    test = "assert candidate(400) == 400 * 2**20"
    assert "MemoryError" in verdict(code, test, limits=small).message
    assert verdict(code, test, limits=large).passed


@pytest.mark.parametrize(
    "test", ["def check(candidate: pass", "def check(candidate): nothing", "x = 3", "def check(c): c(object())"]
)
def test_a_broken_test_is_not_a_wrong_answer(test: str) -> None:
    with pytest.raises(BadInput, match="has a test that cannot be used"):
        judged([(CodeProblem(ADD.prompt, "add", test), RIGHT)])


def test_a_value_that_hurts_the_test_fails() -> None:
    result = verdict("def f(): return 10**9", "n = candidate()\nwhile n: n -= 1", limits=CodeLimits(cpu=1, wall=60))
    assert result == CodeVerdict(False, "the test ended without a verdict: out of time or memory")


def test_scores_of_a_request() -> None:
    verifier = CodeVerifier({"p": ADD}, workers=2)
    request = Request.of("Add.", problem="p")
    scores = asyncio.run(verifier.score(request, [Candidate((text,)) for text in (RIGHT, WRONG)]))
    assert [score.steps for score in scores] == [(1.0,), (0.0,)]
    assert scores[1].message.startswith("AssertionError")
    assert (verifier.kind, verifier.bound(request, Candidate((RIGHT,)))) == ("exact", 0)
    by_function = CodeVerifier(lambda request: ADD)
    assert asyncio.run(by_function.score(Request.of("Add."), [Candidate((RIGHT,))]))[0].steps == (1.0,)
    for unknown in ("q", None):
        with pytest.raises(BadInput, match="has no code problem"):
            asyncio.run(verifier.score(Request.of("Add.", problem=unknown), []))
    with pytest.raises(BadInput, match="workers"):
        CodeVerifier({}, workers=0)


def test_scores_without_an_event_loop() -> None:
    work = CodeVerifier({"p": ADD}).score(Request.of("Add.", problem="p"), [Candidate((RIGHT,))])
    with pytest.raises(StopIteration) as end:
        work.send(None)  # as a replayed session drives it
    assert end.value.value[0].steps == (1.0,)


def test_verdicts_do_not_depend_on_chance() -> None:
    code = "def f(): return ''.join({'a', 'b', 'c', 'd', 'e', 'f', 'g'})"
    test = "assert candidate() == ''.join({'a', 'b', 'c', 'd', 'e', 'f', 'g'})"
    assert [verdict(code, test).passed for _ in range(2)] == [True, True]


def fake_bwrap(folder: Path, script: str) -> str:
    path = folder / "bwrap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_refusals_name_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bubblewrap.bubblewrap.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match=r"not installed; install it .*apt install bubblewrap"):
        judged([(ADD, RIGHT)])
    fake_bwrap(tmp_path, "echo 'setting up uid map: Permission denied' >&2; exit 1")
    with pytest.raises(Unsupported, match=r"cannot isolate here \(setting up uid map.*allow user namespaces"):
        judged([(ADD, RIGHT)])
    monkeypatch.undo()
    assert judged([(ADD, RIGHT)])[0].passed  # a refusal is not remembered


def test_walls_that_let_everything_through_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What stands in for bubblewrap runs the program with no walls at all.
    script = (
        f'export PYTHONPATH="{Path(bubblewrap.__file__).parents[3]}"\n'
        'while [ "${1##*/python3}" = "$1" ] || [ "$2" != "-s" ]; do shift; done\nexec "$@"'
    )
    with pytest.raises(
        Unsupported, match=r"does not isolate here .*reads /etc/passwd.*makes a child.*sees the environment"
    ):
        bubblewrap.prove(fake_bwrap(tmp_path, script))


def test_a_sandbox_that_does_not_start_is_not_a_wrong_answer(tmp_path: Path) -> None:
    broken = fake_bwrap(tmp_path, "echo no room >&2; exit 1")
    with pytest.raises(EngineError, match=r"did not start \(no room\)"):
        asyncio.run(CodeSandbox(bwrap=broken).check(ADD, RIGHT))


@pytest.mark.parametrize("limits", [{"cpu": 0}, {"wall": 0}, {"wall": float("nan")}, {"memory": 1000}])
def test_limits_that_stop_python_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        CodeLimits(**limits)  # type: ignore[arg-type]


def test_filters() -> None:
    for machine in ("x86_64", "aarch64"):
        program = seccomp_filter(machine)
        assert program is not None
        assert len(program) % 8 == 0
    assert seccomp_filter("riscv64") is None
