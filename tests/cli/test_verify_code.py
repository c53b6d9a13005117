"""`verify --verifier code` on problems as HumanEval and MBPP publish them, and samples as models write them."""

# ruff: noqa: E501 - programs stand in one line

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from outthink.core.errors import Unsupported
from outthink.verifiers.code.walls import bubblewrap

NODE = "class Node:\n    def __init__(self, v):\n        self.v, self.left, self.right = v, None, None\n"
MBPP = {
    1: ("def sort_it(a):\n    a.sort()\n", ["a = [2, 1]; sort_it(a); assert a == [1, 2]"], ""),
    2: ("def check(n):\n    return n == n[::-1]\n", ["assert check('aba') == True", "assert check('ab') == False"], ""),
    3: (NODE + "def height(n):\n    return 0 if n is None else 1 + max(height(n.left), height(n.right))\n",
        ["assert (height(root)) == 2"], "root = Node(1)\nroot.left = Node(2)"),
    4: ("import math\ndef area(r):\n    return math.pi * r * r\n", ["assert math.isclose(area(1), 3.14159265, rel_tol=1e-6)"], ""),
    5: ("def only(a, t):\n    return [x for x in a if isinstance(x, t)]\n", ["assert only((4, 'a', 7.7), int) == [4]"], ""),
}  # fmt: skip
HEAD = 'def inc(x):\n    """ One more.\n    """\n'
CHECK = "def check(candidate):\n    assert candidate(1) == 2\n"


@pytest.fixture(autouse=True)
def possible() -> None:
    try:
        bubblewrap()
    except Unsupported as why:
        pytest.skip(str(why))


def scores(cli: Any, folder: Path, problems: Sequence[dict[str, Any]], samples: Sequence[dict[str, Any]]) -> list[Any]:
    """The score of each sample, None where it has none; and what was said on the way."""
    for name, rows in (("problems", problems), ("samples", samples)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = folder / "samples.jsonl", "--problems", folder / "problems.jsonl", "--out", folder / "out.jsonl"
    done = cli("verify", *files, "--verifier", "code")
    assert done.code == 0, done.err
    scored = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    return [*(row["score"] for row in scored), done.err]


def test_mbpp_as_it_is_published(cli, tmp_path) -> None:
    problems = [
        {"task_id": key, "text": "Write it.", "code": code, "test_list": tests, "test_setup_code": setup}
        for key, (code, tests, setup) in MBPP.items()
    ]
    texts = {
        key: (code, f"So:\n~~~py\n{code}~~~\n", code.replace("return", "return not"))
        for key, (code, *_) in MBPP.items()
    }
    texts[1] = (*texts[1][:2], "def sort_it(a):\n    return sorted(a)\n")
    samples = [{"problem_id": key, "text": text} for key, three in texts.items() for text in three]
    assert scores(cli, tmp_path, problems, samples)[:-1] == [1, 1, 0] * len(MBPP)


def test_humaneval_as_it_is_published(cli, tmp_path) -> None:
    problem = {"task_id": "HumanEval/0", "prompt": HEAD, "entry_point": "inc", "test": CHECK}
    body, whole = "    return x + 1\n", f"```python\n{HEAD}    return x + 1\n```"
    thought = "<think>\n```python\ndef inc(x): return 0\n```</think>\n"
    texts = {
        body: 1,
        whole: 1,
        f"```\n{body}```": 1,
        f"{whole}\nFixed:\n```python\ndef inc(x):\n    return x\n```\n": 0,
        f"```python\ndef inc(x):\n    return x\n```\nFixed:\n{whole}\n": 1,
        thought + whole: 1,
        f"<think>{whole}": 0,  # cut while it thinks
        f"<think>{whole}</think>": 0,
        body + "\nif __name__ == '__main__':\n    print(inc(int(input())))\n": 1,
    }
    samples = [{"task_id": "HumanEval/0", "completion": text} for text in texts]
    assert scores(cli, tmp_path, [problem], samples)[:-1] == list(texts.values())


def test_what_proves_nothing_has_no_score(cli, tmp_path) -> None:
    tests = {"a": CHECK, "b": "def check(candidate):\n    pass\n", "c": None, "d": "def check(candidate:\n"}
    problems = [{"task_id": key, "prompt": HEAD, "entry_point": "inc", "test": test} for key, test in tests.items()]
    samples = [{"task_id": key, "completion": f"    return x + {by}\n"} for key in tests for by in (1, 2)]
    *found, said = scores(cli, tmp_path, problems, samples)
    assert found == [1, 0, None, None, None, None, None, None]
    assert "it never calls inc" in said
