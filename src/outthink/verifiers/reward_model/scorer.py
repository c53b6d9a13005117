"""Scores encoded texts in padded batches, reading only what was not read before.

Knows: batches by token count, prefixes that the texts of a question share, and the prefix cache.
Does not know requests, formats or threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from outthink.verifiers.reward_model.cache import PrefixCache
from outthink.verifiers.reward_model.formats.protocol import Encoded
from outthink.verifiers.reward_model.weights import Row, Weights

_SHARED = 8  # a shared prefix of fewer tokens is not worth a pass of its own


@dataclass(slots=True)
class Scored:
    """Scores at the positions of a text, and how many tokens were read for them."""

    scores: dict[int, float] = field(default_factory=dict)
    read: int = 0


class Scorer:
    """Reads texts.

    Args:
        probabilities: from logits (positions x outputs) to scores.
        cache: what was read before.
        batch_tokens: tokens of a padded batch at most, prefixes included; a single text may be longer.
    """

    def __init__(
        self, weights: Weights, probabilities: Callable[[Any], Any], cache: PrefixCache, batch_tokens: int
    ) -> None:
        self.weights, self.cache, self.batch_tokens = weights, cache, batch_tokens
        self._probabilities = probabilities

    def score(
        self, groups: Sequence[Sequence[Encoded]], *, keep: bool, stopped: Callable[[], bool] = lambda: False
    ) -> dict[Encoded, Scored]:
        """Each distinct text's scores.

        Args:
            groups: texts that begin alike (one question's) stand together; what all of them begin with
                is read once, and counted with the first.
            keep: the texts will be continued, so their keys and values stay in the cache.
            stopped: asked before every batch; where it says so, texts not yet read have no scores.
        """
        results: dict[Encoded, Scored] = {}
        openings: dict[Encoded, Encoded] = {}
        for group in groups:
            texts = [text for text in dict.fromkeys(group) if text not in results]
            results.update((text, Scored()) for text in texts)
            if (opening := self._opening(texts)) is not None:
                openings[opening] = texts[0]
        shared = {opening: Scored() for opening in openings}
        self._read(shared, keep=True, stopped=stopped)
        for opening, text in openings.items():
            results[text].read += shared[opening].read
        self._read(results, keep=keep, stopped=stopped)
        return results

    def _opening(self, texts: Sequence[Encoded]) -> Encoded | None:
        """What several texts have in common, None where reading it first saves nothing."""
        if len(texts) < 2:
            return None
        first, last = min(text.ids for text in texts), max(text.ids for text in texts)
        most = min(len(text.ids) for text in texts) - 1
        length = next((at for at in range(most) if first[at] != last[at]), most)
        positions = tuple(position for position in texts[0].positions if position < length)
        if length > self.cache.budget or length - self.cache.find(first[:length], positions)[0] < _SHARED:
            return None
        return Encoded(first[:length], positions)

    def _read(self, results: dict[Encoded, Scored], *, keep: bool, stopped: Callable[[], bool]) -> None:
        waiting = sorted(results, key=lambda text: len(text.ids), reverse=True)
        while waiting and not stopped():
            most = max(1, self.batch_tokens // len(waiting[0].ids))
            batch, waiting = waiting[:most], waiting[most:]
            rows: list[tuple[Encoded, Row]] = []
            for text in batch:
                before, known = self.cache.find(text.ids, text.positions)
                results[text].scores.update(known)
                if before < len(text.ids):
                    rows.append((text, self._row(text, before)))
            if not rows:
                continue
            for (text, row), (logits, layers) in zip(
                rows, self.weights.read([row for _, row in rows], keep=keep), strict=True
            ):
                places = [place + row.before for place in row.positions]
                scores = dict(zip(places, self._probabilities(logits).tolist(), strict=True)) if places else {}
                results[text].scores.update(scores)
                results[text].read += len(row.ids)
                if keep:
                    self.cache.store(text.ids, row.before, layers, scores)

    def _row(self, text: Encoded, before: int) -> Row:
        places = [position - before for position in text.positions if position >= before]
        layers = self.cache.layers(text.ids, before) if before else None
        return Row(text.ids[before:], places, before, layers)
