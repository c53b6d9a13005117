"""What of a JSON schema is evaluated: the rest may be malformed, or lead nowhere, and changes nothing.

Knows annotations, and which references a schema answers itself. Does not know jsonschema or texts.
"""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

from outthink.http.events import Json
from outthink.http.fields import JsonDict

DATA = frozenset(("const", "enum", "default", "examples"))  # keywords whose values are no schemas
REFERENCES = frozenset(("$ref", "$dynamicRef", "$recursiveRef"))
_NAMED = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"))
_ANNOTATIONS = frozenset(("title", "description", "$comment", "default", "examples", "deprecated", "format"))
_ANNOTATIONS |= {"readOnly", "writeOnly", "contentMediaType", "contentEncoding", "contentSchema"}
_MALFORMED = re.compile(
    r'"(?:title|description|\$comment|format|contentMediaType|contentEncoding)": [^"]'
    r'|"examples": [^\[]|"(?:deprecated|readOnly|writeOnly)": [^tf]|"contentSchema": [^{tf]'
)
"""An annotation that the drafts would refuse."""


def self_contained(schema: JsonDict) -> JsonDict:
    """A schema without what would not be evaluated and may be malformed: annotations, and references to elsewhere.

    References of a schema that gives its parts addresses (`$id`) are left as they are.
    """
    text = json.dumps(schema)
    address = '"id"' if "draft-0" in str(schema.get("$schema")) else '"$id"'
    told = address not in text and any(name in text for name in REFERENCES)
    if not told and _MALFORMED.search(text) is None:
        return schema
    return _kept(schema if told else None, schema)


def _kept(root: JsonDict | None, schema: JsonDict) -> JsonDict:
    kept = {name: inner for name, inner in schema.items() if name not in _ANNOTATIONS}
    if root is not None:
        kept = {name: inner for name, inner in kept.items() if not _is_foreign(root, name, inner)}
    return {name: _local(root, name, inner) for name, inner in kept.items()}


def _local(root: JsonDict | None, keyword: str, value: Json) -> Json:
    if keyword in DATA or not isinstance(value, dict | list):
        return value
    if isinstance(value, list):
        return [_local(root, "", item) for item in value]
    if keyword in _NAMED:  # the names are no keywords
        return {name: _local(root, "", inner) for name, inner in value.items()}
    return _kept(root, value)


def _is_foreign(root: JsonDict, keyword: str, target: Json) -> bool:
    """Whether this is a reference that nothing in a schema answers, nor a draft of JSON Schema."""
    if keyword not in REFERENCES or not isinstance(target, str):
        return False
    if not target.startswith("#"):
        return "json-schema.org/" not in target
    place: Json = root
    for name in unquote(target).split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(place, list):
            place = dict(zip(map(str, range(len(place))), place, strict=True))
        if not isinstance(place, dict) or name not in place:
            return True
        place = place[name]
    return False
