"""What a verifier is asked to judge. Knows steps and their text; does not know how they are judged."""

from __future__ import annotations

from dataclasses import dataclass

from outthink.core.sample import Sample


@dataclass(frozen=True, slots=True)
class Candidate:
    """A whole or partial solution, cut into steps whose concatenation is its text.

    Args:
        steps: the text in order; a verifier of whole solutions gets one step.
        sample: the sample it came from, for verifiers that read its log-probabilities or recorded
            scores; None in search.
    """

    steps: tuple[str, ...]
    sample: Sample | None = None

    @property
    def text(self) -> str:
        """All steps as one text."""
        return "".join(self.steps)


def split_steps(text: str, separator: str) -> tuple[str, ...]:
    """Cut a text into steps whose concatenation is the text.

    Args:
        separator: a step ends after it. With a newline, a step ends at the newline after a line that
            is not blank; blank lines open the next step. Steps of white space alone are joined to
            the step before.

    Returns no step for a text without any visible character.
    """
    steps: list[str] = []
    start = 0
    while start < len(text):
        at = text.find(separator, start)
        while at >= 0 and not text[start:at].strip():
            at = text.find(separator, at + len(separator))
        end = len(text) if at < 0 else at + len(separator)
        piece = text[start:end]
        if piece.strip():
            steps.append(piece)
        elif steps:
            steps[-1] += piece
        start = end
    return tuple(steps)
