"""RLHFlow's reward models (Mistral and Llama 3.1 8B): a chat in which the assistant answers `+` to each step.

Knows: which turns it is shown and where the answer is predicted. Does not know any weights.
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

_GOOD, _BAD = "+", "-"
_PUBLISHED = {
    range(32_000, 32_100): {_GOOD: 648, _BAD: 387},  # Mistral, as in specs/verifiers.md 5
    range(128_000, 128_300): {_GOOD: 10, _BAD: 12},  # Llama 3.1, where single bytes come first in the order of ASCII
}


class RLHFlow:
    """User: question and first step, then one step a turn; P(`+`) against `-` where the answer is predicted.

    Args:
        expected: token ids the vocabulary must have; default: those of the published models if the
            vocabulary has the size of theirs.
    """

    name = "rlhflow"
    separator = "\n\n"
    aggregation: Aggregation = "last"
    readout: Readout = "tokens"

    def __init__(self, tokenizer: Any, expected: Mapping[str, int] | None = None) -> None:
        wanted = published(tokenizer, _PUBLISHED) if expected is None else expected
        self._tokenizer = tokenizer
        self.outputs = tuple(token_id(tokenizer, token, wanted) for token in (_GOOD, _BAD))
        if not tokenizer.chat_template:
            name = getattr(tokenizer, "name_or_path", "")
            raise BadInput("model", name, "has no chat template", "choose the format it was made for")

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        """The chat up to where the last answer is predicted."""
        chat: list[dict[str, str]] = []
        text, places = "", []
        for number, step in enumerate(visible(steps)):
            said = f"{question.strip()} {step.strip()}" if number == 0 else step.strip()
            chat += [{"role": "user", "content": said}, {"role": "assistant", "content": _GOOD}]
            longer = self._tokenizer.apply_chat_template(chat, tokenize=False)
            if not longer.startswith(text):
                raise BadInput("model", self.name, "has a chat template that rewrites earlier turns", "use its own")
            text = longer
            places.append(text.rindex(_GOOD))  # only end markers follow the assistant's text
        ids, offsets = tokens(self._tokenizer, text)
        positions: list[int] = []
        for place in places:
            at = index_at(offsets, place, positions[-1] + 1 if positions else 0)
            if ids[at] != self.outputs[0]:
                raise BadInput("model", self.name, f"reads the answer {_GOOD!r} as token {ids[at]}", "use its template")
            positions.append(at - 1)
        return Encoded(tuple(ids[: positions[-1] + 1]), tuple(positions))

    def probabilities(self, logits: Any) -> Any:
        """Softmax over the two tokens."""
        return logits.softmax(-1)[:, 0]
