"""Input formats of published reward models, and our own.

Knows: how each turns a question and steps into token ids, where a step's score is read, and which ids its tokens have
in the published vocabulary. Does not know weights, batches or caches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

from outthink.core.errors import BadInput, need_known
from outthink.verifiers.protocol import Aggregation

# torch and transformers are extras: where they are missing nothing can check their types.
Tensor: TypeAlias = Any
Module: TypeAlias = Any
Device: TypeAlias = Any
Tokenizer: TypeAlias = Any  # a fast one
Config: TypeAlias = Any
Published: TypeAlias = Mapping[range, Mapping[str, int]]
"""Ids of tokens in the published vocabularies, by the sizes of those."""

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

    def probabilities(self, logits: Tensor) -> Tensor:
        """P(right) of each row of a (positions x outputs) tensor of logits."""
        ...


def visible(steps: Sequence[str]) -> Sequence[str]:
    """The steps. Raises BadInput if there is none, or one has no text."""
    blank = next((number for number, step in enumerate(steps, 1) if not step.strip()), None)
    if not steps or blank is not None:
        problem = "holds no step" if not steps else f"has no text in step {blank}"
        raise BadInput("steps", list(steps)[:5], problem, "score steps that hold visible text")
    return steps


def name_of(model: object) -> str:
    """Where transformers loaded a model or tokenizer from; empty for one that was made here."""
    return str(getattr(model, "name_or_path", "") or "")


def token_id(tokenizer: Tokenizer, text: str, expected: Mapping[str, int]) -> int:
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
            name_of(tokenizer),
            f"has no token {text!r}",
            "choose the format it was made for",
        )
    number = int(ids[-1])
    if text in expected and expected[text] != number:
        raise BadInput(
            "model",
            name_of(tokenizer),
            f"has the id {number} for the token {text!r}, expected {expected[text]}",
            "use the tokenizer that was published with the model",
        )
    return number


def indices(offsets: Sequence[tuple[int, int]], characters: Sequence[int]) -> list[int]:
    """Index of the token that holds each of these characters of the text, a later one each time."""
    places: list[int] = []
    for character in characters:
        rest = range(places[-1] + 1 if places else 0, len(offsets))
        place = next((at for at in rest if offsets[at][0] <= character < offsets[at][1]), None)
        if place is None:
            problem = "is a character that no token covers"
            raise BadInput("steps", character, problem, "use a tokenizer that keeps offsets")
        places.append(place)
    return places


def tokens(tokenizer: Tokenizer, text: str, *, special: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a text, and the characters that each stands for.

    Args:
        special: add the tokens that open a text (`<s>`).
    """
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    return list(encoded["input_ids"]), list(encoded["offset_mapping"])


class _WithTokens:
    """A format with tokens of its own, which are looked up in the vocabulary. Raises BadInput where they are not in it.

    `special` are these tokens, and `known` their ids in the published vocabularies. `answers` are the rows of the
    language-model head that are read, right before wrong.
    """

    special: tuple[str, ...]
    known: ClassVar[Published]
    answers: tuple[str, ...] = ()
    chat = False
    separator = "\n\n"
    aggregation: Aggregation = "last"

    def __init__(self, tokenizer: Tokenizer) -> None:
        expected = next((ids for sizes, ids in self.known.items() if len(tokenizer) in sizes), {})
        self._tokenizer = tokenizer
        self._ids = {token: token_id(tokenizer, token, expected) for token in self.special}
        self.outputs = tuple(self._ids[token] for token in self.answers)
        if self.chat and not tokenizer.chat_template:
            name = name_of(tokenizer)
            raise BadInput("model", name, "has no chat template", "choose the format it was made for")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax over right and wrong."""
        return logits.softmax(-1)[:, 0]


# Math-Shepherd (Mistral 7B): a marker after each step, judged by two tokens of the vocabulary.

_MARKER, _PLUS, _MINUS = "ки", "+", "-"


class MathShepherd(_WithTokens):
    """`question step ки`, steps on lines of their own; P(`+`) against `-` at each marker."""

    name = "math-shepherd"
    aggregation: Aggregation = "min"
    readout: Readout = "tokens"
    special = (_MARKER, _PLUS, _MINUS)
    answers = (_PLUS, _MINUS)
    # The vocabulary of Mistral 7B v0.1: 648 is its plus, 387 its minus; the marker's: the model's card.
    known: ClassVar[Published] = {range(32_000, 32_100): {_MARKER: 12902, _PLUS: 648, _MINUS: 387}}

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        """The whole text at once, for SentencePiece reads a piece differently at the start of a text."""
        text, ends = question.strip(), []
        for number, step in enumerate(visible(steps)):
            text += (" " if number == 0 else "\n") + step.strip() + " " + _MARKER
            ends.append(len(text) - 1)
        ids, offsets = tokens(self._tokenizer, text, special=True)
        positions = indices(offsets, ends)
        return Encoded(tuple(ids[: positions[-1] + 1]), tuple(positions))


# Our own format: question, blank line, solution; one logit at the last token of each step.
#
# The question with its blank line is tokenised apart from the solution, and every step apart from the
# others, without tokens that open or close a text. So step ends are token ends, and adding a step never
# changes the tokens before it. The steps are those of `split_steps(text, separator)` and keep their
# newlines; whitespace is scored as it was written.


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

    def __init__(self, tokenizer: Tokenizer, *, separator: str = "\n", temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise BadInput("temperature", temperature, "is not above 0", "give the one found on calibration data")
        self._tokenizer, self.separator, self.temperature = tokenizer, separator, temperature

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        """Question and steps, and the index of the last token of each step."""
        ids: list[int] = list(self._tokenizer.encode(question + "\n\n", add_special_tokens=False))
        ends = []
        for step in visible(steps):
            piece = self._tokenizer.encode(step, add_special_tokens=False)
            if not piece:
                raise BadInput("steps", step, "has no token in this vocabulary", "use the model's own tokenizer")
            ids += piece
            ends.append(len(ids) - 1)
        return Encoded(tuple(ids), tuple(ends))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid of the logit over the temperature."""
        return (logits[:, 0] / self.temperature).sigmoid()


