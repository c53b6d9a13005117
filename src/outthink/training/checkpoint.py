"""A training run on disk, so that a killed one goes on.

Knows: one file, replaced whole. Does not know what is trained.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outthink.core.errors import BadInput
from outthink.training.base import require

FILE = "checkpoint.pt"


class Checkpoint:
    """The newest state of one run.

    Args:
        folder: where the file lies.
        about: everything that makes two runs the same; a file of another run is refused.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.path = folder / FILE
        self.about = json.dumps(about, sort_keys=True, default=str)

    def load(self) -> dict[str, Any] | None:
        """The state saved last, None without one. BadInput if it belongs to another run or is damaged."""
        torch, _ = require()
        if not self.path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - torch raises many kinds for a damaged file
            raise BadInput("--out", str(self.path), f"is damaged ({type(error).__name__})", "remove it") from None
        if state.get("about") != self.about:
            raise BadInput("--out", str(self.path), "is the checkpoint of another run", "remove it or change --out")
        return state

    def save(self, **state: Any) -> None:
        """Replace what was saved. BadInput where it cannot be written."""
        torch, _ = require()
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"about": self.about, **state}, draft)
            os.replace(draft, self.path)
        except (OSError, RuntimeError) as error:
            draft.unlink(missing_ok=True)
            raise BadInput("--out", str(self.path), f"cannot be written ({error})", "check the folder") from None

    def remove(self) -> None:
        """The run is over."""
        self.path.unlink(missing_ok=True)
