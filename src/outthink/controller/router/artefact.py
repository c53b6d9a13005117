"""A router as a folder of JSON: `router.json` for people, `terms.json` for the machine, `prompts.json` for refusals.

Knows: names and order of the fields, hashes, what makes a folder unusable. Does not know how a router
decides. Nothing is pickled, and loading runs no code. It fails closed: another schema version or one
changed character is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from outthink.controller.router.features import NAMES
from outthink.controller.router.model import Block, Router, TextModel
from outthink.controller.router.tfidf import KINDS, Kind
from outthink.core.errors import BadInput

SCHEMA = 1
CARD, TERMS, PROMPTS = "router.json", "terms.json", "prompts.json"
DIGITS = 12
"""Decimals of a stored coefficient: the sum over a prompt's terms stays within 1e-9 of the fitted one."""
_AGAIN = "train the router again with `outthink router train`"


def prompt_hash(prompt: str) -> str:
    """Sixteen hex digits by which a prompt is recognised without storing it; spaces and case do not count."""
    return hashlib.sha256(" ".join(prompt.lower().split()).encode()).hexdigest()[:16]


def save(folder: Path, model: TextModel, about: Mapping[str, Any], prompts: Iterable[str]) -> str:
    """Write a router; returns its id.

    Args:
        folder: made if absent; of what is there only the three files of a router are replaced.
        about: everything of the card that the model does not hold: `created`, `data`, `regime`, `gains`, ...
        prompts: `prompt_hash` of each training prompt.

    Raises BadInput where the folder cannot be written.
    """
    texts = {TERMS: _terms_text(model), PROMPTS: _lines(json.dumps(mark) for mark in sorted(set(prompts)))}
    card = {
        "schema_version": SCHEMA,
        **about,
        "model": _card_of(model),
        "files": {name: _hash(text) for name, text in texts.items()},
    }
    card = {"id": _identity(card), **card}
    texts[CARD] = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():  # the card last: a folder half written has the hashes of another
            draft = folder / f".{name}.{os.getpid()}"
            draft.write_text(text, encoding="utf-8")
            os.replace(draft, folder / name)
    except OSError as error:
        raise BadInput("--out", str(folder), f"cannot be written ({error.strerror})", "give a folder") from None
    return str(card["id"])


def load(folder: Path) -> Router:
    """The router in a folder; BadInput for a missing file, another schema version or a changed character."""
    card = read_card(folder)
    text = _read(folder, TERMS)
    if _hash(text) != card["files"][TERMS]:
        raise BadInput("router", str(folder / TERMS), "was changed after it was written (its hash differs)", _AGAIN)
    model = _model_of(card["model"], json.loads(text))
    regime = card["regime"]
    shortest, longest = regime["characters"]
    return Router(card["id"], model, shortest, longest, tuple(card["gains"]))


def read_card(folder: Path) -> dict[str, Any]:
    """`router.json`, checked; the same refusals as `load`."""
    text = _read(folder, CARD)
    try:
        card = json.loads(text)
        version = card["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise BadInput("router", str(folder / CARD), "is not the card of a router", _AGAIN) from None
    if version != SCHEMA:
        raise BadInput("router", str(folder), f"has schema_version {version!r}, this is {SCHEMA}", _AGAIN)
    stated = card.pop("id", None)
    if stated != _identity(card):
        raise BadInput("router", str(folder / CARD), "was changed after it was written (its id differs)", _AGAIN)
    if card["model"]["hand_features"] != list(NAMES):
        raise BadInput("router", str(folder), "reads other hand features than this version has", _AGAIN)
    return {"id": stated, **card}


def trained_on(folder: Path) -> frozenset[str]:
    """`prompt_hash` of every training prompt; BadInput as for `load`."""
    card = read_card(folder)
    text = _read(folder, PROMPTS)
    if _hash(text) != card["files"][PROMPTS]:
        raise BadInput("router", str(folder / PROMPTS), "was changed after it was written (its hash differs)", _AGAIN)
    return frozenset(json.loads(text))


def _read(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput("router", str(folder), f"has no {name}", "give a folder of `outthink router train`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("router", str(folder / name), f"cannot be read ({error})", _AGAIN) from None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _identity(card: Mapping[str, Any]) -> str:
    return _hash(json.dumps(card, sort_keys=True, ensure_ascii=False))


def _lines(items: Iterable[str]) -> str:
    """A JSON list, one item a line, so that two versions can be compared in review."""
    return "[\n" + ",\n".join(items) + "\n]\n"


def _terms_text(model: TextModel) -> str:
    rows = (
        json.dumps([block.kind, *row], ensure_ascii=False)
        for block in model.blocks
        for row in zip(block.terms, block.frequencies, *block.coefficients, strict=True)
    )
    return _lines(rows)


def _card_of(model: TextModel) -> dict[str, Any]:
    return {
        "heads": list(model.heads),
        "platt": [list(pair) for pair in model.platt],
        "bias": list(model.bias),
        "hand_features": list(NAMES),
        "hand_mean": list(model.mean),
        "hand_scale": list(model.scale),
        "hand_weight": model.hand_weight,
        "hand": [list(row) for row in model.hand],
        "documents": {block.kind: block.documents for block in model.blocks},
        "subjects": {name: list(values) for name, values in sorted(model.subjects.items())},
    }


def _model_of(card: Mapping[str, Any], rows: list[list[Any]]) -> TextModel:
    return TextModel(
        heads=tuple(card["heads"]),
        bias=tuple(card["bias"]),
        mean=tuple(card["hand_mean"]),
        scale=tuple(card["hand_scale"]),
        hand_weight=card["hand_weight"],
        hand=tuple(map(tuple, card["hand"])),
        blocks=tuple(_block(kind, card, rows) for kind in KINDS if kind in card["documents"]),
        subjects={name: tuple(values) for name, values in card["subjects"].items()},
        platt=tuple((slope, shift) for slope, shift in card["platt"]),
    )


def _block(kind: Kind, card: Mapping[str, Any], rows: list[list[Any]]) -> Block:
    mine = [row for row in rows if row[0] == kind]
    return Block(
        kind,
        card["documents"][kind],
        tuple(row[1] for row in mine),
        tuple(row[2] for row in mine),
        tuple(array("d", [row[3 + head] for row in mine]) for head in range(len(card["heads"]))),
    )
