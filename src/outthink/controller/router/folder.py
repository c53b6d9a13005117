"""A text model as a folder of JSON: a card for people, `terms.json` for the machine, `prompts.json` for refusals.

Knows: names and order of the fields, hashes, what makes a folder unusable. Does not know what the heads
predict. Nothing is pickled, and loading runs no code. It fails closed: another schema version or one
changed character is refused.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outthink.controller.router.model import Block, ModelRouter, Router, TextModel
from outthink.controller.router.text import KINDS, NAMES, READ, Kind
from outthink.controller.stored import JsonObject, write_file
from outthink.core.errors import BadInput

SCHEMA = 1
TERMS, PROMPTS = "terms.json", "prompts.json"
DIGITS = 12
"""Decimals of a stored coefficient: the sum over a prompt's terms stays within 1e-9 of the fitted one."""


def prompt_hash(prompt: str) -> str:
    """Sixteen hex digits by which a prompt is recognised without storing it; spaces and case do not count."""
    return hashlib.sha256(" ".join(prompt.lower().split()).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Folder:
    """Where one kind of text model is kept.

    Args:
        noun: what refusals call it; its card is `noun.json`.
        maker: of a folder that lacks a file, what would have made it.
        again: remedy for a folder that cannot be used.
    """

    noun: str
    maker: str
    again: str

    @property
    def card(self) -> str:
        """Name of the file that people read."""
        return f"{self.noun}.json"

    def save(self, folder: Path, model: TextModel, about: JsonObject, prompts: Iterable[str]) -> str:
        """Write a model; returns its id.

        Args:
            folder: made if absent; of what is there only the three files are replaced.
            about: everything of the card that the model does not hold: `created`, `data`, `regime`, ...
            prompts: `prompt_hash` of each training prompt.

        Raises BadInput where the folder cannot be written.
        """
        # Sorted, so that equal routers are equal bytes.
        texts = {TERMS: _terms_text(model), PROMPTS: _lines(json.dumps(mark) for mark in sorted(set(prompts)))}
        card = {
            "schema_version": SCHEMA,
            **about,
            "model": card_of(model),
            "files": {name: _hash(text) for name, text in texts.items()},
        }
        card = {"id": _identity(card), **card}  # the card holds the other files' hashes: one id covers the folder
        texts[self.card] = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():  # the card last: a folder half written has the hashes of another
                write_file(folder / name, text)
        except OSError as error:
            raise BadInput("--out", str(folder), f"cannot be written ({error.strerror})", "give a folder") from None
        return str(card["id"])

    def model(self, folder: Path, card: JsonObject) -> TextModel:
        """The model of a folder whose card was read; BadInput for a missing or changed file."""
        return model_of(card["model"], json.loads(self._unchanged(folder, card, TERMS)))

    def read_card(self, folder: Path) -> JsonObject:
        """The card, checked. BadInput for a missing file, another schema version or a changed character."""
        text = self._read(folder, self.card)
        try:
            card = json.loads(text)
            version = card["schema_version"]
        except (ValueError, KeyError, TypeError):
            raise BadInput(
                self.noun, str(folder / self.card), f"is not the card of a {self.noun}", self.again
            ) from None
        if version != SCHEMA:
            raise BadInput(self.noun, str(folder), f"has schema_version {version!r}, this is {SCHEMA}", self.again)
        stated = card.pop("id", None)
        if stated != _identity(card):
            raise self._changed(folder / self.card, "id")
        if not reads_alike(card["model"]):
            raise BadInput(self.noun, str(folder), "reads other hand features than this version has", self.again)
        return {"id": stated, **card}

    def trained_on(self, folder: Path) -> frozenset[str]:
        """`prompt_hash` of every training prompt; BadInput as for `model`."""
        return frozenset(json.loads(self._unchanged(folder, self.read_card(folder), PROMPTS)))

    def _unchanged(self, folder: Path, card: JsonObject, name: str) -> str:
        text = self._read(folder, name)
        if _hash(text) != card["files"][name]:
            raise self._changed(folder / name, "hash")
        return text

    def _changed(self, path: Path, what: str) -> BadInput:
        return BadInput(self.noun, str(path), f"was changed after it was written (its {what} differs)", self.again)

    def _read(self, folder: Path, name: str) -> str:
        try:
            return (folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise BadInput(self.noun, str(folder), f"has no {name}", f"give a folder of {self.maker}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(self.noun, str(folder / name), f"cannot be read ({error})", self.again) from None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _identity(card: JsonObject) -> str:
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


def reads_alike(card: JsonObject) -> bool:
    """Whether a stored model read prompts as this version does: the same hand features, of as many characters."""
    return bool(card["hand_features"] == list(NAMES) and card.get("characters_read") == READ)


def card_of(model: TextModel) -> JsonObject:
    """Everything of a model but its terms, as plain values."""
    return {
        "heads": list(model.heads),
        "platt": [list(pair) for pair in model.platt],
        "bias": list(model.bias),
        "hand_features": list(NAMES),
        "characters_read": READ,
        "hand_mean": list(model.mean),
        "hand_scale": list(model.scale),
        "hand_weight": model.hand_weight,
        "hand": [list(row) for row in model.hand],
        "documents": {block.kind: block.documents for block in model.blocks},
        "subjects": {name: list(values) for name, values in sorted(model.subjects.items())},
    }


def model_of(card: JsonObject, rows: list[list[Any]]) -> TextModel:
    """The model of plain values, with the rows of its terms."""
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


def _block(kind: Kind, card: JsonObject, rows: list[list[Any]]) -> Block:
    own = [row for row in rows if row[0] == kind]
    return Block(
        kind,
        card["documents"][kind],
        tuple(row[1] for row in own),
        tuple(row[2] for row in own),
        tuple(array("d", [row[3 + head] for row in own]) for head in range(len(card["heads"]))),
    )


# A router as a folder: `router.json`, `terms.json` and `prompts.json`.

ROUTERS = Folder("router", "`outthink router train`", "train the router again with `outthink router train`")


def load(folder: Path) -> Router:
    """The router in a folder; BadInput for a missing file, another schema version or a changed character."""
    card = ROUTERS.read_card(folder)
    if "gains" not in card:
        raise BadInput("router", str(folder), f"chooses among {', '.join(card['model']['heads'])}", "use load_choice")
    shortest, longest = card["regime"]["characters"]
    return Router(card["id"], ROUTERS.model(folder, card), shortest, longest, tuple(card["gains"]))


def load_choice(folder: Path) -> ModelRouter:
    """The router over several models in a folder; refusals as for `load`."""
    card = ROUTERS.read_card(folder)
    if "costs" not in card:
        raise BadInput("router", str(folder), "is one between a weak and a strong model", "use load")
    shortest, longest = card["regime"]["characters"]
    return ModelRouter(card["id"], ROUTERS.model(folder, card), tuple(card["costs"]), shortest, longest)
