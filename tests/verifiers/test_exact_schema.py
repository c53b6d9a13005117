"""The schema verifier: JSON in a text against a schema."""

# ruff: noqa: E501 - schemas stand in one line

from __future__ import annotations

import asyncio
import builtins
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.answers import reader as json_value
from outthink.core.errors import BadInput
from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.verifiers.checks import SchemaVerifier
from outthink.verifiers.protocol import Score

REQUEST = Request.of("Where?", answer="json")
PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer", "minimum": 0}},
    "required": ["city"],
}


def read(text: str) -> str | None:
    return json_value.read_json(text).answer


def judge(schema: Any, *texts: str, read: Any = read) -> list[Score]:
    pytest.importorskip("jsonschema")
    candidates = [Candidate((text,)) for text in texts]
    return asyncio.run(SchemaVerifier(schema, read=read).score(REQUEST, candidates))


def test_values_are_judged_by_the_schema() -> None:
    scores = judge(
        PLACE, 'Here:\n```json\n{"city": "Bonn", "people": 1}\n```', '{"people": 1}', '{"city": "Bonn", "people": -1}'
    )
    assert [score.steps for score in scores] == [(1.0,), (0.0,), (0.0,)]
    assert scores[1].message == "$: 'city' is a required property"
    assert scores[2].message == "$.people: -1 is less than the minimum of 0"


def test_no_json_is_wrong_and_null_is_json() -> None:
    assert judge(PLACE, "Bonn, I think.")[0] == Score((0.0,), message="no JSON found")
    assert judge({"type": "null"}, "null")[0].steps == (1.0,)


def test_what_the_reader_finds_must_be_json() -> None:
    (score,) = judge(PLACE, "x", read=lambda text: "{city}")
    assert score.steps == (0.0,)
    assert score.message.startswith("not readable as JSON")


@pytest.mark.parametrize("schema", [{"type": "place"}, {"required": "city"}, {"minimum": "low"}, "object", 7, None])
def test_an_invalid_schema_is_refused_at_once(schema: Any) -> None:
    pytest.importorskip("jsonschema")
    with pytest.raises(BadInput, match="schema"):
        SchemaVerifier(schema, read=read)


def test_the_schema_names_its_draft() -> None:
    draft4 = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": True}
    assert [score.steps for score in judge(draft4, "3", "4")] == [(0.0,), (1.0,)]
    with pytest.raises(BadInput):  # a number there since draft 6
        judge({"minimum": 3, "exclusiveMinimum": True}, "3")


def test_references_stay_inside_the_schema() -> None:
    assert judge({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, "3")[0].steps == (1.0,)
    with pytest.raises(BadInput, match="refers to something it does not hold"):
        judge({"$ref": "http://127.0.0.1:9/schema.json"}, "3")


def test_without_jsonschema_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_jsonschema(name: str, *rest: Any, **named: Any) -> Any:
        if name == "jsonschema":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", no_jsonschema)
    with pytest.raises(BadInput, match=r"pip install '\.\[schema\]'"):
        SchemaVerifier(PLACE, read=read)


def passes(schema: Any, *texts: str) -> list[tuple[float, ...]]:
    return [score.steps for score in judge(schema, *texts)]


RIGHT, WRONG = (1.0,), (0.0,)
UNSCORED: tuple[float, ...] = ()


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"multipleOf": 0.01}, ["19.99", "0", "-0.03", "1e2", "1e400", "1.10"], ["20.005", "1e-3", "1e-400"]),
        ({"multipleOf": 0.1}, ["0.3", "1.9", "92.6", "10.1"], ["0.35"]),
        ({"multipleOf": 3}, ["9", "9.0", "3e5", "9" * 4000, "9" * 6000], ["1e3", "0.3", "1" + "0" * 4000]),
        ({"minimum": 0.1}, ["0.1", "0.1000000000000000000001"], ["0.09999999999999999999999"]),
        ({"type": "integer"}, ["1", "1.0", "1e2", "1e400"], ["1.5", "1e-400", "true"]),
        ({"enum": [0.1, {"a": 1}]}, ["0.1", "0.10", '{"a": 1.0}'], ["0.10000000000000001", '{"a": true}']),
        (
            {"uniqueItems": True},
            ["[1, true, [1], [true], 2]", "[]"],
            ["[1, 1.0]", '[{"a": 1, "b": 2}, {"b": 2, "a": 1.0}]'],
        ),
    ],
)
def test_numbers_are_the_decimals_that_were_written(schema: Any, right: list[str], wrong: list[str]) -> None:
    assert passes(schema, *right, *wrong) == [RIGHT] * len(right) + [WRONG] * len(wrong)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**6), 10**6), st.integers(1, 10**4), st.integers(0, 6), st.integers(1, 9))
