"""Our own format: question, blank line, solution; one logit at the last token of each step.

Knows: how text becomes tokens, for training and scoring alike. Does not know any weights.

The question with its blank line is tokenised apart from the solution, and every step apart from the
others, without tokens that open or close a text. So step ends are token ends, and adding a step never
changes the tokens before it. The steps are those of `split_steps(text, separator)` and keep their
newlines; whitespace is scored as it was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outthink.core.errors import BadInput
from outthink.verifiers.protocol import Aggregation
from outthink.verifiers.reward_model.formats.protocol import Encoded, Readout, visible


def encode(tokenizer: Any, question: str, steps: Sequence[str]) -> tuple[list[int], list[int]]:
    """Token ids of a question and steps, and the index of the last token of each step.

    Raises BadInput for no steps, or a step without visible text.
    """
    ids: list[int] = list(tokenizer.encode(question + "\n\n", add_special_tokens=False))
    ends = []
    for step in visible(steps):
        piece = tokenizer.encode(step, add_special_tokens=False)
        if not piece:
            raise BadInput("steps", step, "has no token in this vocabulary", "use the model's own tokenizer")
        ids += piece
        ends.append(len(ids) - 1)
    return ids, ends


class Newline:
    """The format of the verifiers that `outthink train prm` makes.

    Args:
        separator: a step ends after it.
        temperature: divides the logit; 1 leaves it as it was trained.
    """

    name = "newline"
    aggregation: Aggregation = "last"
    readout: Readout = "label"
    outputs: tuple[int, ...] = ()

    def __init__(self, tokenizer: Any, *, separator: str = "\n", temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise BadInput("temperature", temperature, "is not above 0", "give the one found on calibration data")
        self._tokenizer, self.separator, self.temperature = tokenizer, separator, temperature

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        """See `encode`."""
        ids, ends = encode(self._tokenizer, question, steps)
        return Encoded(tuple(ids), tuple(ends))

    def probabilities(self, logits: Any) -> Any:
        """Sigmoid of the logit over the temperature."""
        return (logits[:, 0] / self.temperature).sigmoid()
