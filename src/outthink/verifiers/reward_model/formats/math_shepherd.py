"""Math-Shepherd (Mistral 7B): a marker after each step, judged by two tokens of the vocabulary.

Knows: its input, as its authors' example writes it, and its token ids. Does not know any weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outthink.verifiers.protocol import Aggregation
from outthink.verifiers.reward_model.formats.protocol import (
    Encoded,
    Readout,
    index_at,
    published,
    token_id,
    tokens,
    visible,
)

_MARKER, _GOOD, _BAD = "ки", "+", "-"
# The vocabulary of Mistral 7B v0.1. 648 and 387: specs/verifiers.md 5; the marker's: the model's card.
_PUBLISHED = {range(32_000, 32_100): {_MARKER: 12902, _GOOD: 648, _BAD: 387}}


class MathShepherd:
    """`question step ки`, steps on lines of their own; P(`+`) against `-` at each marker.

    Args:
        expected: token ids the vocabulary must have; default: those of the published model if the
            vocabulary has its size.
    """

    name = "math-shepherd"
    separator = "\n\n"
    aggregation: Aggregation = "min"
    readout: Readout = "tokens"

    def __init__(self, tokenizer: Any, expected: Mapping[str, int] | None = None) -> None:
        wanted = published(tokenizer, _PUBLISHED) if expected is None else expected
        self._tokenizer = tokenizer
        self._marker = token_id(tokenizer, _MARKER, wanted)
        self.outputs = tuple(token_id(tokenizer, token, wanted) for token in (_GOOD, _BAD))

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        """The whole text at once, for SentencePiece reads a piece differently at the start of a text."""
        text, ends = question.strip(), []
        for number, step in enumerate(visible(steps)):
            text += (" " if number == 0 else "\n") + step.strip() + " " + _MARKER
            ends.append(len(text) - 1)
        ids, offsets = tokens(self._tokenizer, text, special=True)
        positions: list[int] = []
        for end in ends:
            positions.append(index_at(offsets, end, positions[-1] + 1 if positions else 0))
        return Encoded(tuple(ids[: positions[-1] + 1]), tuple(positions))

    def probabilities(self, logits: Any) -> Any:
        """Softmax over the two tokens."""
        return logits.softmax(-1)[:, 0]
