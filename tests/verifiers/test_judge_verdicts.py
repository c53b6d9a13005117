"""One candidate at a time: verdicts, probabilities, nonsense and what all of it costs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

import pytest

import outthink as ot
from outthink.core.sample import Candidate
from outthink.session.scoring import Asking
from outthink.verifiers.judge import PAIR, YES_NO, JudgeReply, JudgeVerifier, probability, verdict
from outthink.verifiers.protocol import Score

REQUEST = ot.Request.of("What is 2 + 2?", answer="number")


class Model:
    """A judge's model whose replies are told; it remembers what it was asked."""

    model, parameters = "wise-7b", 7

    def __init__(self, reply: Callable[[str, int], JudgeReply], concurrency: int = 1) -> None:
        self.reply, self.concurrency = reply, concurrency
        self.asked: list[tuple[str, ot.Sampling]] = []
        self.running = self.peak = 0

    async def __call__(self, messages: tuple[ot.Message, ...], sampling: ot.Sampling, top_logprobs: int) -> JudgeReply:
        assert top_logprobs == 20
        self.asked.append(("\n".join(message.text for message in messages), sampling))
        number = len(self.asked) - 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        if self.concurrency > 1:
            await asyncio.sleep(0)
        self.running -= 1
        return self.reply(self.asked[number][0], number)


def said(text: str, tokens: Sequence[tuple[str, dict[str, float]]] = ()) -> JudgeReply:
    return JudgeReply(text, 30, 7, 0, tokens)


def judge(reply: Callable[[str, int], JudgeReply], texts: Sequence[str] = ("4",), **options: object) -> tuple:
    model = Model(reply, int(options.pop("concurrency", 1)))
    verifier = JudgeVerifier(model, **options)
    scores = asyncio.run(verifier.score(REQUEST, [Candidate((text,)) for text in texts]))
    return scores, model, verifier


@pytest.mark.parametrize(
    ("text", "words", "word"),
    [
        ("It adds up.\nVerdict: yes", YES_NO, "yes"),
        ("**Verdict: No.**", YES_NO, "no"),
        ("verdict - `YES`", YES_NO, "yes"),
        ("Verdict: no\nWait, I was wrong.\nVerdict: yes", YES_NO, "yes"),
        (" No.", YES_NO, "no"),
        ("Verdict: B", PAIR, "b"),
        ("Verdict: yes or no", YES_NO, None),
        ("Yes, but that is no answer", YES_NO, None),
        ("Verdict: yesterday", YES_NO, None),
        ("A cat", PAIR, None),
        ("", YES_NO, None),
    ],
)
def test_how_a_reply_is_read(text: str, words: tuple[str, str], word: str | None) -> None:
    assert verdict(text, words) == word


def test_the_probability_is_read_at_the_verdict_token() -> None:
    tokens = [
        (" no", {" no": math.log(0.99)}),  # not the verdict: it stands in the reasoning
        (" doubt.", {}),
        ("\nVerdict", {}),
        (":", {}),
        (" yes", {" yes": math.log(0.5), "Yes": math.log(0.1), " no": math.log(0.2), " maybe": math.log(0.2)}),
    ]
    reply = said("There is no doubt.\nVerdict: yes", tokens)
    assert probability(reply, YES_NO) == pytest.approx(0.6 / 0.8)
    (score,), _, _ = judge(lambda asked, number: reply)
    assert score.steps == pytest.approx((0.75,))
    assert "verdict token" in score.message


def test_a_word_after_the_verdict_is_not_the_verdict() -> None:
    tokens = [("Verdict:", {}), (" no", {" no": 0.0}), (", not", {}), (" yes", {" yes": 0.0})]
    assert probability(said("Verdict: no, not yes", tokens), YES_NO) == 0


def test_without_alternatives_the_share_of_votes_counts() -> None:
    verdicts = ["yes", "no", "yes", "yes"]
    (score,), model, _ = judge(lambda asked, number: said(f"Verdict: {verdicts[number]}"), votes=4)
    assert score.steps == (0.75,)
    assert "share of yes" in score.message
    assert all(sampling.temperature > 0 for _, sampling in model.asked)  # else all would be one vote
    assert (score.prompt_tokens, score.completion_tokens) == (4 * 30, 4 * 7)


def test_a_single_verdict_is_greedy() -> None:
    _, model, verifier = judge(lambda asked, number: said("Verdict: no"))
    assert model.asked[0][1].temperature == 0
    assert verifier.id == "judge:wise-7b:yes-no,votes=1"
    assert (verifier.kind, verifier.model, verifier.parameters) == ("generative", "wise-7b", 7)


def test_nonsense_is_asked_again_and_then_unscored_but_charged() -> None:
    (lost, result), model, _ = judge(
        lambda asked, number: said("Verdict: yes" if "good" in asked and "one line only" in asked else "Hm."),
        ["bad", "good"],
    )
    assert (lost.steps, result.steps) == ((), (1.0,))
    assert (lost.prompt_tokens, lost.completion_tokens) == (60, 14)
    assert (result.prompt_tokens, result.completion_tokens) == (60, 14)
    assert len(model.asked) == 4
    assert model.asked[1][1].max_tokens == 16


def test_unknown_counts_stay_unknown() -> None:
    (score,), _, _ = judge(lambda asked, number: JudgeReply("Verdict: yes"))
    assert (score.prompt_tokens, score.completion_tokens) == (None, None)


