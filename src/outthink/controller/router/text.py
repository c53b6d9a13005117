"""What a prompt is made of: hand features, and terms with their TF-IDF weights, in plain Python.

Knows: counts that are read off the text in microseconds (those of answer options are zero where there are none),
words with their pairs, character n-grams, and how known terms are found fast. Does not know coefficients, nor which
task the prompt belongs to.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import log, log1p, sqrt
from operator import mul
from statistics import median
from typing import Literal, get_args

# Bounds the time of a long prompt, and loses nothing on MMLU (docs/router.md).
READ = 1200
"""Characters of a prompt that are read for features, half from either end; its length counts whole."""

_NUMBER = re.compile(r"\d[\d,]*\.?\d*")
_WORD = re.compile(r"\w\w+")  # scikit-learn's token_pattern, so that weights are those of its vectoriser
_SENTENCE = re.compile(r"[.!?](?:\s|$)")
_OPTION = re.compile(r"\n[A-Z][.)] (.*)")
_NEGATION = re.compile(r"\b(?:not|except|NOT|EXCEPT)\b")
_SYMBOLS = frozenset("=+*^()\\<>|")
_LARGEST = 1e12

NAMES = (
    "log_characters",
    "characters",
    "log_words",
    "log_numbers",
    "distinct_numbers",
    "log_sentences",
    "characters_a_word",
    "upper_case_share",
    "digit_share",
    "percent_signs",
    "dollar_signs",
    "commas",
    "question_marks",
    "lines",
    "decimals",
    "slashes",
    "distinct_word_share",
    "log_question_characters",
    "log_longest_option",
    "log_shortest_option",
    "log_mean_option",
    "options_with_numbers",
    "blank",
    "negation",
    "symbol_share",
    "log_largest_number",
    "log_median_word",
)


def read(prompt: str) -> str:
    """The part of a prompt that features are read from: all of it, or both ends of a very long one."""
    half = READ // 2
    return prompt if len(prompt) <= READ else f"{prompt[:half]} {prompt[-half:]}"


def hand_features(prompt: str) -> list[float]:
    """One value for each of NAMES; finite for every text, the empty one too."""
    text = read(prompt)
    size = max(len(text), 1)
    words = _WORD.findall(text)
    numbers = _NUMBER.findall(text)
    first_option = _OPTION.search(text)
    question = text[: first_option.start()] if first_option else text
    options = _OPTION.findall(text)
    lengths = [len(option) for option in options] or [0]
    return [
        log1p(len(prompt)),
        len(prompt) / 500,
        log1p(len(words)),
        log1p(len(numbers)),
        float(len(set(numbers))),
        log1p(len(_SENTENCE.findall(text))),
        size / max(1, len(words)),
        sum(map(str.isupper, text)) / size,
        sum(map(str.isdigit, text)) / size,
        float(text.count("%")),
        float(text.count("$")),
        float(text.count(",")),
        float(text.count("?")),
        float(text.count("\n")),
        float(sum("." in number.rstrip(".") for number in numbers)),
        float(text.count("/")),
        len({word.lower() for word in words}) / max(1, len(words)),
        log1p(len(question)),
        log1p(max(lengths)),
        log1p(min(lengths)),
        log1p(sum(lengths) / len(lengths)),
        float(sum(bool(_NUMBER.search(option)) for option in options)),
        float("_" in text),
        float(bool(_NEGATION.search(question))),
        sum(map(_SYMBOLS.__contains__, text)) / size,
        log1p(max(map(_value, numbers), default=0.0)),
        log1p(median(map(len, words))) if words else 0.0,
    ]


def _value(number: str) -> float:
    """A number as written, at most 1e12: one identifier of forty digits must not outweigh the rest."""
    try:
        return min(float(number.replace(",", "")), _LARGEST)
    except ValueError:
        return 0.0


# Terms, weighted as scikit-learn does: sublinear counts, smoothed inverse document frequency, L2 norm.

Kind = Literal["word", "char"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_CHAR = (2, 4)
_WORDS, _LONG = 8192, 40
"""Words that are remembered, and the longest of them: a few megabytes at most."""


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


@lru_cache(maxsize=4096)  # training reads the same words again and again; the memory is a few megabytes
def _grams(word: str) -> tuple[str, ...]:
    edged = f" {word} "
    size = len(edged)
    grams: list[str] = []
    for n in range(_CHAR[0], _CHAR[1] + 1):
        if size <= n:
            return (*grams, edged)  # a short word counts once, not once for every n
        grams += [edged[start : start + n] for start in range(size - n + 1)]
    return tuple(grams)


def idf(documents: int, frequency: int) -> float:
    """Smoothed inverse document frequency of a term that `frequency` of `documents` texts hold."""
    return log((1 + documents) / (1 + frequency)) + 1


class Finder:
    """Which of the known terms a text holds.

    For pieces of words it remembers what each word holds: most words of a prompt have been met before,
    and looking up a thousand pieces a prompt took half of a request's time.

    Args:
        kind: of the terms.
        index: place of each known term.
    """

    __slots__ = ("_index", "_kind", "_met")

    def __init__(self, kind: Kind, index: Mapping[str, int]) -> None:
        self._kind, self._index = kind, index
        self._met: dict[str, tuple[int, ...]] = {}

    def __call__(self, text: str) -> Counter[int]:
        """How often each known term occurs, by place."""
        if self._kind == "word":
            find = self._index.get
            known = ((find(term), count) for term, count in terms(text, "word").items())
            return Counter({place: count for place, count in known if place is not None})
        bag: list[int] = []
        for word in text.lower().split():
            places = self._met.get(word)
            bag += self._look_up(word) if places is None else places
        return Counter(bag)

    def _look_up(self, word: str) -> tuple[int, ...]:
        find = self._index.get
        places = tuple([place for gram in _grams(word) if (place := find(gram)) is not None])
        if len(word) <= _LONG:
            if len(self._met) >= _WORDS:
                self._met.clear()
            self._met[word] = places
        return places


def weights(counts: Mapping[int, int], inverse: Sequence[float]) -> tuple[list[float], float]:
    """Weights of the known terms in the order of their counts, and the Euclidean length to divide them by.

    Args:
        counts: how often each known term occurs, by place.
        inverse: inverse document frequency at each place.
    """
    shares = [1.0 if count == 1 else 1 + log(count) for count in counts.values()]
    weighted = list(map(mul, shares, map(inverse.__getitem__, counts)))
    return weighted, sqrt(sum(map(mul, weighted, weighted))) or 1.0  # no known term, nothing to divide
