"""Keys and values of the prefixes that were read before, shared by all texts that begin with them.

Knows: a tree of token segments, how two texts part ways in it, and which segment was used longest
ago. Does not know models or formats.

Memory: at most `budget` tokens are kept, each held once however many texts share it, so at most
budget x (bytes of keys and values a token) stay allocated. What a reader takes out is a copy; nothing
that is read later can change it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Layers = list[tuple[Any, Any]]
"""Keys and values of each layer, shaped (heads, tokens, size of a head)."""


@dataclass(slots=True, eq=False)
class _Segment:
    """Tokens from `start` on that follow the parent's; `scores` by position in the whole text."""

    start: int
    ids: tuple[int, ...]
    layers: Layers
    parent: _Segment | None
    scores: dict[int, float] = field(default_factory=dict)
    children: dict[int, _Segment] = field(default_factory=dict)
    used: int = 0


class PrefixCache:
    """Prefixes by their token ids.

    Args:
        budget: tokens to keep; 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.tokens = 0
        self._clock = 0
        self._root = _Segment(0, (), [], None)

    def find(self, ids: Sequence[int], positions: Sequence[int]) -> tuple[int, dict[int, float]]:
        """How many leading tokens need not be read again, and the scores at positions among them.

        A prefix ends before the first position whose score is not known, for its token must be read.
        """
        length, scores = 0, {}
        for segment, count in self._path(ids):
            length += count
            scores.update(segment.scores)
        unknown = next((position for position in positions if position < length and position not in scores), None)
        length = length if unknown is None else unknown
        return length, {position: scores[position] for position in positions if position < length}

    def layers(self, ids: Sequence[int], length: int) -> Layers:
        """A copy of the keys and values of the first `length` tokens, which `find` has just found."""
        import torch

        pieces = []
        for segment, count in self._path(ids[:length]):
            pieces.append([(keys[:, :count], values[:, :count]) for keys, values in segment.layers])
        return [
            (torch.cat([keys for keys, _ in parts], 1), torch.cat([values for _, values in parts], 1))
            for parts in zip(*pieces, strict=True)
        ]

    def store(self, ids: Sequence[int], start: int, layers: Layers, scores: Mapping[int, float]) -> None:
        """Keep what was read of a text.

        Args:
            start: index of the first token that `layers` holds; nothing is kept if the tokens before
                it are no longer there.
        """
        path = list(self._path(ids))
        known = sum(count for _, count in path)
        if known < start or len(ids) > self.budget:
            return
        for segment, count in path:
            end = segment.start + count
            segment.scores.update({at: score for at, score in scores.items() if segment.start <= at < end})
        if known == len(ids):
            return
        parent, count = path[-1] if path else (self._root, 0)
        if count < len(parent.ids):
            parent = self._split(parent, count)
        fresh = [(keys[:, known - start :].clone(), values[:, known - start :].clone()) for keys, values in layers]
        added = {at: score for at, score in scores.items() if at >= known}
        segment = _Segment(known, tuple(ids[known:]), fresh, parent, added, used=self._clock)
        parent.children[segment.ids[0]] = segment
        self.tokens += len(segment.ids)
        self._evict()

    def _path(self, ids: Sequence[int]) -> Iterator[tuple[_Segment, int]]:
        """Segments that the text begins with, and how many tokens of each."""
        self._clock += 1
        segment, at = self._root, 0
        while at < len(ids) and (child := segment.children.get(ids[at])) is not None:
            child.used = self._clock
            count, most = 0, min(len(child.ids), len(ids) - at)
            while count < most and child.ids[count] == ids[at + count]:
                count += 1
            yield child, count
            if count < len(child.ids):
                return
            segment, at = child, at + count

    def _split(self, segment: _Segment, count: int) -> _Segment:
        """Cut a segment in two; returns the first part. Copies, so that each part can be freed alone."""
        parent = segment.parent or self._root
        cut = segment.start + count
        head = _Segment(
            segment.start,
            segment.ids[:count],
            [(keys[:, :count].clone(), values[:, :count].clone()) for keys, values in segment.layers],
            parent,
            {at: score for at, score in segment.scores.items() if at < cut},
            {segment.ids[count]: segment},
            segment.used,
        )
        parent.children[head.ids[0]] = head
        segment.layers = [(keys[:, count:].clone(), values[:, count:].clone()) for keys, values in segment.layers]
        segment.scores = {at: score for at, score in segment.scores.items() if at >= cut}
        segment.start, segment.ids, segment.parent = cut, segment.ids[count:], head
        return head

    def _evict(self) -> None:
        """Drop the leaves used longest ago until the rest fits."""
        while self.tokens > self.budget:
            oldest = min(self._leaves(self._root), key=lambda leaf: leaf.used)
            parent = oldest.parent or self._root
            del parent.children[oldest.ids[0]]
            self.tokens -= len(oldest.ids)

    def _leaves(self, segment: _Segment) -> Iterator[_Segment]:
        stack = [segment]
        while stack:
            segment = stack.pop()
            stack.extend(segment.children.values())
            if not segment.children:
                yield segment
