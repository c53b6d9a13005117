"""What a caller gets back. Knows the answer, why it stopped and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from outthink.core.receipt import Receipt

Stopped = Literal[
    "finished",
    "consensus",
    "first-m",
    "gave-up",
    "budget:tokens",
    "budget:seconds",
    "budget:usd",
    "budget:joules",
    "interrupted",
    "error",
]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a strategy decided: a canonical answer, the text that carries it, and why it stopped."""

    answer: str | None
    text: str
    stopped: Stopped = "finished"


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of `ask`; `answer` is None where none could be read."""

    answer: str | None
    text: str
    strategy: str
    model: str
    stopped: Stopped
    receipt: Receipt

    def json(self) -> dict[str, Any]:
        """The object that `outthink ask --json` prints."""
        return {
            "answer": self.answer,
            "text": self.text,
            "strategy": self.strategy,
            "model": self.model,
            "stopped": self.stopped,
            "receipt": self.receipt.json(),
        }
