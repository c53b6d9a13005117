"""JSON answers: found in prose and fences, equal values as equal strings."""

from __future__ import annotations

import gc
import json
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.answers import Reading, grade, read_sync
from outthink.answers.text import read_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
containers = st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4)


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        ('```json\n{"b": 1.0, "a": [1e2, -0]}\n```', '{"a":[100,0],"b":1}', "json-block"),
        ('```json\n{"a": 1}\n```\nand\n```\n{"a": 2}\n```\ndone {"a": 3}', '{"a":2}', "json-block"),
        ('```python\nprint(1)\n```\n{"q": null}', '{"q":null}', "json"),
        ('First {"a": 1}, then {"a": {"b": [1, {}]}}; \\frac{1}{2}', '{"a":{"b":[1,{}]}}', "json"),
        ('{"x": "a}b\\""} tail {', '{"x":"a}b\\""}', "json"),
        ("[0.10, 2]", "[0.1,2]", "json"),
        ('  "word" ', '"word"', "json"),
        ('{"ü": "é"}', '{"ü":"é"}', "json"),
        ('["\\ud800"]', '["\\ud800"]', "json"),
    ],
)
def test_found_and_canonical(text: str, answer: str, rule: str) -> None:
    assert read_sync("json", text) == Reading(answer, rule)


@pytest.mark.parametrize(
    "text", ["", "no JSON", '{"a": NaN}', "{'a': 1}", '{"a": 1', "[" * 20_000, "[1," * 20_000, "[Infinity]"]
)
def test_unreadable(text: str) -> None:
    assert read_sync("json", text) == Reading(None, "none")


@pytest.mark.parametrize(
    "text",
    [
        '````json\n{"a": 1}\n````',
        '~~~\n{"a": 1}\n~~~',
        '~~~~ JSON\n{"a": 1}\n~~~~',
        '- here:\n  ```json\n  {\n    "a": 1\n  }\n  ```\n- not {"a": 5}',
        '> ```json\n> {"a":\n>   1}\n> ```',
        '```json {"a": 1}```',
        'Here: ```{"a": 1}``` and not {"a": 4}',
        '```json {"a": 1}\n```',
        '```json\n{"a": 1}```',
        '```json\n{"a": 1}',
        '```json\n{"a": 1}\n\nIts fence was never closed.',
        '```json\r\n{"a": 1}\r\n```\r\n',
        '```json title="x.json"\n{"a": 1}\n```',
        '```jsonc\n// what was asked\n{"a": 1}\n```',
        '```jsonl\n{"a": 5}\n{"a": 1}\n```',
        '```\n{"a": 1}\n```\n```python\nprint({"a": 5})\n```',
        '```json\n{"a": 5}\n```\nFixed:\n```json\n{"a": 1}\n```',
    ],
)
def test_code_blocks(text: str) -> None:
    assert read_sync("json", text) == Reading('{"a":1}', "json-block")


def test_fences_within_fences() -> None:
    assert read_sync("json", '["~~~json [1]~~~"]') == Reading('["~~~json [1]~~~"]', "json")
    assert read_sync("json", '````markdown\n```json\n{"a": 1}\n```\n````').answer == '{"a":1}'
    assert read_sync("json", '```json\n{"a": "```py```"}\n```').answer == '{"a":"```py```"}'


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("[1.0, 1e0, 10e-1, 0.1E+1]", "[1,1,1,1]"),
        ("[-0, 0e5, -0.0, 0e-999]", "[0,0,0,0]"),
        ("[0.10, 1e-1]", "[0.1,0.1]"),
        ("[9007199254740993, 9007199254740992.0]", "[9007199254740993,9007199254740992]"),
        ("[1e400, 10e399, 0.001e403]", "[1e400,1e400,1e400]"),
        ("[1e-301, 0.1e-300]", "[1e-301,1e-301]"),
        ("[1e99999999999999999999]", "[1e99999999999999999999]"),
        ("[1e" + "9" * 5000 + "]", None),
        ("1" * 5000, "1" * 5000),
        ('{"a": 2, "a": 1}', '{"a":1}'),
        ('{"a": 5}\n{"a": 1}', '{"a":1}'),
        ('\ufeff{"a": 1}', '{"a":1}'),
        ('["\ud800", "\\ud83d\\ude00"]', '["\\ud800","😀"]'),
        ("[" * 200 + "]" * 200, "[" * 200 + "]" * 200),
        ("[" * 201 + "]" * 201, None),
        ('{"a": 5} and ' + "[" * 201 + "]" * 201, None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values(text: str, answer: str | None) -> None:
    assert read_sync("json", text).answer == answer


@settings(deadline=None)
@given(st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?", fullmatch=True))
def test_numbers_are_exact(literal: str) -> None:
    canonical = read_sync("json", f"[{literal}]").answer
    assert canonical is not None
    assert read_sync("json", canonical).answer == canonical
    assert Decimal(canonical[1:-1]) == Decimal(literal)


@settings(deadline=None)
@given(containers)
def test_layout_does_not_matter(value: object) -> None:
    compact = read_sync("json", json.dumps(value)).answer
    assert compact is not None
    shuffled = dict(reversed(value.items())) if isinstance(value, dict) else value
    assert read_sync("json", f"Here:\n```json\n{json.dumps(shuffled, indent=2)}\n```").answer == compact
    assert read_sync("json", f"It is {json.dumps(shuffled, ensure_ascii=False)}, I say").answer == compact
    assert read_sync("json", compact).answer == compact
    assert grade("json", compact, json.dumps(shuffled))
    # Canonical numbers are exact, floats are not: compare as floats.
    assert json.loads(compact, parse_int=float) == json.loads(json.dumps(value), parse_int=float)


@settings(deadline=None)
@given(st.text() | st.text('{}[]",:01e. \\`\n'))
def test_odd_text_never_raises(text: str) -> None:
    reading = read_sync("json", text)
    assert (reading.answer is None) == (reading.rule == "none")


@pytest.mark.timing
@pytest.mark.parametrize(
    "unit", ["```\n", "```\n~~~\n", "[1,", '{"', "[1, x] ", '```json {"', "`" * 17, "x ```\n", '{"a":1}']
)
def test_takes_linear_time(unit: str) -> None:
    def spent(length: int) -> float:
        text = unit * (length // len(unit))
        gc.disable()  # how long a collection takes depends on what other tests have left
        try:
            started = time.process_time()
            read_json(text)
            return time.process_time() - started
        finally:
            gc.enable()

    few, many = (min(spent(length) for _ in range(3)) for length in (6_000, 60_000))
    assert many < 40 * few + 0.002, "ten times the text; a hundred times the time if each start looked at all others"
