"""Difficulty heads as a folder of JSON, or as a few plain values inside another artefact.

Knows: what their card holds beyond the text model. Does not know the format (`controller.router.folder`)
nor what a policy does with the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from outthink.controller.difficulty.head import Difficulty
from outthink.controller.router.folder import Folder, card_of, model_of, reads_alike
from outthink.controller.router.model import TextModel
from outthink.core.errors import BadInput

_AGAIN = "train it again with outthink.evaluation.difficulty"
_FOLDER = Folder("difficulty", "outthink.evaluation.difficulty", _AGAIN)


def save(folder: Path, found: Difficulty, about: Mapping[str, Any], prompts: Iterable[str]) -> str:
    """Write `difficulty.json`, `terms.json` and `prompts.json`; returns the id.

    Args:
        about: what else the card says: `created`, `data`, `held_out`, ...
        prompts: `prompt_hash` of each training prompt.

    Raises BadInput where the folder cannot be written.
    """
    return _FOLDER.save(folder, found.text, {**about, **_about(found)}, prompts)


def load(folder: Path) -> Difficulty:
    """The heads in a folder; BadInput for a missing file, another schema version or a changed character."""
    card = _FOLDER.read_card(folder)
    return _difficulty(card["id"], card, _FOLDER.model(folder, card))


def trained_on(folder: Path) -> frozenset[str]:
    """`prompt_hash` of every training prompt; BadInput as for `load`."""
    return _FOLDER.trained_on(folder)


def plain(found: Difficulty) -> dict[str, Any]:
    """Plain values for a policy. BadInput where it reads terms: their coefficients would be most of the policy."""
    if found.text.blocks:
        raise BadInput("difficulty", found.id, "reads terms of the prompt", "fit it on the counts alone")
    return {"id": found.id, **_about(found), "model": card_of(found.text)}


def of(values: Mapping[str, Any]) -> Difficulty:
    """From plain values; BadInput for what is malformed, or was made with other hand features."""
    try:
        if not reads_alike(values["model"]):
            raise BadInput("difficulty", values["id"], "reads other hand features than this version has", _AGAIN)
        return _difficulty(values["id"], values, model_of(values["model"], []))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput("difficulty", type(error).__name__, f"is malformed ({error})", _AGAIN) from None


def _about(found: Difficulty) -> dict[str, Any]:
    return {
        "models": list(found.models),
        "tokens_spread": [list(pair) for pair in found.spread],
        "regime": {"characters": [found.shortest, found.longest]},
    }


def _difficulty(mark: str, values: Mapping[str, Any], text: TextModel) -> Difficulty:
    shortest, longest = values["regime"]["characters"]
    return Difficulty(
        id=str(mark),
        models=tuple(values["models"]),
        text=text,
        spread=tuple((float(low), float(high)) for low, high in values["tokens_spread"]),
        shortest=int(shortest),
        longest=int(longest),
    )
