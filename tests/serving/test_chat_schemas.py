"""Schemas of clients: samples that break them have no vote, and no schema holds the event loop up."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.answers.reader import reader_for
from outthink.serving.chat.calls import CALLS_MARK, RawChoice
from outthink.serving.chat.votes import NO_CALL, answer_reader
from outthink.serving.failure import Failure
from outthink.verifiers.plain_schema import is_plain
from outthink.workers.pool import shared

jsonschema = pytest.importorskip("jsonschema")
NESTED = {f"n{i}": {"allOf": [{"$ref": f"#/$defs/n{i + 1}"}] * 2} for i in range(40)}
HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"pattern": "^(?=(a+)+$)"}, json.dumps("a" * 40 + "!")),
    ({"allOf": [{"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^(?=(a+)+$)"}]}, f'"{"a" * 40}!"'),
    ({"patternProperties": {"^(?=(a+)+$)": {}}, "additionalProperties": False}, json.dumps({"a" * 40 + "!": 1})),
    ({"$ref": "#"}, "3"),
    ({"$ref": "#/$defs/n0", "$defs": {**NESTED, "n40": {}}}, "3"),
]  # fmt: skip


def prepared(body: dict[str, Any]) -> Any:
    answer = answer_reader(body, None)
    asyncio.run(answer.prepare())  # type: ignore[union-attr]
    return answer


def structured(schema: dict[str, Any]) -> Any:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return prepared({"response_format": form})


def read(answer: Any, text: str) -> str | None:
    return asyncio.run(reader_for(answer).read(text)).answer


@pytest.mark.parametrize(("schema", "text"), HOSTILE)
def test_a_hostile_schema_costs_its_sample_and_not_the_event_loop(schema: dict[str, Any], text: str) -> None:
    answer = structured(schema)
    before = time.process_time()
    assert read(answer, text) is None
    assert time.process_time() - before < 1  # what works is a worker, and its limit is more than that
    assert reader_for(answer).read_now(text).answer is None


def test_patterns_are_heeded() -> None:
    answer = structured({"properties": {"code": {"pattern": "^[A-Z]{2}$"}}})
    assert read(answer, 'It is {"code": "DE"}.') == '{"code":"DE"}'
    assert read(answer, '{"code": "de"}') is None


def test_a_large_schema_and_a_long_answer_are_read_too() -> None:
    names = [f"name{i}" for i in range(500)]
    answer = structured({"required": names, "properties": {name: {"type": "integer"} for name in names}})
    text = json.dumps(dict.fromkeys(names, 3) | {"filler": "x" * 20_000})
    assert json.loads(str(read(answer, text)))["name7"] == 3
    assert read(answer, text.replace("3", '"3"', 1)) is None


def test_every_call_of_a_sample_must_fit() -> None:
    tool = {"name": "add", "parameters": {"properties": {"n": {"multipleOf": 0.01}}, "required": ["n"]}}
    answer = answer_reader({"tools": [{"type": "function", "function": tool}]}, None)

    def calls(*numbers: str) -> str:
        return CALLS_MARK + json.dumps([{"name": "add", "arguments": f'{{"n": {number}}}'} for number in numbers])

    assert read(answer, calls("20.01", "19.99")) == 'add({"n":19.99}); add({"n":20.01})'
    assert read(answer, calls("19.99", "20.005")) is None


@pytest.mark.parametrize("schema", [{"type": "nothing"}, {"pattern": "("}, {"multipleOf": 0}])
def test_what_is_no_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(Failure, match="is no valid JSON schema"):
        structured(schema)


@pytest.mark.parametrize(
    "keywords",
    [
        {"patternProperties": {"^x-": {"type": "string"}}},
        {"$comment": "no \\d", "title": "t", "examples": [{"$ref": "#/none"}], "default": {"$ref": "x:"}},
        {"$comment": 1, "title": None, "description": ["d"], "examples": {"a": 1}, "readOnly": "no", "format": None},
        {"contentSchema": 3, "deprecated": 0, "definitions": {"title": {"description": 1}}},
        {"format": "unheard-of", "contentMediaType": "a/b", "contentEncoding": "x", "contentSchema": {"type": "null"}},
        {"x-order": ["a"], "x-schema": {"$ref": "http://127.0.0.1:9/no.json"}, "nullable": True},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "#/$defs/nothing"},
        {"$dynamicRef": "other.json#node", "$vocabulary": {"https://example.org/v": True}},
        {"dependentSchemas": {"zz": False}, "unevaluatedProperties": True, "if": {"required": ["zz"]}, "then": False},
        {"$schema": "https://example.org/own-dialect"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_what_is_not_evaluated_changes_nothing_at_any_depth(keywords: dict[str, Any], depth: int) -> None:
    schema: dict[str, Any] = {**keywords, "properties": {"n": {"type": "integer"}}}
    wrong: Any = {"n": "x"}
    right: Any = {"n": 1}
    for _ in range(depth):
        schema = {"properties": {"const": schema}, "required": ["const"]}
        right, wrong = {"const": right}, {"const": wrong}
    answer = structured(schema)
    assert json.loads(str(read(answer, json.dumps(right)))) == right
    assert read(answer, json.dumps(wrong)) is None


def test_a_schema_may_be_nested_or_flat() -> None:
    schema = {"type": "object", "required": ["n"]}
    for form in (
        {"type": "json_schema", "schema": schema},
        {"type": "json_schema", "schema": schema, "name": "x", "strict": True},
        {"type": "json_schema", "json_schema": {"schema": schema}},
        {"type": "json_object", "schema": schema},
    ):
        answer = answer_reader({"response_format": form}, None)
        assert read(answer, '{"n": 1}') == '{"n":1}'
        assert read(answer, '{"m": 1}') is None
    for form in (
        {"type": "json_schema"},
        {"type": "json_schema", "schema": "n"},
        {"type": "json_schema", "json_schema": 3},
    ):
        with pytest.raises(Failure, match="has no schema"):
            answer_reader({"response_format": form}, None)


def test_references_within_a_schema_are_followed() -> None:
    schema = {
        "properties": {"a/b": {"$ref": "#/properties/n"}, "n": {"type": "integer"}, "$ref": {"type": "null"}},
        "allOf": [
            {"properties": {"a/b": {"$ref": "#/properties/a~1b"}, "c": {"$ref": "#/allOf/0/not"}}, "not": {"const": 1}}
        ],
    }
    answer = structured(schema)
    assert read(answer, '{"a/b": 2, "c": 1, "$ref": null}') is not None
    assert read(answer, '{"a/b": "x"}') is None
    assert read(answer, '{"c": 3}') is None
    assert read(answer, '{"$ref": 3}') is None


def test_marks_within_arguments_are_no_thinking_and_no_calls() -> None:
    answer = answer_reader({"tools": [{"type": "function", "function": {"name": "add"}}]}, None)
    choice = RawChoice()
    arguments = json.dumps({"code": "</think> <tool_calls> [/THINK] ```\n<think>"})
    made = {"index": 0, "id": "1", "function": {"name": "add", "arguments": arguments + " " * 70_000}}
    choice.add({"choices": [{"delta": {"tool_calls": [made]}}]})
    assert json.loads(str(read(answer, "<think>cut" + choice.tail))[4:-1]) == json.loads(arguments)


def test_words_that_look_like_calls_are_words() -> None:
    answer = answer_reader({"tools": [{"type": "function", "function": {"name": "add"}}]}, None)
    for text in ("<tool_calls>", 'I write <tool_calls>\n{"name": "add"}\n</tool_calls>', '<tool_calls>{"name": "add"}'):
        assert read(answer, text) == NO_CALL
    assert read(answer, "<think>The answer is 99?") is None


def test_a_tool_of_the_server_needs_no_schema() -> None:
    answer = answer_reader({"tools": [{"type": "web_search"}, {"type": "function", "function": {"name": "add"}}]}, None)
    choice = RawChoice()
    choice.add(
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "type": "web_search", "web_search": {"query": "q"}}]}}]}
    )
    assert read(answer, choice.tail) == 'web_search({"query":"q"})'
    for tools in ([{"type": ["function"]}], [3], [{"type": "function"}], [{"function": {}}]):
        with pytest.raises(Failure, match="has no name"):
            answer_reader({"tools": tools}, None)


USUAL = st.recursive(
    st.sampled_from([{"type": "string"}, {"type": "integer", "minLength": 1}, {"enum": [1, "a"]}, True, {}]),
    lambda inner: st.fixed_dictionaries(
        {"properties": st.dictionaries(st.text(max_size=3), inner, max_size=3)},
        optional={
            "required": st.lists(st.sampled_from(["a", "b", 1]), max_size=3),
            "items": inner,
            "additionalProperties": inner,
            "title": st.sampled_from(["x", 3]),
            "maxItems": st.sampled_from([3, -1, 0.5, True]),
            "enum": st.sampled_from([[], [1], 3]),
            "type": st.sampled_from(["object", "thing", ["string"]]),
            "minimum": st.just(3),
        },
    ),
    max_leaves=6,
)


@given(USUAL)
def test_what_is_plain_is_valid(schema: Any) -> None:
    if is_plain(schema):
        jsonschema.Draft202012Validator.check_schema(schema)


def test_schemas_of_many_properties_are_plain_and_cost_no_worker() -> None:
    properties = {f"property_{at}": {"type": "integer", "description": "of many"} for at in range(2000)}
    assert is_plain({"type": "object", "properties": properties, "required": list(properties)})
    assert is_plain({"type": "array", "items": {"type": "object", "additionalProperties": False}})


def test_one_schema_of_many_requests_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    submit = shared().submit
    monkeypatch.setattr(
        shared(), "submit", lambda name, *rest, **more: asked.append(name) or submit(name, *rest, **more)
    )
    schema = {"type": "object", "properties": {"once": {"type": ["string", "null"]}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}

    async def many() -> None:
        readers = [answer_reader({"response_format": form}, None) for _ in range(20)]
        await asyncio.gather(*(reader.prepare() for reader in readers))  # type: ignore[union-attr]
        await answer_reader({"response_format": form}, None).prepare()  # type: ignore[union-attr]

    asyncio.run(many())
    assert len(asked) == 1
