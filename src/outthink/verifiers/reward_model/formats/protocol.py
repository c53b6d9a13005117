"""The seam between a published reward model's input format and the scoring of it.

Knows: that a format turns a question and steps into token ids and says where each step's score is
read. Does not know weights, batches or caches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from outthink.core.errors import BadInput
from outthink.verifiers.protocol import Aggregation

Readout = Literal["tokens", "value", "classes", "label"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A reward model's input: token ids, and the index at which each step's score is read, ascending."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]


class Format(Protocol):
    """How one family of reward models reads a question and its steps.

    `readout` names the head: two rows of the language-model head (`tokens`), a linear value head
    (`value`), a two-class head (`classes`) or the one-logit head of a token classifier (`label`).
    """

    name: str
    separator: str
    aggregation: Aggregation
    readout: Readout

    @property
    def outputs(self) -> tuple[int, ...]:
        """Rows of the language-model head that are read, in the order of `probabilities`; else empty."""
        ...

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        """Token ids up to the last step's position, one position a step. Raises BadInput."""
        ...

    def probabilities(self, logits: Any) -> Any:
        """P(right) of each row of a (positions x outputs) tensor of logits."""
        ...


def visible(steps: Sequence[str]) -> Sequence[str]:
    """The steps. Raises BadInput if there is none, or one has no text."""
    blank = next((number for number, step in enumerate(steps, 1) if not step.strip()), None)
    if not steps or blank is not None:
        problem = "holds no step" if not steps else f"has no text in step {blank}"
        raise BadInput("steps", list(steps)[:5], problem, "score steps that hold visible text")
    return steps


def published(tokenizer: Any, known: Mapping[range, Mapping[str, int]]) -> Mapping[str, int]:
    """The token ids of the published model whose vocabulary has this one's size; none for other sizes."""
    return next((ids for sizes, ids in known.items() if len(tokenizer) in sizes), {})


def token_id(tokenizer: Any, text: str, expected: Mapping[str, int]) -> int:
    """The one id that a format's token has in this vocabulary.

    Args:
        expected: the ids the published model has, by token; a token that is not listed may have any.

    Raises BadInput if the vocabulary lacks the token or gives it another id.
    """
    # The last one: SentencePiece vocabularies put a token for the start of a word before some of them.
    ids = tokenizer.encode(text, add_special_tokens=False)
    # Decoding as part of a text, for a decoder strips the space from a token that stands alone.
    if not ids or ids[-1] == tokenizer.unk_token_id or tokenizer.decode(ids[-1:]).strip(" ") != text.strip(" "):
        raise BadInput(
            "model",
            getattr(tokenizer, "name_or_path", ""),
            f"has no token {text!r}",
            "choose the format it was made for",
        )
    found = int(ids[-1])
    if text in expected and expected[text] != found:
        raise BadInput(
            "model",
            getattr(tokenizer, "name_or_path", ""),
            f"has the id {found} for the token {text!r}, expected {expected[text]}",
            "use the tokenizer that was published with the model",
        )
    return found


def index_at(offsets: Sequence[tuple[int, int]], character: int, start: int = 0) -> int:
    """Index of the token that holds a character of the text, looked for from `start` on."""
    for index in range(start, len(offsets)):
        if offsets[index][0] <= character < offsets[index][1]:
            return index
    raise BadInput("steps", character, "is a character that no token covers", "use a tokenizer that keeps offsets")


def tokens(tokenizer: Any, text: str, *, special: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a text, and the characters that each stands for.

    Args:
        special: add the tokens that open a text (`<s>`).
    """
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    return list(encoded["input_ids"]), list(encoded["offset_mapping"])
