"""Revision chains: the grid, what a revision is shown, and selection in two steps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from outthink import BadInput, Completion, ScriptedEngine, Speed
from outthink.core.sample import Sample
from outthink.engines.protocol import Call
from outthink.strategies import Spec
from outthink.strategies.serial.revision import Attempt, grid, revised, select
from outthink.verifiers.checks import FunctionVerifier
from support.runs import Run, question, virtual

WIDE = Speed(total=1e9, concurrency=64)
SCORES = {"1": 0.2, "2": 0.9, "3": 0.5}


def depth(call: Call) -> int:
    """How many attempts the prompt shows."""
    return call.messages[-1].text.count("Attempt ")


def rated(name: str = "function", *, exact: bool = False) -> FunctionVerifier:
    return FunctionVerifier(
        lambda request, text: next((s for a, s in SCORES.items() if f"is {a}" in text), 0.0), name=name, exact=exact
    )


def revise(table: Sequence[Sequence[str]], spec: str, **options: object) -> Run:
    """`table[chain][revision]` is what each attempt answers: chains are told apart by their first answer's number."""

    def script(call: Call) -> Completion:
        if not depth(call):
            chain = call.index
            return Completion(text=f"Chain {chain}. The answer is {table[chain][0]}.", tokens=50)
        chain = int(call.messages[-1].text.rpartition("Chain ")[2][0])
        return Completion(text=f"Chain {chain}. The answer is {table[chain][depth(call)]}.", tokens=50)

    run = virtual(Spec.parse(spec), ScriptedEngine(script, speed=WIDE), **options)  # type: ignore[arg-type]
    if run.error is not None:
        raise run.error
    return run


@pytest.mark.parametrize(
    ("n", "chains", "shape"),
    [(16, None, (4, 4)), (8, None, (4, 2)), (2, None, (2, 1)), (7, None, (7, 1)), (1, None, (1, 1)), (16, 2, (2, 8))],
)
def test_the_grid_has_n_cells(n: int, chains: int | None, shape: tuple[int, int]) -> None:
    assert grid(n, chains) == shape


def test_chains_that_do_not_divide_n_are_refused() -> None:
    with pytest.raises(BadInput, match="does not divide"):
        grid(16, 3)


@pytest.mark.parametrize("answers", [["1", "2", "2", "3"], ["3", "1", "1", "3"], ["2", "1", "3", "1"]])
def test_one_revision_is_self_consistency(answers: list[str]) -> None:
    def play(spec: str) -> Run:
        return virtual(Spec.parse(spec), ScriptedEngine.sequence(answers, tokens=[40, 60, 80, 70], speed=WIDE))

    one, other = play("revision:n=4,chains=4"), play("self-consistency:n=4")
    assert one.value == other.value
    assert one.receipt.tokens == other.receipt.tokens
    assert one.receipt.seconds == other.receipt.seconds


@pytest.mark.parametrize("answers", list(itertools.permutations(["1", "2", "3"])))
def test_one_revision_with_a_verifier_is_best_of_c(answers: tuple[str, ...]) -> None:
    run = revise([[answer] for answer in answers], "revision:n=3,chains=3", verifier=rated())
    assert run.value.answer == "2"
    assert len(run.calls) == 3


def test_the_last_revision_does_not_win_by_being_last() -> None:
    assert revise([["1", "1", "3"]], "revision:n=3,chains=1").value.answer == "1"
    assert revise([["1", "2", "3"]], "revision:n=3,chains=1", verifier=rated()).value.answer == "2"


def test_chains_vote_with_what_each_has_selected() -> None:
    table = [["1", "1", "3"], ["1", "3", "1"], ["3", "3", "3"]]  # five of nine attempts say 3, two of three chains 1
    assert revise(table, "revision:n=9").value.answer == "1"


@pytest.mark.parametrize("later", list(itertools.permutations(["1", "2", "3"])))
def test_no_chain_sees_another_chains_answers(later: tuple[str, ...]) -> None:
    """Whatever the later chains answer, the first chain's prompts and its own selection stay the same."""
    table = [["1", "3", "1"], list(later), list(reversed(later))]
    run = revise(table, "revision:n=9")
    mine = [call.messages[-1].text for call in run.calls if "Chain 0" in call.messages[-1].text]
    assert [text.count("answer 1") for text in mine] == [1, 1]
    assert not [text for text in mine if "Chain 1" in text or "Chain 2" in text]
    chain = [Attempt(Sample(i, f"{a}", a, "x", 50)) for i, a in enumerate(table[0])]
    chosen = select(run.session, chain)
    assert chosen is not None
    assert chosen.sample.answer == "1"


def test_a_revision_sees_the_last_four_attempts_and_no_more() -> None:
    run = revise([["1", "2", "3", "1", "2", "3"][:6]], "revision:n=6,chains=1", request=question())
    assert [depth(call) for call in run.calls] == [0, 1, 2, 3, 4, 4]
    last = run.calls[-1].messages[-1].text
    assert "Attempt 2: answer 2" in last
    assert "Attempt 1:" not in last
    assert "What is 17 * 23?" in last


def test_an_exact_verifier_is_quoted_and_ends_everything_at_its_first_pass() -> None:
    check = FunctionVerifier(lambda request, text: "is 2" in text, exact=True)
    run = revise([["1", "3", "2", "1"], ["1"] * 4], "revision:n=8,chains=2", verifier=check)
    assert (run.value.answer, run.value.stopped, len(run.calls)) == ("2", "consensus", 3)
    assert run.calls[1].messages[-1].text.count("It did not pass.") == 1
    assert revise([["2"], ["1"]], "revision:n=2", verifier=check).calls[1:] == []


def test_only_an_exact_check_is_told_to_the_model() -> None:
    run = revise([["1", "3"]], "revision:n=2,chains=1", verifier=rated())
    assert "Check:" not in run.calls[1].messages[-1].text


def test_attempts_without_a_score_do_not_win_over_scored_ones() -> None:
    half = FunctionVerifier(lambda request, text: float("nan") if "is 1" in text else 0.1)
    run = revise([["1"], ["1"], ["3"]], "revision:n=3,chains=3", verifier=half)
    assert run.value.answer == "3"
    assert any("not between 0 and 1" in note for note in run.receipt.notes)


def test_a_rationale_is_shown_from_its_end() -> None:
    long = Sample(0, "x" * 1000 + "END", "4", "x", 50)
    text = revised(question(), [Attempt(long)]).messages[-1].text
    assert "END" in text
    assert len(text) < 1000
