"""JSON answers: found in prose and fences, equal values as equal strings."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.answers import Reading, grade, read_sync

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


@pytest.mark.parametrize("text", ["", "no JSON", '{"a": NaN}', "{'a': 1}", '{"a": 1', "[" * 20_000, "[1," * 20_000])
def test_unreadable(text: str) -> None:
    assert read_sync("json", text) == Reading(None, "none")


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


@given(st.text() | st.text('{}[]",:01e. \\`\n'))
def test_odd_text_never_raises(text: str) -> None:
    reading = read_sync("json", text)
    assert (reading.answer is None) == (reading.rule == "none")
