"""What an examination found. Knows names, states and details; does not know how they were found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report."""

    name: str
    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The findings about one server and model, in a fixed order.

    Args:
        requests: how many requests it took.
        seconds: how long it took.
    """

    url: str
    model: str
    findings: tuple[Finding, ...]
    requests: int
    seconds: float

    def finding(self, name: str) -> Finding:
        """The finding of that name; KeyError for a name that no report has."""
        for found in self.findings:
            if found.name == name:
                return found
        raise KeyError(name)

    def json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {**asdict(self), "findings": [asdict(found) for found in self.findings]}