def test_a_multiple_is_one_whatever_the_scale(count: int, part: int, places: int, off: int) -> None:
    pytest.importorskip("jsonschema")
    from decimal import Decimal

    from outthink.verifiers.schema import is_multiple

    of = Decimal(part).scaleb(-places)
    assert is_multiple(of * count, of)
    assert not is_multiple(of * count + of * off / 10, of)


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "^(a+)+$"},
        {"pattern": "^(?=(a+)+$)"},
        {"allOf": [{"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^(a+)+$"}]},
    ],
)
def test_a_pattern_that_backtracks_costs_its_own_row_alone(schema: Any) -> None:
    hostile, right, wrong = '"' + "a" * 40 + '!"', '"aaaa"', '"b"'
    first, *others = passes(schema, hostile, right, wrong)
    assert first in (WRONG, UNSCORED)
    assert others == [RIGHT, WRONG]


@pytest.mark.parametrize("keyword", ["additionalProperties", "unevaluatedProperties"])
def test_patterns_of_names_that_backtrack(keyword: str) -> None:
    schema = {"patternProperties": {"^(a+)+$": {"type": "integer"}}, keyword: False}
    first, *others = passes(schema, json.dumps({"a" * 40 + "!": 1}), '{"aa": 1}', '{"aa": "x"}', '{"b": 1}')
    assert first in (WRONG, UNSCORED)
    assert others == [RIGHT, WRONG, WRONG]


def test_a_pattern_fits_anywhere_and_its_end_is_the_end() -> None:
    assert passes({"pattern": "b"}, '"abc"', '"ac"', "3") == [RIGHT, WRONG, RIGHT]
    assert passes({"pattern": "^a$"}, '"a"', '"a\\n"') == [RIGHT, WRONG]
    assert passes({"pattern": r"^\u00e9$"}, '"é"', '"e"') == [RIGHT, WRONG]


@pytest.mark.parametrize(
    ("pattern", "right", "wrong"),
    [
        (r"^\d$", "3", "٣"),
        (r"^\w$", "a", "é"),
        (r"^\s$", "\u00a0", "x"),
        (r"^[\s]$", "\ufeff", "x"),
        (r"^\S$", "x", "\u2029"),
        ("^.$", "😀", "\r"),
        ("a$|(b$)", "xb", "b\n"),
        (r"^\u{1F600}$", "😀", "x"),
        (r"^\ud83d\ude00$", "😀", "x"),
        (r"^[\u005d\u005e\u002d]$", "^", "\\"),
        ("^[^]$", "\n", ""),
        ("^[[]$", "[", "x"),
        ("^[a&&b||]$", "&", "x"),
        (r"^(?<y>\d)\k<y>$", "11", "12"),
        ("(?<=a)b", "ab", "cb"),
        (r"\\Z", r"\Z", "Z"),
        ("^[.$]$", "$", "x"),
    ],
)
def test_patterns_are_those_of_ecmascript(pattern: str, right: str, wrong: str) -> None:
    assert passes({"pattern": pattern}, json.dumps(right), json.dumps(wrong)) == [RIGHT, WRONG]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"if": {"$ref": "#"}, "then": True},
        {"unevaluatedProperties": False, "$ref": "#"},
        {"$dynamicAnchor": "n", "$dynamicRef": "#n"},
    ],
)
def test_a_schema_without_end_leaves_its_text_unscored(schema: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def deeper(calls: int) -> list[tuple[float, ...]]:
        return deeper(calls - 1) if calls else passes(schema, "{}")

    for calls in range(25):  # where Python's limit is met depends on the calls before
        assert deeper(calls) == [UNSCORED]
    assert capfd.readouterr().err == ""


def test_a_schema_that_is_nested_too_deeply_is_refused() -> None:
    pytest.importorskip("jsonschema")
    schema: Any = {}
    for _ in range(300):
        schema = {"properties": {"a": {"allOf": [schema]}}}
    with pytest.raises(BadInput, match="nested too deeply"):
        SchemaVerifier(schema, read=read)


def test_a_number_beyond_computing_is_unscored() -> None:
    assert passes({"type": "number"}, "1e99999999999999999999", "1e9999") == [UNSCORED, RIGHT]


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}, "minimum": 5}, "7", "3"),
        ({"$schema": "http://json-schema.org/draft-07/schema", "$ref": "#/definitions/n", "definitions": {"n": {"type": "null"}}}, "null", "3"),
        ({"$schema": "https://json-schema.org/draft/2019-09/schema#", "$anchor": "n", "properties": {"n": {"$ref": "#n"}}, "type": "object"}, '{"n": {}}', '{"n": 3}'),
        ({"$schema": "https://example.org/ours", "type": "object"}, "{}", "[]"),
        ({"$id": "https://example.org/n", "$ref": "https://example.org/n#/$defs/n", "$defs": {"n": {"type": "integer"}}}, "3", '"x"'),
        ({"$dynamicAnchor": "n", "type": "object", "properties": {"n": {"$dynamicRef": "#n"}}}, '{"n": {}}', '{"n": 3}'),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", '"x"'),
        ({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}]}, "4", "6"),
        ({"if": {"type": "integer"}, "then": {"minimum": 3}, "else": {"maxLength": 1}}, "4", '"xx"'),
        ({"not": {"type": "string"}}, "4", '"x"'),
        ({"$ref": "http://json-schema.org/draft-07/schema#"}, '{"type": "object"}', '{"type": 3}'),
        ({"const": None}, "null", "0"),
    ],
)  # fmt: skip
def test_keywords_at_the_root(schema: Any, right: str, wrong: str) -> None:
    assert passes(schema, right, wrong) == [RIGHT, WRONG]


