"""The file `verifier.json` of a verifier folder.

Knows: its fields and what they may hold. Does not know weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outthink.core.errors import BadInput
from outthink.verifiers.protocol import AGGREGATIONS, Aggregation, Kind

FILE = "verifier.json"
EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """What a trained verifier says of itself.

    Args:
        format: name of its input format.
        base: `embedded`, a hub name, or the path of a folder or GGUF file relative to the folder; unused
            without an adapter.
        adapter: the folder holds a PEFT adapter, not a whole model.
        layers: how many of the base's layers the adapter was trained on, None for all.
        temperature: divides the logit.
        parameters: weights read for a token, as its trainer counted them; None if it did not.
    """

    id: str
    format: str = "newline"
    base: str = EMBEDDED
    adapter: bool = False
    layers: int | None = None
    separator: str = "\n"
    aggregation: Aggregation = "last"
    kind: Kind = "process"
    max_context: int | None = None
    parameters: int | None = None
    temperature: float = 1.0


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (lambda value: isinstance(value, str) and bool(value.strip()), "a name"),
    "format": (lambda value: isinstance(value, str), "a format's name"),
    "base": (lambda value: isinstance(value, str) and bool(value), "'embedded', a hub name or a path"),
    "adapter": (lambda value: isinstance(value, bool), "true or false"),
    "layers": (lambda value: value is None or _count(value), "a number of layers"),
    "separator": (lambda value: isinstance(value, str) and bool(value), "a text that ends a step"),
    "aggregation": (lambda value: value in AGGREGATIONS, "one of " + ", ".join(AGGREGATIONS)),
    "kind": (lambda value: value in ("process", "outcome"), "'process' or 'outcome'"),
    "max_context": (lambda value: value is None or _count(value), "a number of tokens"),
    "parameters": (lambda value: value is None or _count(value), "a number of weights"),
    "temperature": (lambda value: isinstance(value, int | float) and 0 < value < 1e6, "a number above 0"),
}


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def read_artefact(folder: Path) -> Artefact:
    """Read a folder's `verifier.json`; fields it does not know are left alone. Raises BadInput."""
    path = folder / FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput("verifier", str(path), f"cannot be read ({error})", "train it again or copy it anew") from error
    if not isinstance(fields, dict):
        raise BadInput("verifier", str(path), "holds no JSON object", "train it again or copy it anew")
    fields.setdefault("id", folder.resolve().name)
    for name, (fits, wanted) in _RULES.items():
        if name in fields and not fits(fields[name]):
            raise BadInput(f"{FILE}: {name}", fields[name], "is not usable", f"give {wanted}")
    return Artefact(**{name: fields[name] for name in _RULES if name in fields})
