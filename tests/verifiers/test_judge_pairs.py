"""Candidates against each other: both orders, their agreement, and permutations."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Sequence

import outthink as ot
from outthink.core.sample import Candidate
from outthink.verifiers.judge import JudgeReply, JudgeVerifier
from outthink.verifiers.protocol import Score

REQUEST = ot.Request.of("What is 2 + 2?", answer="number")
Choice = Callable[[int, int], str]


def compare(choice: Choice, values: Sequence[int], **options: int) -> tuple[list[Score], JudgeVerifier, list[str]]:
    """Candidates are numbers in words of their own; `choice` names A or B for two numbers in this order."""
    asked: list[str] = []

    async def complete(messages: tuple[ot.Message, ...], sampling: ot.Sampling, top_logprobs: int) -> JudgeReply:
        text = messages[-1].text
        asked.append(text)
        a, b = (int(result) for result in re.findall(r"value (\d+)", text))
        return JudgeReply(f"Verdict: {choice(a, b)}", 20, 5)

    verifier = JudgeVerifier(complete, mode="pairwise", **options)
    scores = asyncio.run(verifier.score(REQUEST, [Candidate((f"value {value}",)) for value in values]))
    return scores, verifier, asked


def larger(a: int, b: int) -> str:
    return "A" if a > b else "B"


def test_win_shares_where_every_pair_is_compared_in_both_orders() -> None:
    scores, verifier, asked = compare(larger, [3, 1, 5, 2, 4])
    assert [score.steps for score in scores] == [(0.5,), (0.0,), (1.0,), (0.25,), (0.75,)]
    assert len(asked) == 10 * 2
    assert len(set(asked)) == 20
    assert sum(score.prompt_tokens or 0 for score in scores) == 20 * 20
    assert sum(score.completion_tokens or 0 for score in scores) == 20 * 5
    assert verifier.agreement == 1
    assert scores[2].message == "won 4 of 4 comparisons; both orders agree in 4"
    assert "10 of 10" in verifier.notes[0]


def test_a_judge_that_likes_the_first_place_gives_everyone_the_same() -> None:
    scores, verifier, _ = compare(lambda a, b: "A", [3, 1, 2])
    assert [score.steps for score in scores] == [(0.5,)] * 3
    assert verifier.agreement == 0


def test_the_order_of_the_candidates_plays_no_part() -> None:
    """Spec 12.9: with more candidates than rounds reach, and a judge that errs on some orders."""

    def erring(a: int, b: int) -> str:
        return "A" if (7 * a + 3 * b) % 5 > 2 else "B"

    values = list(range(11))
    scores, _, _ = compare(erring, values, rounds=2)
    known = {value: score.steps for value, score in zip(values, scores, strict=True)}
    for seed in range(5):
        shuffled = random.Random(seed).sample(values, len(values))
        again, _, _ = compare(erring, shuffled, rounds=2)
        assert {value: score.steps for value, score in zip(shuffled, again, strict=True)} == known


def test_rounds_limit_the_comparisons() -> None:
    scores, verifier, asked = compare(larger, list(range(12)), rounds=2)
    assert len(asked) == 12 * 2 * 2
    assert verifier.compared == 24
    assert all("of 4 comparisons" in score.message for score in scores)


def test_a_lone_candidate_and_a_pair_without_verdict_have_no_score() -> None:
    (lone,), verifier, asked = compare(larger, [1])
    assert (lone.steps, lone.prompt_tokens, asked) == ((), 0, [])
    assert verifier.agreement is None
    # One order of the pair gives no verdict: the other alone would keep the liking of a place.
    scores, verifier, asked = compare(lambda a, b: "A" if a > b else "neither", [1, 2])
    assert [score.steps for score in scores] == [(), ()]
    assert len(asked) == 3
    assert sum(score.prompt_tokens or 0 for score in scores) == 60


def test_equal_candidates_are_told_apart_by_nothing() -> None:
    scores, _, asked = compare(lambda a, b: "A", [4, 4])
    assert [score.steps for score in scores] == [(0.5,), (0.5,)]
    assert len(asked) == 2
