"""A predictor as one file of JSON, `predictor.json`, or as a few plain values inside a policy.

Knows: names and order of the fields, the hash over everything behind it, and what makes a file unusable. Does not know
what is predicted. Nothing is pickled, and loading runs no code. It fails closed: another schema version or one changed
character is refused. Equal predictors are equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from outthink.controller.router.predictor import Predictor
from outthink.controller.stored import JsonObject
from outthink.core.errors import BadInput
from outthink.core.paths import write_file

SCHEMA = 2
FILE = "predictor.json"
DIGITS = 12
"""Decimals of a stored coefficient: the sum over a prompt's terms stays within 1e-9 of the fitted one."""
_FIELDS = [each.name for each in fields(Predictor) if each.init and each.name != "id"]
_FORMER = ("router.json", "difficulty.json")
_AGAIN = "train it again with `outthink router train`"
_refusal = partial(BadInput, "predictor")


def prompt_hash(prompt: str) -> str:
    """Sixteen hex digits by which a prompt is recognised without storing it; spaces and case do not count."""
    return hashlib.sha256(" ".join(prompt.lower().split()).encode()).hexdigest()[:16]


def save(folder: Path, predictor: Predictor) -> str:
    """Write `predictor.json`; returns its id. Nothing else in the folder, which is made if absent, is touched.

    Raises BadInput where it cannot be written.
    """
    parts = [f'"schema_version": {SCHEMA}']
    for name in _FIELDS:
        value = getattr(predictor, name)
        if name == "terms":
            shown = _lines(json.dumps(row, ensure_ascii=False) for row in value)
        elif name == "prompts":
            shown = _lines(map(json.dumps, sorted(set(value))))
        else:
            shown = json.dumps(_plain(value), indent=1, ensure_ascii=False)
        parts.append(f'"{name}": {shown}')
    text = ",\n".join(parts) + "\n}\n"
    mark = _hash(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / FILE, _head(mark) + text)
    except OSError as error:
        raise BadInput("--out", str(folder), f"cannot be written ({error.strerror})", "give a folder") from None
    return mark


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _head(mark: str) -> str:
    return f'{{\n"id": "{mark}",\n'


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _lines(items: Iterable[str]) -> str:
    """A JSON list, one item a line, so that two versions can be compared in review."""
    return "[\n" + ",\n".join(items) + "\n]"


def load(path: Path | str) -> Predictor:
    """The predictor in a file, or in a folder's `predictor.json`.

    Raises BadInput for a missing file, one of another version, and one with a changed character.
    """
    from outthink.validation import Border, read_json  # pydantic takes a tenth of a second to load

    text = _text(Path(path))
    head = text[: len(_head("0" * 64))]
    body = text[len(head) :]
    if head != _head(_hash(body)) or not body.startswith(f'"schema_version": {SCHEMA},'):
        raise _unusable(str(path), text)
    return read_json(Predictor, text, Border(source=f"predictor {path}", remedy=_AGAIN))


def _unusable(path: str, text: str) -> BadInput:
    try:
        content = json.loads(text)
        version = content["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return _refusal(path, f"is no {FILE}, or was changed after it was written", _AGAIN)
    if version != SCHEMA:
        return _refusal(path, f"has schema_version {version!r}, this is {SCHEMA}", _AGAIN)
    return _refusal(path, "was changed after it was written (its id differs)", _AGAIN)


def _text(path: Path) -> str:
    former = next((name for name in _FORMER if path.name == name or (path / name).is_file()), None)
    file = path / FILE if path.is_dir() else path
    if former is not None and not (path.is_dir() and file.is_file()):
        raise _refusal(str(path), f"holds the {former} of an earlier version", _AGAIN)
    try:
        # Not `read_text`, for which every kind of line end is one: a changed one is a changed character.
        return file.read_bytes().decode().replace(os.linesep, "\n")
    except FileNotFoundError:
        problem = f"has no {FILE}" if path.is_dir() else "does not exist"
        raise _refusal(str(path), problem, "give the file or folder of `outthink router train`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _refusal(str(path), f"cannot be read ({error})", _AGAIN) from None


# In a policy: a few dozen numbers a model.


_EMBEDDED = ("id", "models", "tokens_spread", "regime", "model")


def plain(predictor: Predictor) -> JsonObject:
    """Plain values for a policy. BadInput where it reads terms: their coefficients would be most of the policy."""
    if predictor.terms:
        raise _refusal(predictor.id, "reads terms of the prompt", "fit it on the counts alone")
    return {name: json.loads(json.dumps(_plain(getattr(predictor, name)))) for name in _EMBEDDED}


def of(values: JsonObject) -> Predictor:
    """From the plain values of a policy; BadInput for what is malformed, or was made with other hand features."""
    from outthink.validation import Border, read_values

    return read_values(Predictor, dict(values), Border(source="difficulty", remedy="calibrate again"))
