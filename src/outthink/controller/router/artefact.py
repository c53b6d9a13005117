"""A router as a folder: `router.json`, `terms.json` and `prompts.json`.

Knows: what a router's card holds beyond its model. Does not know how a router decides, nor the format
(`folder`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from outthink.controller.router.choice import Choice
from outthink.controller.router.folder import DIGITS, Folder, prompt_hash
from outthink.controller.router.model import Router, TextModel
from outthink.core.errors import BadInput

__all__ = ["DIGITS", "load", "load_choice", "prompt_hash", "read_card", "save", "trained_on"]

_FOLDER = Folder("router", "`outthink router train`", "train the router again with `outthink router train`")


def save(folder: Path, model: TextModel, about: Mapping[str, Any], prompts: Iterable[str]) -> str:
    """Write a router; returns its id. `about` holds `created`, `data`, `regime`, `gains`, ...; see `Folder.save`."""
    return _FOLDER.save(folder, model, about, prompts)


def load(folder: Path) -> Router:
    """The router in a folder; BadInput for a missing file, another schema version or a changed character."""
    card = read_card(folder)
    if "gains" not in card:
        raise BadInput("router", str(folder), f"chooses among {', '.join(card['model']['heads'])}", "use load_choice")
    shortest, longest = card["regime"]["characters"]
    return Router(card["id"], _FOLDER.model(folder, card), shortest, longest, tuple(card["gains"]))


def load_choice(folder: Path) -> Choice:
    """The router over several models in a folder; refusals as for `load`."""
    card = read_card(folder)
    if "costs" not in card:
        raise BadInput("router", str(folder), "is one between a weak and a strong model", "use load")
    shortest, longest = card["regime"]["characters"]
    return Choice(card["id"], _FOLDER.model(folder, card), tuple(card["costs"]), shortest, longest)


def read_card(folder: Path) -> dict[str, Any]:
    """`router.json`, checked; the same refusals as `load`."""
    return _FOLDER.read_card(folder)


def trained_on(folder: Path) -> frozenset[str]:
    """`prompt_hash` of every training prompt; BadInput as for `load`."""
    return _FOLDER.trained_on(folder)
