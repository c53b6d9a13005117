"""Monte Carlo tree search over steps with PUCT (as in AlphaZero; for language models rStar-Math 2501.04519).

Knows: the PUCT rule, mean backup, priors and their noise, and which leaves are completed before the vote. Does not
know how steps are written or judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import exp, log, sqrt
from typing import Literal, get_args

from outthink.core.errors import BadInput, need_known
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.search.beam import guided
from outthink.strategies.search.search import ROOT, Path, Search

Priors = Literal["uniform", "logprob"]
Choice = Literal["vote", "visits"]

_BASE, _START = 19652, 1.25
"""Constants of PUCT (Silver et al. 2017)."""


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


_ALPHA = 0.3
"""Concentration of the Dirichlet noise on the priors of the first steps."""


@guided("mcts", source="Guan et al. 2501.04519")
async def mcts(
    session: Session,
    request: Request,
    *,
    n: int = 20,
    m: int = 4,
    depth: int = 40,
    step_tokens: int = 2048,
    priors: Priors = "uniform",
    noise: float = 0.0,
    choice: Choice = "vote",
    separator: str = "auto",
    aggregation: str = "auto",
) -> Verdict:
    """n simulations of tree search, m children a step; the m best open leaves are completed before the vote.

    Priors are uniform, or `logprob`: softmax of the steps' mean log-probabilities. An exact verifier
    judges a sampled completion of each leaf, and its first pass is the answer.

    Args:
        n: simulations
        m: children of an expanded step, and open leaves that are completed before the vote
        priors: `uniform`, or `logprob` (mean log-probability of the step)
        noise: share of Dirichlet noise in the priors of the first steps
        choice: `vote` by score, or the finished path with the most `visits`
    """
    for parameter, value, known in (("priors", priors, get_args(Priors)), ("choice", choice, get_args(Choice))):
        need_known(f"mcts:{parameter}", value, known, f"use {' or '.join(known)}")
    if not 0 <= noise <= 1:
        raise BadInput("mcts:noise", noise, "is no share", "give 0 for none and at most 1")
    search = Search.open(session, request, "mcts", separator, step_tokens, aggregation, exact=True)
    tree = Tree(search, m, depth, priors == "logprob", noise)
    for _ in range(n):
        if tree.passed is not None or not await tree.simulate() or search.saturated(tree.done):
            break
    if tree.passed is not None:
        return Verdict(tree.passed.answer, tree.passed.text)
    return await (tree.most_visited() if choice == "visits" else tree.vote())


class Tree:
    """The tree of one request.

    `done` are the finished paths in it, `passed` is the first that an exact verifier passes.
    """

    def __init__(self, search: Search, width: int, depth: int, by_logprob: bool, noise: float) -> None:
        self.search, self.width, self.depth = search, width, depth
        self.by_logprob, self.noise = by_logprob, noise
        verifier = search.session.verifier
        self.exact = verifier is not None and verifier.kind == "exact"
        self.root = Node(ROOT)
        self.done: list[Path] = []
        self.passed: Path | None = None

    async def simulate(self) -> bool:
        """Select, expand, back up; False where the search has come to its end."""
        node = self.root
        while node.children:
            node = node.select()
        if not node.path.finished and len(node.path.steps) < self.depth and not await self._expand(node):
            return False
        node.back_up(self._value(node))
        return True

    async def _expand(self, node: Node) -> bool:
        plans = [(node.path, self.width)]
        (paths,), fallback = await self.search.families(plans, "end" if self.exact else 0)
        paths = paths if fallback is None else [fallback]
        shares = self._shares(node, paths)
        node.children = [Node(path, node, share) for path, share in zip(paths, shares, strict=True)]
        for path in paths:
            ends = [end for end in (path, path.preview) if end is not None and end.finished]
            self.done += ends
            if self.exact and self.passed is None:
                self.passed = next((end for end in ends if (end.value or 0.0) >= 1), None)
        return bool(paths) and not self.search.ended and any(path.value is not None for path in paths)

    def _shares(self, node: Node, paths: Sequence[Path]) -> list[float]:
        """Priors of a node's children, which add up to 1; noise goes to the first steps only."""
        known = [_step_logprob(node.path, path) for path in paths]
        if self.by_logprob and None not in known:
            powers = [exp(logprob or 0.0) for logprob in known]
        else:
            powers = [1.0] * len(paths)
        shares = [power / sum(powers) for power in powers]
        if node is not self.root or not self.noise:
            return shares
        drawn = [self.search.session.random.gammavariate(_ALPHA, 1.0) for _ in paths]  # over their sum: Dirichlet
        total = sum(drawn) or 1.0
        return [(1 - self.noise) * share + self.noise * draw / total for share, draw in zip(shares, drawn, strict=True)]

    def _value(self, node: Node) -> float:
        """What the verifier says of a leaf; of the root, which has no text, the mean of its children."""
        if node is self.root:
            return sum(child.value for child in node.children) / max(1, len(node.children))
        return node.value if node.path.value is None else node.path.value

    def _open(self) -> list[Node]:
        """Unfinished leaves, the best first."""
        leaves = [leaf for leaf in self.root.leaves() if leaf is not self.root and not leaf.path.finished]
        return sorted(leaves, key=lambda leaf: (leaf.value, leaf.visits), reverse=True)

    async def vote(self) -> Verdict:
        """Weighted vote of everything finished; the `width` best open leaves are completed first."""
        left = [leaf.path for leaf in self._open()[: self.width]]
        skip = self.exact or self.search.saturated(self.done)  # then every leaf has been completed, or none matters
        return await self.search.verdict(self.done, [] if skip and self.done else left)

    async def most_visited(self) -> Verdict:
        """The finished leaf that most simulations have ended at, else the completion of where most have gone."""
        ends = [leaf for leaf in self.root.leaves() if leaf.path.finished and leaf.path.answer is not None]
        best = max(ends, key=lambda leaf: (leaf.visits, leaf.value), default=None)
        if best is not None and best.visits:
            return Verdict(best.path.answer, best.path.text)
        node = self.root
        while node.children:
            node = max(node.children, key=lambda child: (child.visits, child.value))
        if node.path.finished or node is self.root:
            return await self.search.verdict(self.done)
        return await self.search.verdict([], [node.path])


def _step_logprob(parent: Path, child: Path) -> float | None:
    """Mean log-probability of the step between them, None if unknown."""
    tokens = child.tokens - parent.tokens
    if child.logprob is None or parent.logprob is None or tokens < 1:
        return None
    return (child.logprob - parent.logprob) / tokens
