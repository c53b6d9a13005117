"""`session.score`: verifiers are charged like everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

import outthink as ot
from outthink.core.errors import EngineError
from outthink.core.sample import Candidate
from outthink.session.virtual.runner import RateRunner
from outthink.verifiers import FunctionVerifier, Score


class Judge:
    """Gives every text the share of its letters that are 'a', for ten tokens a text."""

    def __init__(self, *, told: bool = True, fails: bool = False, waits: bool = False) -> None:
        self.id, self.kind, self.model, self.parameters = "judge@1", "outcome", "judge", 1000
        self.separator, self.aggregation = "\n\n", "last"
        self.told, self.fails, self.waits = told, fails, waits

    def bound(self, request: ot.Request, candidate: Candidate) -> int:
        return 20

    async def score(self, request: ot.Request, candidates: Sequence[Candidate]) -> list[Score]:
        if self.fails:
            raise EngineError("the judge has died")
        if self.waits:
            await asyncio.Event().wait()
        shares = [candidate.text.count("a") / max(1, len(candidate.text)) for candidate in candidates]
        return [Score((share,), 8 if self.told else None, 2) for share in shares]


def best_of(verifier: object, n: int = 3):
    async def strategy(session: ot.Session, request: ot.Request) -> ot.Verdict:
        samples = [sample async for sample in session.sample(request, n=n, ahead=n)]
        scores = await session.score(request, samples, verifier)
        if not samples or None in scores:
            return ot.Verdict(None, "unscored")
        best = max(range(len(samples)), key=lambda i: scores[i].value("last"))
        return ot.Verdict(samples[best].answer, samples[best].text)

    return strategy


def ask(verifier: object, engine: object | None = None, **options: object) -> ot.Result:
    engine = engine or ot.ScriptedEngine.sequence(["1", "2", "3"], tokens=10, prompt_tokens=5)
    return asyncio.run(ot.ask("q", model=engine, answer="number", strategy=best_of(verifier), **options))


def test_a_function_finds_the_right_sample_for_nothing() -> None:
    result = ask(FunctionVerifier(lambda request, text: "answer is 2" in text))
    assert result.answer == "2"
    assert result.receipt.tokens == 3 * 15
    (entry,) = [entry for entry in result.receipt.entries if entry.role == "verifier"]
    assert (entry.tokens, entry.usd, entry.flops) == (0, 0, 0)


def test_a_verifiers_tokens_are_in_the_receipt() -> None:
    result = ask(Judge())
    assert result.receipt.tokens == 3 * 15 + 3 * 10
    (entry,) = [entry for entry in result.receipt.entries if entry.role == "verifier"]
    assert (entry.model, entry.tokens, entry.flops) == ("judge", 30, 2 * 1000 * 30)
    assert entry.usd is None  # nobody has said what the judge costs
    assert result.receipt.usd is None


def test_a_score_that_is_no_number_is_named_and_counts_as_missing() -> None:
    result = ask(FunctionVerifier(lambda request, text: float("nan")))
    assert result.text == "unscored"
    assert any("nan" in note for note in result.receipt.notes)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ConnectionResetError(), ZeroDivisionError("1/0")])
def test_a_verifier_that_dies_of_anything_leaves_samples_and_receipt(error: Exception) -> None:
    def dies(request: ot.Request, text: str) -> float:
        raise error

    for strategy in (best_of(FunctionVerifier(dies)), "weighted-vote:n=3"):
        engine = ot.ScriptedEngine.sequence(["1", "2", "2"], tokens=10, prompt_tokens=5)
        asked = ot.ask("q", model=engine, answer="number", strategy=strategy, verifier=FunctionVerifier(dies))
        result = asyncio.run(asked)
        assert result.receipt.tokens == 3 * 15
        assert any(type(error).__name__ in note and str(error) in note for note in result.receipt.notes)
        assert [entry.status for entry in result.receipt.entries if entry.role == "verifier"] == ["failed"]
    assert result.answer == "2"  # the majority's


def test_a_score_that_is_text_counts_as_missing() -> None:
    class Says(Judge):
        async def score(self, request: ot.Request, candidates: Sequence[Candidate]) -> list[Score]:
            return [Score(("good",), 8, 2) for _ in candidates]  # type: ignore[arg-type]

    result = ask(Says())
    assert result.text == "unscored"
    assert any("'good', which is not between 0 and 1" in note for note in result.receipt.notes)


def test_a_budget_that_cannot_pay_the_verifier_keeps_the_answer_so_far() -> None:
    result = ask(Judge(), budget="tokens=260")  # three samples reserve less, their judging 60 more than is left
    assert result.receipt.tokens <= 260
    tight = ask(Judge(), ot.ScriptedEngine.sequence(["1"], tokens=60, prompt_tokens=5), budget="tokens=240")
    assert tight.stopped == "budget:tokens"
    assert tight.receipt.tokens <= 240


def test_untold_counts_are_unknown_and_bounded() -> None:
    result = ask(Judge(told=False))
    assert result.receipt.tokens is None
    assert result.receipt.total("tokens").at_most == 45 + 60


def test_a_verifier_that_dies_leaves_its_entry_and_a_note() -> None:
    result = ask(Judge(fails=True))
    assert result.text == "unscored"
    assert any("judge has died" in note for note in result.receipt.notes)
    (entry,) = [entry for entry in result.receipt.entries if entry.role == "verifier"]
    assert (entry.status, entry.tokens) == ("failed", None)  # what it had read is not known
    assert len([entry for entry in result.receipt.entries if entry.role == "policy"]) == 3


SLOW_JUDGE = ot.Speed(total=1e9, judge=100)


def slowly_judged(**options: object) -> ot.Result:
    engine = ot.ScriptedEngine.sequence(["1", "2", "3"], tokens=10, prompt_tokens=5, speed=SLOW_JUDGE)
    return ask(Judge(), engine, **options)


def test_judging_takes_virtual_time() -> None:
    result = slowly_judged()
    generating = 5 / 5000 + 10 / 50
    assert result.receipt.seconds == pytest.approx(generating + 3 * 10 / 100)
    assert result.receipt.entries[-1].seconds == pytest.approx(3 * 10 / 100)


def test_a_deadline_ends_a_judgement_which_is_charged_whole_and_gives_no_score() -> None:
    result = slowly_judged(budget="seconds=0.3")
    assert (result.text, result.stopped, result.receipt.seconds) == ("unscored", "budget:seconds", 0.3)
    (entry,) = [entry for entry in result.receipt.entries if entry.role == "verifier"]
    assert (entry.status, entry.prompt_tokens, entry.completion_tokens, entry.cancelled_tokens) == (
        "cancelled",
        24,
        0,
        6,
    )


def test_what_is_performed_for_seconds_ends_then_and_else_at_once() -> None:
    async def job() -> str:
        return "done"

    runner = RateRunner(ot.ScriptedEngine.sequence(["1"]))
    assert runner.perform(job()).finished
    work, cancelled = runner.perform(job(), 2.5), runner.perform(job(), lambda result: len(result))
    assert not work.finished
    cancelled.cancel()
    runner.advance()
    assert (work.finished, work.result, runner.now()) == (True, "done", 2.5)
    with pytest.raises(ot.OutthinkError, match="nothing is in flight"):
        runner.advance()
    assert not cancelled.finished


def test_without_a_verifier_the_remedy_is_named() -> None:
    with pytest.raises(ot.BadInput, match="--verifier"):
        ask(None)


def test_a_verifier_that_waits_cannot_run_on_a_virtual_clock() -> None:
    with pytest.raises(ot.OutthinkError, match="virtual clock"):
        ask(Judge(waits=True))
