"""DeepConf's token confidence along one completion, kept as means over short strides.

Knows: window arithmetic (mean, tail, lowest and bottom windows). Does not know where the values
come from: live engines give one value a token, recorded samples one a 16-token chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ConfidenceTrace:
    """Confidences C_i = -(1/k) sum_j log P_i(j) over the k most likely tokens (arXiv 2508.15260).

    Args:
        values: mean confidence of tokens 0..stride-1, stride..2*stride-1, ...; the last may be short.
        stride: tokens behind each value.
        tokens: tokens of the whole completion.
    """

    values: Sequence[float]
    stride: int
    tokens: int
    _known: dict[tuple[str, int], float] = field(default_factory=dict, repr=False, compare=False)

    def _weights(self) -> list[int]:
        last = self.tokens - self.stride * (len(self.values) - 1)
        return [self.stride] * (len(self.values) - 1) + [max(1, last)]

    def _once(self, name: str, window: int, compute: Callable[[], float]) -> float:
        # Replay shares one trace between thousands of runs, so each figure is computed once.
        value = self._known.get((name, window))
        if value is None:
            value = self._known[name, window] = compute()
        return value

    def mean(self) -> float:
        """Token-weighted mean over the completion."""
        return self._once("mean", 0, lambda: self.tail(self.stride * len(self.values)))

    def tail(self, window: int) -> float:
        """Mean of the last `window` tokens (all of them if the completion is shorter)."""
        size = max(1, window // self.stride)
        weights = self._weights()[-size:]
        return sum(w * v for w, v in zip(weights, self.values[-size:], strict=True)) / sum(weights)

    def groups(self, window: int) -> list[float]:
        """Sliding means of `window` tokens, one stride apart; a shorter completion is one group."""
        size = max(1, window // self.stride)
        values = self.values
        if len(values) <= size:
            return [self.mean()]
        total = sum(values[:size])
        sums = [total]
        for old, new in zip(values, values[size:], strict=False):
            total += new - old
            sums.append(total)
        return [s / size for s in sums]

    def lowest(self, window: int) -> float:
        """The least confident group."""
        return self._once("lowest", window, lambda: min(self.groups(window)))

    def bottom(self, window: int) -> float:
        """Mean of the least confident tenth of the groups (at least one)."""

        def compute() -> float:
            groups = sorted(self.groups(window))
            count = max(1, len(groups) // 10)
            return sum(groups[:count]) / count

        return self._once("bottom", window, compute)
