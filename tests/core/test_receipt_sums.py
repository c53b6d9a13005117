"""Sums over ledger entries: a part that is unknown stays unknown, between what is known and a bound."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from outthink.core.receipt import Entry, Receipt

KNOWN = Entry("policy", "m", "finished", 20, 100, 0, usd=0.5, joules=3.0, flops=1e9)
CANCELLED = Entry("policy", "m", "cancelled", 20, 0, 30, usd=0.25, joules=1.0, flops=5e8)
UNTOLD = Entry(
    "policy", "m", "cancelled", None, 0, None, estimated=True, reserved_tokens=600, reserved_usd=2.0, seen_tokens=7
)


def test_tokens_are_prompt_completion_and_cancelled() -> None:
    receipt = Receipt((KNOWN, CANCELLED), 2.5)
    assert (receipt.tokens, receipt.usd, receipt.joules, receipt.seconds) == (170, 0.75, 4.0, 2.5)
    assert receipt.known["tokens"] == receipt.at_most["tokens"] == 170


def test_one_unknown_entry_makes_the_sum_unknown_and_never_zero() -> None:
    receipt = Receipt((KNOWN, UNTOLD), 2.5)
    assert receipt.tokens is None
    assert receipt.usd is None
    assert receipt.flops is None
    assert receipt.known["tokens"] == 120 + 7
    assert receipt.at_most["tokens"] == 120 + 600
    assert (receipt.known["usd"], receipt.at_most["usd"]) == (0.5, 2.5)


def test_a_part_without_any_bound_leaves_at_most_unknown() -> None:
    receipt = Receipt((KNOWN, UNTOLD), 2.5)
    assert receipt.at_most["joules"] is None
    assert receipt.known["joules"] == 3.0
    assert receipt.at_most["flops"] is None


def test_an_unpriced_call_is_not_free() -> None:
    assert Receipt((Entry("policy", "m", "finished", 20, 100, 0),), 1.0).usd is None


def test_cached_entries_cost_nothing() -> None:
    cached = Entry("policy", "m", "cached", cached=True, seconds=0.0, flops=0.0, usd=0.0, joules=0.0)
    receipt = Receipt((KNOWN, cached), 1.0)
    assert (receipt.tokens, receipt.usd) == (120, 0.5)


def test_json_has_the_shape_of_the_contract() -> None:
    shown = json.loads(json.dumps(Receipt((KNOWN, UNTOLD), 2.5, ("a note",)).json()))
    assert {"tokens", "seconds", "usd", "joules", "flops", "known", "at_most", "entries", "notes"} == set(shown)
    assert shown["tokens"] is None
    assert shown["seconds"] == 2.5
    assert shown["known"] == {"tokens": 127, "seconds": 2.5, "usd": 0.5, "joules": 3.0, "flops": 1e9}
    assert shown["at_most"] == {"tokens": 720, "seconds": 2.5, "usd": 2.5, "joules": None, "flops": None}
    assert isinstance(shown["known"]["tokens"], int)
    assert len(shown["entries"]) == 2


counts = st.none() | st.integers(0, 1000)


@given(st.lists(st.builds(Entry, st.just("policy"), st.just("m"), st.just("finished"), counts, counts, counts)))
def test_the_sum_is_known_exactly_when_every_part_is(entries: list[Entry]) -> None:
    parts = [(e.prompt_tokens, e.completion_tokens, e.cancelled_tokens) for e in entries]
    unknown = any(None in part for part in parts)
    receipt = Receipt(tuple(entries), 0.0)
    assert (receipt.tokens is None) == unknown
    if not unknown:
        assert receipt.tokens == sum(sum(part) for part in parts)  # type: ignore[arg-type]
    assert receipt.known["tokens"] == sum(number or 0 for part in parts for number in part)
