"""The schema verifier: JSON in a text against a schema."""

from __future__ import annotations

import asyncio
import builtins
from typing import Any

import pytest

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
