"""Input formats of reward models, one file each. Knows their names; does not know weights."""

from __future__ import annotations

from typing import Any

from outthink.core.errors import BadInput
from outthink.verifiers.reward_model.formats.math_shepherd import MathShepherd
from outthink.verifiers.reward_model.formats.newline import Newline
from outthink.verifiers.reward_model.formats.protocol import Encoded, Format
from outthink.verifiers.reward_model.formats.qwen_prm import QwenPRM
from outthink.verifiers.reward_model.formats.rlhflow import RLHFlow
from outthink.verifiers.reward_model.formats.skywork import Skywork

FORMATS = ("newline", "math-shepherd", "rlhflow", "skywork", "qwen-prm")


def make_format(name: str, tokenizer: Any) -> Format:
    """A format by name, its tokens looked up in the vocabulary. Raises BadInput for an unknown name."""
    made: dict[str, Any] = {
        "newline": Newline,
        "math-shepherd": MathShepherd,
        "rlhflow": RLHFlow,
        "skywork": Skywork,
        "qwen-prm": QwenPRM,
    }
    if name not in made:
        raise BadInput("format", name, "is not known", f"use one of {', '.join(FORMATS)}")
    chosen: Format = made[name](tokenizer)
    return chosen


__all__ = ["FORMATS", "Encoded", "Format", "MathShepherd", "Newline", "QwenPRM", "RLHFlow", "Skywork", "make_format"]
