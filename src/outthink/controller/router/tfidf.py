"""Terms of a prompt and their TF-IDF weights, in plain Python.

Knows: words with their pairs, character n-grams within words, and scikit-learn's weighting of them
(sublinear counts, smoothed inverse document frequency, L2 norm). Does not know coefficients.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import log, sqrt
from typing import Literal, get_args

Kind = Literal["word", "char"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_WORD = re.compile(r"\w\w+")
_CHAR = (2, 4)


def terms(text: str, kind: Kind) -> Counter[str]:
    """How often each term occurs: lower-case words and neighbouring pairs of them (`word`), or n-grams of
    two to four characters within words, edges as spaces (`char`, scikit-learn's `char_wb`)."""
    lowered = text.lower()
    if kind == "word":
        words = _WORD.findall(lowered)
        counts = Counter(words)
        counts.update(map(" ".join, pairwise(words)))
        return counts
    return Counter([gram for word in lowered.split() for gram in _grams(word)])


@lru_cache(maxsize=4096)  # most words of a language are few; the memory is a few megabytes
def _grams(word: str) -> tuple[str, ...]:
    edged = f" {word} "
    size = len(edged)
    found: list[str] = []
    for n in range(_CHAR[0], _CHAR[1] + 1):
        if size <= n:
            return (*found, edged)  # a short word counts once, not once for every n
        found += [edged[start : start + n] for start in range(size - n + 1)]
    return tuple(found)


def idf(documents: int, frequency: int) -> float:
    """Smoothed inverse document frequency of a term that `frequency` of `documents` texts hold."""
    return log((1 + documents) / (1 + frequency)) + 1


def weights(
    counts: Mapping[str, int], index: Mapping[str, int], inverse: Sequence[float]
) -> tuple[list[int], list[float]]:
    """Places of the known terms and their weights, of Euclidean length 1 together.

    Args:
        counts: how often each term of the text occurs.
        index: place of each known term.
        inverse: inverse document frequency at each place.
    """
    find = index.get
    found = [(place, count) for term, count in counts.items() if (place := find(term)) is not None]
    places = [place for place, _ in found]
    raw = [inverse[place] if count == 1 else (1 + log(count)) * inverse[place] for place, count in found]
    length = sqrt(sum([weight * weight for weight in raw]))
    return places, [weight / length for weight in raw]
