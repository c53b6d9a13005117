"""A node of a search tree: a path with visits.

Knows: the PUCT rule and mean backup. Does not know where children or values come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import log, sqrt

from outthink.strategies.path import Path

_BASE, _START = 19652, 1.25
"""Constants of PUCT (Silver et al. 2017; strategies specification S14)."""


def exploration(visits: int) -> float:
    """c(s) of a node with so many visits: log((1 + N + 19652) / 19652) + 1.25."""
    return log((1 + visits + _BASE) / _BASE) + _START


@dataclass(slots=True, eq=False)
class Node:
    """Visits count the simulations that passed through it, its own evaluation included."""

    path: Path
    parent: Node | None = None
    prior: float = 1.0
    visits: int = 0
    total: float = 0.0
    children: list[Node] = field(default_factory=list)

    @property
    def value(self) -> float:
        """Mean of what was backed up; before the first visit what the verifier says, its parent's mean without that."""
        if self.visits:
            return self.total / self.visits
        if self.path.value is not None:
            return self.path.value
        return self.parent.value if self.parent is not None else 0.0

    def select(self) -> Node:
        """The child with the highest value + c * prior * sqrt(N) / (1 + N_child), the first of equal ones."""
        reach = exploration(self.visits) * sqrt(self.visits)
        return max(self.children, key=lambda child: child.value + reach * child.prior / (1 + child.visits))

    def back_up(self, value: float) -> None:
        """Count a simulation that ended here, up to the root."""
        node: Node | None = self
        while node is not None:
            node.visits += 1
            node.total += value
            node = node.parent

    def leaves(self) -> Iterator[Node]:
        """Every node without children, depth first."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()