def test_true_and_false_are_schemas() -> None:
    assert (passes(True, "3"), passes(False, "3")) == ([RIGHT], [WRONG])


CLOSED = {"unevaluatedProperties": False, "properties": {"a": {"type": "integer"}}}
"""A schema that is never checked in place."""


def doubling(depth: int) -> Any:
    """A schema whose check takes 2 to the power of `depth` steps."""
    definitions: dict[str, Any] = {f"n{i}": {"allOf": [{"$ref": f"#/$defs/n{i + 1}"}] * 2} for i in range(depth)}
    return {"$ref": "#/$defs/n0", "$defs": {**definitions, f"n{depth}": {"type": "integer"}}}


@pytest.mark.parametrize("schema", [{"$ref": "#"}, doubling(40)])
def test_a_schema_without_an_end_has_no_score(schema: Any) -> None:
    (score,) = judge(schema, "3")
    assert score.steps == UNSCORED
    assert score.message


def test_what_takes_long_is_judged_apart_and_in_order() -> None:
    long = json.dumps(list(range(5000)))
    assert passes(CLOSED, '{"a": 1}', '{"b": 1}', '{"a": 2}') == [RIGHT, WRONG, RIGHT]
    assert passes({"items": {"type": "integer"}}, "[1]", long, '["x"]', "no JSON") == [RIGHT, RIGHT, WRONG, WRONG]


@pytest.mark.parametrize("schema", [{"pattern": "("}, {"multipleOf": 0}, {"minimum": float("nan")}])
def test_what_no_check_could_use_is_refused_at_once(schema: Any) -> None:
    pytest.importorskip("jsonschema")
    with pytest.raises(BadInput, match="schema"):
        SchemaVerifier(schema, read=read)


def test_a_schema_nested_too_deeply_is_refused() -> None:
    pytest.importorskip("jsonschema")
    schema: Any = True
    for _ in range(2000):
        schema = {"not": schema}
    with pytest.raises(BadInput, match="nested too deeply"):
        SchemaVerifier(schema, read=read)


def test_scores_without_an_event_loop() -> None:
    pytest.importorskip("jsonschema")
    work = SchemaVerifier(CLOSED, read=read).score(REQUEST, [Candidate(('{"a": 1}',))])
    with pytest.raises(StopIteration) as end:
        work.send(None)  # as a replayed session drives it
    assert end.value.value[0].steps == RIGHT
