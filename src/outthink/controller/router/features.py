"""Hand features of a prompt: how long it is, what it is made of.

Knows: plain counts that are read off the text in microseconds. Does not know their weights, nor which
task the prompt belongs to; the features of answer options are zero where there are none.
"""

from __future__ import annotations

import re
from math import log1p
from statistics import median

READ = 1200
"""Characters of a prompt that are read for features, half from either end; its length counts whole."""

_NUMBER = re.compile(r"\d[\d,]*\.?\d*")
_WORD = re.compile(r"\w\w+")
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