# Qwen2.5-Math-PRM (7B and 72B): a chat whose reply holds a marker after each step; two classes at each.

MARKER = "<extra_0>"
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
_QWEN = range(151_643, 152_065)  # of Qwen2.5's vocabulary the size, which depends on the padding


class QwenPRM(_WithTokens):
    """Chat of system, question and `step<extra_0>step<extra_0>`; P(class 1) at each marker."""

    name = "qwen-prm"
    readout: Readout = "classes"
    special = (MARKER,)
    known: ClassVar[Published] = {_QWEN: {MARKER: 151651}}
    chat = True

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
        ends = []
        for step in steps:
            ends.append(at + len(step.strip()))
            at = ends[-1] + len(MARKER)
        return Encoded(tuple(ids), tuple(indices(offsets, ends)))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax over the two classes."""
        return logits.softmax(-1)[:, 1]


# RLHFlow's reward models (Mistral and Llama 3.1 8B): a chat in which the assistant answers `+` to each step.


class RLHFlow(_WithTokens):
    """User: question and first step, then one step a turn; P(`+`) against `-` where the answer is predicted."""

    name = "rlhflow"
    readout: Readout = "tokens"
    special = answers = (_PLUS, _MINUS)
    known: ClassVar[Published] = {
        range(32_000, 32_100): {_PLUS: 648, _MINUS: 387},  # Mistral
        range(128_000, 128_300): {_PLUS: 10, _MINUS: 12},  # Llama 3.1: single bytes come first in the order of ASCII
    }
    chat = True

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        """The chat up to where the last answer is predicted."""
        chat: list[dict[str, str]] = []
        text, places = "", []
        for number, step in enumerate(visible(steps)):
            answer = f"{question.strip()} {step.strip()}" if number == 0 else step.strip()
            chat += [{"role": "user", "content": answer}, {"role": "assistant", "content": _PLUS}]
            longer = self._tokenizer.apply_chat_template(chat, tokenize=False)
            if not longer.startswith(text):
                raise BadInput("model", self.name, "has a chat template that rewrites earlier turns", "use its own")
            text = longer
            places.append(text.rindex(_PLUS))  # only end markers follow the assistant's text
        ids, offsets = tokens(self._tokenizer, text)
        answers = indices(offsets, places)
        for at in answers:
            if ids[at] != self.outputs[0]:
                raise BadInput("model", self.name, f"reads the answer {_PLUS!r} as token {ids[at]}", "use its template")
        return Encoded(tuple(ids[: answers[-1]]), tuple(at - 1 for at in answers))


# Skywork-o1-Open-PRM (Qwen2.5 1.5B and 7B): plain text, a value at the newline that ends each step.

_END = "\n"


class Skywork(_WithTokens):
    """`question newline step newline ...`; the sigmoid of the value at each step's newline."""

    name = "skywork"
    separator = "\n"
    readout: Readout = "value"
    special = (_END,)
    known: ClassVar[Published] = {_QWEN: {_END: 198}}

    def encode(self, question: str, steps: Sequence[str]) -> Encoded:
        """Question and steps are read apart, so that a step's newline never joins the text before it."""
        first = (self._tokenizer.bos_token or "") + question + _END
        ids: list[int] = list(self._tokenizer.encode(first, add_special_tokens=False))
        positions = []
        for step in visible(steps):
            ids += self._tokenizer.encode(step.strip("\n"), add_special_tokens=False)
            ids.append(self._ids[_END])
            positions.append(len(ids) - 1)
        return Encoded(tuple(ids), tuple(positions))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid of the value."""
        return logits[:, 0].sigmoid()


_MADE: dict[str, Callable[[Tokenizer], Format]] = {
    "newline": Newline,
    "math-shepherd": MathShepherd,
    "rlhflow": RLHFlow,
    "skywork": Skywork,
    "qwen-prm": QwenPRM,
}
FORMATS = tuple(_MADE)


def make_format(name: str, tokenizer: Tokenizer) -> Format:
    """A format by name, its tokens looked up in the vocabulary. Raises BadInput for an unknown name."""
    need_known("format", name, FORMATS)
    return _MADE[name](tokenizer)


__all__ = ["FORMATS", "Encoded", "Format", "MathShepherd", "Newline", "QwenPRM", "RLHFlow", "Skywork", "make_format"]
