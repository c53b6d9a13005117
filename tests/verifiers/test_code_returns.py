"""Whatever tested code returns or raises, its own sample fails, and the others of the run are judged."""

from __future__ import annotations

import asyncio

import pytest
from hostile.returns import RETURNS, TESTS

from outthink.core.errors import BadInput, Unsupported
from outthink.verifiers.code import CodeLimits, CodeProblem, CodeSandbox, check_all
from outthink.verifiers.code.walls import bubblewrap

SANDBOX = CodeSandbox(CodeLimits(cpu=1, wall=60.0, memory=2**29))
RIGHT = "def f(x): return 3"


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    try:
        bubblewrap()
    except Unsupported as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("test", TESTS)
def test_one_sample_fails_and_the_others_are_judged(test: str) -> None:
    problem = CodeProblem("", "f", TESTS[test])
    programs = [RIGHT, *RETURNS.values(), RIGHT]
    verdicts = asyncio.run(check_all([(problem, program) for program in programs], SANDBOX, workers=4))
    passed = [name for name, verdict in zip(RETURNS, verdicts[1:-1], strict=True) if verdict.passed]
    assert passed == []
    assert verdicts[0].passed is verdicts[-1].passed is True, verdicts[0]
    for verdict in verdicts[1:-1]:
        assert verdict.message
        assert verdict.message.isprintable()
        verdict.message.encode()


@pytest.mark.parametrize(
    ("test", "code"),
    [
        ("for _ in range(N): pass\nassert f(1) == 3", "N = 'many'\ndef f(x): return 3"),
        ("if READY: assert f(1) == 3", "READY = False\ndef f(x): return 3"),
        ("x = K()\nassert f(x) == 3", "class K:\n    def __init__(s): raise SystemExit\ndef f(x): return 3"),
        ("class Mine(K): pass\nassert f(Mine()) == 3", "class K: pass\ndef f(x): return 3"),
        (
            "name = f.__name__ + '!'\nassert f(1) == 3",
            "def f(x): return 3\nclass F:\n    __name__ = 5\n    __call__ = f\nf = F()",
        ),
        ("x = {f: 1}\nassert f(1) == 3", "class F:\n    __hash__ = None\nf = F()"),
        (
            "x = repr(f)\nassert f(1) == 3",
            "class F:\n    def __repr__(s): return 5\n    def __call__(s, x): return 3\nf = F()",
        ),
    ],
)
def test_names_of_the_code_that_break_the_test_are_no_broken_test(test: str, code: str) -> None:
    verdict = asyncio.run(SANDBOX.check(CodeProblem("", "f", test), code))
    assert not verdict.passed
    assert verdict.message


@pytest.mark.parametrize("test", ["def check(c): c(object())", "def check(c): nothing", "def check(c): pass", "1 / 0"])
def test_a_test_that_is_broken_for_every_code_still_is(test: str) -> None:
    with pytest.raises(BadInput, match="has a test that cannot be used"):
        asyncio.run(SANDBOX.check(CodeProblem("", "f", test), RIGHT))
