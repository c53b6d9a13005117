"""Skywork-o1-Open-PRM (Qwen2.5 1.5B and 7B): plain text, a value at the newline that ends each step.

Knows: how its authors' code puts the pieces together. Does not know any weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outthink.verifiers.protocol import Aggregation
from outthink.verifiers.reward_model.formats.protocol import Encoded, Readout, published, token_id, visible

_END = "\n"
# Qwen2.5's vocabulary, whose size depends on the padding.
_PUBLISHED = {range(151_643, 152_065): {_END: 198}}


class Skywork:
    """`question newline step newline ...`; the sigmoid of the value at each step's newline.

    Args:
        expected: token ids the vocabulary must have; default: Qwen2.5's if the vocabulary has its size.
    """

    name = "skywork"
    separator = "\n"
    aggregation: Aggregation = "last"
    readout: Readout = "value"
    outputs: tuple[int, ...] = ()

    def __init__(self, tokenizer: Any, expected: Mapping[str, int] | None = None) -> None:
        wanted = published(tokenizer, _PUBLISHED) if expected is None else expected
        self._tokenizer = tokenizer
        self._end = token_id(tokenizer, _END, wanted)

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        """Question and steps are read apart, so that a step's newline never joins the text before it."""
        first = (self._tokenizer.bos_token or "") + question + _END
        ids: list[int] = list(self._tokenizer.encode(first, add_special_tokens=False))
        positions = []
        for step in visible(steps):
            ids += self._tokenizer.encode(step.strip("\n"), add_special_tokens=False)
            ids.append(self._end)
            positions.append(len(ids) - 1)
        return Encoded(tuple(ids), tuple(positions))

    def probabilities(self, logits: Any) -> Any:
        """Sigmoid of the value."""
        return logits[:, 0].sigmoid()
