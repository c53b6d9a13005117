"""Schemas of clients: samples that break them have no vote, and no schema holds the event loop up."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from outthink.answers.reader import reader_for
from outthink.serving.chat.calls import CALLS_MARK
from outthink.serving.chat.votes import answer_reader
from outthink.serving.failure import Failure

pytest.importorskip("jsonschema")
NESTED = {f"n{i}": {"allOf": [{"$ref": f"#/$defs/n{i + 1}"}] * 2} for i in range(40)}
HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"pattern": "^(?=(a+)+$)"}, json.dumps("a" * 40 + "!")),
    ({"allOf": [{"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^(?=(a+)+$)"}]}, f'"{"a" * 40}!"'),
    ({"patternProperties": {"^(?=(a+)+$)": {}}, "additionalProperties": False}, json.dumps({"a" * 40 + "!": 1})),
    ({"$ref": "#"}, "3"),
    ({"$ref": "#/$defs/n0", "$defs": {**NESTED, "n40": {}}}, "3"),
]  # fmt: skip


def structured(schema: dict[str, Any]) -> Any:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return answer_reader({"response_format": form}, None)


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
