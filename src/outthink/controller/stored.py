"""What the controller's artefacts on disk have in common: plain JSON values.

Does not know what any artefact holds, how a file is written (`outthink.core.paths`) or read (`outthink.validation`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

JsonObject = Mapping[str, Any]
"""A JSON object that was read, or is about to be written."""
Json = str | float | None | Sequence["Json"] | Mapping[str, "Json"]


def plain_values(instance: DataclassInstance) -> JsonObject:
    """Plain values of a dataclass as they will be read again: lists for tuples."""
    values: JsonObject = json.loads(json.dumps(asdict(instance)))
    return values
