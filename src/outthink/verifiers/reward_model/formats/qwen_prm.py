"""Qwen2.5-Math-PRM (7B and 72B): a chat whose reply holds a marker after each step; two classes at each.

Knows: its system prompt, its marker and its template. Does not know any weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outthink.core.errors import BadInput
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

MARKER = "<extra_0>"
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
# Qwen2.5's vocabulary, whose size depends on the padding.
_PUBLISHED = {range(151_643, 152_065): {MARKER: 151651}}


class QwenPRM:
    """Chat of system, question and `step<extra_0>step<extra_0>`; P(class 1) at each marker.

    Args:
        expected: token ids the vocabulary must have; default: Qwen2.5's if the vocabulary has its size.
    """

    name = "qwen-prm"
    separator = "\n\n"
    aggregation: Aggregation = "last"
    readout: Readout = "classes"
    outputs: tuple[int, ...] = ()

    def __init__(self, tokenizer: Any, expected: Mapping[str, int] | None = None) -> None:
        wanted = published(tokenizer, _PUBLISHED) if expected is None else expected
        self._tokenizer = tokenizer
        self._marker = token_id(tokenizer, MARKER, wanted)
        if not tokenizer.chat_template:
            name = getattr(tokenizer, "name_or_path", "")
            raise BadInput("model", name, "has no chat template", "choose the format it was made for")

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        """The chat up to the last marker: what the template adds after it cannot change a score."""
        reply = "".join(step.strip() + MARKER for step in visible(steps))
        chat = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": question.strip()},
            {"role": "assistant", "content": reply},
        ]
        text = self._tokenizer.apply_chat_template(chat, tokenize=False)
        at = text.rfind(reply)
        if at < 0:
            raise BadInput("model", self.name, "has a chat template that changes the reply", "use its own template")
        ids, offsets = tokens(self._tokenizer, text[: at + len(reply)])
        positions: list[int] = []
        for step in steps:
            at += len(step.strip())
            positions.append(index_at(offsets, at, positions[-1] + 1 if positions else 0))
            at += len(MARKER)
        return Encoded(tuple(ids), tuple(positions))

    def probabilities(self, logits: Any) -> Any:
        """Softmax over the two classes."""
        return logits.softmax(-1)[:, 1]
