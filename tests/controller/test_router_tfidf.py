"""Our TF-IDF and scorer give what scikit-learn gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.controller.router.text import KINDS, NAMES, READ, Finder, Kind, hand_features, idf, read, terms, weights
from support.routing_rows import rows

TEXTS = [row["prompt"] for row in rows(40)] + [
    "",
    "a",
    "I  said: \n\n a b c — naïve ΣΑΣ İstanbul",
    "x" * 300,
    "Which one?\nA. 1,5\nB. 2.5 %\nC. $3\nD. none\nAnswer:",
]

KNOWN: dict[Kind, list[str]] = {"word": ["ab", "ab ab", "ba"], "char": [" a", "a ", "ab", "aba ", "é "]}
FINDERS = {kind: Finder(kind, {name: place for place, name in enumerate(KNOWN[kind])}) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_scikit_learn(kind: Kind) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    settings = {
        "word": {"ngram_range": (1, 2)},
        "char": {"analyzer": "char_wb", "ngram_range": (2, 4)},
    }[kind]
    theirs = text.TfidfVectorizer(sublinear_tf=True, min_df=2, **settings)
    matrix = theirs.fit_transform(TEXTS).toarray()
    names = theirs.get_feature_names_out()
    counted = [terms(text, kind) for text in TEXTS]
    frequency = {name: sum(name in counts for counts in counted) for name in {n for c in counted for n in c}}
    known = sorted(name for name, count in frequency.items() if count >= 2)
    inverse = [idf(len(TEXTS), frequency[name]) for name in known]
    find = Finder(kind, {name: place for place, name in enumerate(known)})
    assert known == names.tolist()
    for row, item in zip(matrix, TEXTS, strict=True):
        counts = find(item)
        result, length = weights(counts, inverse)
        mine = {place: weight / length for place, weight in zip(counts, result, strict=True)}
        assert [mine.get(place, 0.0) for place in range(len(known))] == pytest.approx(row.tolist(), abs=1e-12)


@settings(deadline=None)
@given(st.text(alphabet="ab .é", max_size=60))
def test_a_finder_counts_the_known_terms_of_any_text(text: str) -> None:
    for kind, find in FINDERS.items():
        counts = terms(text, kind)
        assert find(text) == {place: counts[name] for place, name in enumerate(KNOWN[kind]) if counts[name]}
        assert find(text) == find(text), "words that were met before count the same"


def test_terms_of_short_words() -> None:
    assert terms("ab a ab", "word") == {"ab": 2, "ab ab": 1}
    assert terms("a", "char") == {" a": 1, "a ": 1, " a ": 1}


def test_hand_features_are_finite_for_every_text() -> None:
    for text in [*TEXTS, " ", "9" * 5000, "1" + ",1" * 900, "_" * 20_000]:
        values = hand_features(text)
        assert len(values) == len(NAMES)
        assert np.isfinite(values).all()


def test_hand_features_count_what_they_say() -> None:
    result = dict(zip(NAMES, hand_features("It is NOT 5% of $40.\nA. 20\nB. none"), strict=True))
    assert result["distinct_numbers"] == 3
    assert result["percent_signs"] == result["dollar_signs"] == result["negation"] == 1
    assert result["options_with_numbers"] == 1
    assert result["log_longest_option"] == pytest.approx(np.log1p(4))
    assert result["log_largest_number"] == pytest.approx(np.log1p(40))


def test_very_long_prompts_are_read_at_both_ends() -> None:
    text = "begin " + "x " * READ + "end"
    assert read(text).startswith("begin")
    assert read(text).endswith("end")
    assert len(read(text)) == READ + 1
    assert hand_features(text)[0] == pytest.approx(np.log1p(len(text)))
