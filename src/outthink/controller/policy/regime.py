"""Whether a request is like those that a policy was calibrated on.

Knows: the kind of answer, ranges of lengths, and how far a question's hand features lie from the
calibrated ones. Does not know models, rules or budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt

from outthink.controller.router.text import NAMES, hand_features
from outthink.controller.stored import JsonObject
from outthink.core.errors import BadInput
from outthink.strategies.defaults import Answer

PROBES = 4
"""Samples whose mean length is compared with the calibrated range."""
FAR = 25.0
"""A single feature counts at most this much (five standard deviations): one odd feature is no other domain."""
_SHIFT = 0.5
"""Standard deviations that the mean of a feature may move before a set of questions is another domain."""
_FEW = 20
"""Questions below which a set says too little about its domain."""

Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredFeatures:
    """The columns of a regime that are stored by the features' names."""

    mean: dict[str, float] | None = None
    spread: dict[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """What was seen in calibration; None where it was not at hand.

    Args:
        answer: kind of the gold answers.
        characters, prompt_tokens: range of the questions' lengths.
        sample_tokens: range of the mean length of PROBES samples of one question.
        mean, spread: of each hand feature of the questions.
        distance: how far a question may lie from them (mean squared deviation in spreads).
        prompts: mean and spread of prompt tokens.
    """

    answer: str | None = None
    characters: Range | None = None
    prompt_tokens: Range | None = None
    sample_tokens: Range | None = None
    mean: tuple[float, ...] | None = None
    spread: tuple[float, ...] | None = None
    distance: float | None = None
    prompts: Range | None = None

    def __post_init__(self) -> None:
        if self.spread is not None and not min(self.spread) > 0:
            raise BadInput("spread", min(self.spread), "is not above 0", "calibrate again")

    def outside(self, question: str | None, prompt_tokens: float | None = None, answer: Answer = None) -> str | None:
        """Why this request is outside, None if it is inside as far as can be seen.

        Args:
            question: its text, None where it is not at hand.
            answer: kind of answer that is wanted; a reader of the user's own is not compared.
        """
        if isinstance(answer, str) and self.answer is not None and answer != self.answer:
            return f"it wants a {answer} answer, the policy was calibrated on {self.answer} answers"
        if question is None or self.characters is None:
            return _beyond("prompt", prompt_tokens, self.prompt_tokens, "tokens")
        if reason := _beyond("question", len(question), self.characters, "characters"):
            return reason
        if self.distance is not None and (far := self.far(hand_features(question))) > self.distance:
            return f"the question is unlike the calibrated ones (distance {far:.1f}, at most {self.distance:.1f})"
        return None

    def far(self, features: Sequence[float]) -> float:
        """Mean squared deviation of hand features in calibrated spreads, each at most FAR."""
        if self.mean is None or self.spread is None:
            return 0.0
        parts = zip(features, self.mean, self.spread, strict=True)
        most = sqrt(FAR)
        return sum(min(abs((value - mean) / spread), most) ** 2 for value, mean, spread in parts) / len(self.mean)

    def shifted(self, questions: Sequence[str]) -> str | None:
        """Why a whole set of questions is another domain, None if it is not, or too small to tell."""
        if self.mean is None or self.spread is None or len(questions) < _FEW:
            return None
        columns = zip(*map(hand_features, questions), strict=True)
        slack = _SHIFT + 4 / sqrt(len(questions))  # four standard errors: the farthest of 27 means is judged
        moves = [
            (_moved(column, mean, spread), name)
            for column, mean, spread, name in zip(columns, self.mean, self.spread, NAMES, strict=True)
        ]
        move, name = max(moves, key=lambda item: abs(item[0]))
        if abs(move) <= slack:
            return None
        return f"the questions are of another domain ({name.replace('_', ' ')} is {move:+.1f} spreads away)"

    def shifted_prompts(self, tokens: Sequence[float]) -> str | None:
        """The same by the lengths of the prompts alone, where the questions are not at hand."""
        if self.prompts is None or len(tokens) < _FEW:
            return None
        mean, spread = self.prompts
        move = (sum(tokens) / len(tokens) - mean) / max(spread, 1e-9)
        if abs(move) <= _SHIFT + 4 / sqrt(len(tokens)):
            return None
        return f"the prompts are of other lengths ({move:+.1f} spreads away)"

    def odd(self, lengths: Sequence[int]) -> str | None:
        """Why the first samples are unlike the calibrated ones; None until there are PROBES of them."""
        if len(lengths) < PROBES:
            return None
        return _beyond("sample", sum(lengths[:PROBES]) / PROBES, self.sample_tokens, "tokens on average")

    def json(self) -> JsonObject:
        """Plain values; the features by name."""
        values = asdict(self)
        for key in ("mean", "spread"):
            column = values.pop(key)
            values[key] = None if column is None else dict(zip(NAMES, column, strict=True))
        return values

    @classmethod
    def of(cls, values: JsonObject) -> Regime:
        """From plain values; BadInput where they are malformed, or of other features than this version has."""
        from outthink.validation import Border, read_values

        border = Border(remedy="calibrate again")
        known = asdict(read_values(_StoredFeatures, values, border))
        columns = {key: column for key, column in known.items() if column is not None}
        for key, column in columns.items():
            if set(column) != set(NAMES):
                raise BadInput(key, sorted(column), "are other features than this version reads", border.remedy)
            columns[key] = [column[name] for name in NAMES]
        return read_values(cls, {**values, **columns}, border)


def _moved(column: Sequence[float], mean: float, spread: float) -> float:
    """How far the mean of a feature is from the calibrated one, in spreads of both sets together.

    In calibrated spreads alone, a single question with a drawing of a hundred lines would move a set whose
    calibration held none of them further than any other domain does.
    """
    here = sum(column) / len(column)
    own = sum((value - here) ** 2 for value in column) / len(column)
    return (here - mean) / sqrt((own + spread**2) / 2)


def _beyond(what: str, value: float | None, allowed: Range | None, unit: str) -> str | None:
    if value is None or allowed is None or allowed[0] <= value <= allowed[1]:
        return None
    return f"a {what} of {value:,.0f} {unit} is outside the calibrated {allowed[0]:,.0f} to {allowed[1]:,.0f}"