def test_the_bound_holds_for_the_worst_reply() -> None:
    """A tokeniser that makes one token of every byte, 16 tokens of frame a message, replies at their caps."""
    spent = 0

    async def worst(messages: tuple[ot.Message, ...], sampling: ot.Sampling, top_logprobs: int) -> JudgeReply:
        nonlocal spent
        spent += sum(len(message.text.encode()) + 16 for message in messages) + sampling.max_tokens
        return said("Hm.")

    for mode in ("yes-no", "pairwise"):
        for count in (1, 2, 3, 9):
            spent = 0
            verifier = JudgeVerifier(worst, mode=mode, votes=2, max_tokens=50)
            candidates = [Candidate((f"{'ä' * (17 * at)}",)) for at in range(1, count + 1)]
            asyncio.run(verifier.score(REQUEST, candidates))
            assert spent <= sum(verifier.bound(REQUEST, candidate) for candidate in candidates)


def test_several_run_at_once_where_the_model_allows_it() -> None:
    scores, model, _ = judge(lambda asked, number: said("Verdict: yes"), ["1", "2", "3"], concurrency=8)
    assert model.peak == 3
    assert [score.steps for score in scores] == [(1.0,)] * 3


def test_an_engine_that_fails_is_an_engine_error_and_nothing_runs_on() -> None:
    def fail(asked: str, number: int) -> JudgeReply:
        raise ot.EngineError("the judge has died", fatal=True)

    for concurrency in (1, 4):
        with pytest.raises(ot.EngineError, match="died"):
            judge(fail, ["1", "2", "3"], concurrency=concurrency)


@pytest.mark.parametrize(
    ("options", "named"), [({"votes": 0}, "votes"), ({"mode": "rank"}, "mode"), ({"rounds": 0}, "rounds")]
)
def test_bad_input(options: dict[str, object], named: str) -> None:
    with pytest.raises(ot.BadInput, match=named):
        judge(lambda asked, number: said(""), **options)


CANARY = "KEY-7391"


def test_the_key_is_never_shown_to_a_judge() -> None:
    request = ot.Request.of("What is 2 + 2?", answer=lambda text: CANARY, problem=f"problem-{CANARY}")
    for mode in ("yes-no", "pairwise"):
        model = Model(lambda asked, number: said("Hm."))
        sample = ot.Sample(0, "4", CANARY, CANARY, 5)
        candidates = [Candidate(("four",), sample), Candidate(("five",), sample)]
        asyncio.run(JudgeVerifier(model, mode=mode).score(request, candidates))
        assert len(model.asked) == 4
        assert all(CANARY not in asked and "2 + 2" in asked for asked, _ in model.asked)


def best_by(verifier: object) -> Callable[..., object]:
    async def strategy(session: ot.Session, request: ot.Request) -> ot.Verdict:
        samples = [sample async for sample in session.sample(request, n=3, ahead=3)]
        scores: list[Score | None] = await session.score(request, samples, verifier)
        known = [(score.value("last"), sample) for score, sample in zip(scores, samples, strict=True) if score]
        if not known:
            return ot.Verdict(samples[0].answer, samples[0].text)
        best = max(known, key=lambda pair: pair[0])[1]
        return ot.Verdict(best.answer, best.text)

    return strategy


def judging(call: ot.engines.protocol.Call) -> ot.Completion:
    right = "answer is 2" in call.messages[-1].text
    return ot.Completion(text=f"Checked.\nVerdict: {'yes' if right else 'no'}", tokens=9)


@pytest.mark.parametrize("live", [False, True])
def test_a_judge_on_a_scripted_engine_runs_on_both_clocks_and_is_charged(live: bool) -> None:
    engine = ot.ScriptedEngine.sequence(["1", "2", "3"], tokens=10, prompt_tokens=5, speed=ot.Speed(stream=1e5))
    asking = Asking(ot.ScriptedEngine(judging, model="judge-1b", prompt_tokens=40))
    verifier = JudgeVerifier(asking)
    model = engine.live() if live else engine
    result = asyncio.run(ot.ask("q", model=model, answer="number", strategy=best_by(verifier)))
    assert result.answer == "2"
    (entry,) = [entry for entry in result.receipt.entries if entry.role == "verifier"]
    assert (entry.model, entry.prompt_tokens, entry.completion_tokens) == ("judge-1b", 120, 27)
    assert result.receipt.tokens == 3 * 15 + 147


def test_a_judge_that_talks_nonsense_leaves_a_note_and_its_bill() -> None:
    engine = ot.ScriptedEngine.sequence(["1", "2", "3"], tokens=10, prompt_tokens=5)
    mad = ot.ScriptedEngine(lambda call: ot.Completion(text="Purple.", tokens=2), prompt_tokens=40)
    result = asyncio.run(ot.ask("q", model=engine, answer="number", strategy=best_by(JudgeVerifier(Asking(mad)))))
    assert result.answer == "1"
    assert any("counts as unscored" in note for note in result.receipt.notes)
    (entry,) = [entry for entry in result.receipt.entries if entry.role == "verifier"]
    assert entry.tokens == 3 * 2 * 42


def test_a_judge_whose_engine_fails_keeps_the_samples() -> None:
    engine = ot.ScriptedEngine.sequence(["1", "2", "3"], tokens=10, prompt_tokens=5)
    dead = ot.ScriptedEngine(lambda call: ot.Completion(fault=ot.Fault(fatal=True, message="gone")))
    result = asyncio.run(ot.ask("q", model=engine, answer="number", strategy=best_by(JudgeVerifier(Asking(dead)))))
    assert result.answer == "1"
    assert any("gone" in note for note in result.receipt.notes)
