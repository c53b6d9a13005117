"""Early exit by trial answers: when it leaves, when it must not, and what it pays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from outthink import BadInput, Completion, ScriptedEngine, Unsupported
from outthink.engines.protocol import Call
from outthink.strategies import Spec
from outthink.strategies.serial.length import Exit
from outthink.strategies.serial.thinking import CLOSE, CUE, TrialAnswer
from support.reasoning_model import ReasoningModel
from support.runs import Run, question, virtual

PIECE = 64
TRACE = "".join(f"{i:03d} " for i in range(640))  # 640 tokens of four characters


class Trials(ScriptedEngine):
    """Thinks `TRACE`, then answers 1; its trial answers and their probabilities are given."""

    def __init__(self, answers: Sequence[str], sure: Sequence[float | None]) -> None:
        self.given = list(zip(answers, sure, strict=True))
        super().__init__(self.play)

    def play(self, call: Call) -> Completion:
        prefix = call.prefix or ""
        if prefix.endswith(CUE):
            place = round(len(prefix.partition(CLOSE)[0].rstrip("\n")) / (4 * PIECE)) - 1
            answer, sure = self.given[min(place, len(self.given) - 1)]
            return Completion(text=f" {answer}", tokens=3, logprob=None if sure is None else math.log(sure))
        if CLOSE in prefix:
            return Completion(text=" The answer is 1.", tokens=5)
        text = TRACE[len(prefix) :] + CLOSE
        return Completion(text=text, tokens=-(-len(text) // 4))


def leave(answers: Sequence[str], sure: Sequence[float | None], **more: object) -> Run:
    spec = f"early-exit:every={PIECE}" + "".join(f",{name}={value}" for name, value in more.items())
    return virtual(Spec.parse(spec), Trials(answers, sure), question(max_tokens=4000))


def probes(run: Run) -> int:
    return sum(entry.role == "probe" for entry in run.entries)


def test_it_leaves_at_the_second_of_two_sure_probes_that_agree() -> None:
    run = leave(["7"], [0.99])
    assert (run.value.answer, run.value.stopped, probes(run)) == ("7", "consensus", 2)
    main = sum(entry.completion_tokens or 0 for entry in run.entries if entry.role == "policy")
    total = sum(entry.completion_tokens or 0 for entry in run.entries)
    assert main == 2 * PIECE
    assert total == main + 2 * 3


def test_disagreeing_probes_never_leave() -> None:
    run = leave(["7", "8"] * 5, [0.99] * 10)
    assert (run.value.answer, run.value.stopped) == ("1", "finished")
    assert probes(run) == 10
    assert run.value.text.startswith(TRACE)


def test_agreeing_probes_of_low_confidence_never_leave() -> None:
    run = leave(["7"], [0.949])
    assert (run.value.answer, run.value.stopped) == ("1", "finished")


@pytest.mark.parametrize(("mode", "needed"), [("confidence", 3), ("consensus", 2), ("both", 3)])
def test_each_mode_asks_for_its_own_conditions(mode: str, needed: int) -> None:
    run = leave(["7", "7", "7"], [0.5, 0.6, 0.97], mode=mode)
    assert (run.value.answer, probes(run)) == ("7", needed)


def test_more_consensus_takes_more_probes() -> None:
    assert probes(leave(["7"], [0.99], consensus=4)) == 4


def test_confidence_alone_needs_no_second_probe() -> None:
    run = leave(["7", "8"], [0.99, 0.99], mode="confidence")
    assert (run.value.answer, probes(run)) == ("7", 1)


def test_hesitating_probes_are_discarded_and_unreadable_ones_end_a_streak() -> None:
    run = leave(["7", "hmm 8", "7"], [0.99, 0.99, 0.99])
    assert (run.value.answer, probes(run)) == ("7", 3)
    run = leave(["7", "not yet", "7", "7"], [0.99] * 4)
    assert (run.value.answer, probes(run)) == ("7", 4)


def test_without_log_probabilities_only_consensus_works() -> None:
    run = leave(["7"], [None])
    assert isinstance(run.error, Unsupported)
    assert "mode=consensus" in str(run.error)
    assert leave(["7"], [None], mode="consensus").value.answer == "7"


def test_an_answer_in_the_thinking_is_no_trial_answer() -> None:
    rule = Exit("m", 2, 0.95, "both")
    assert not rule.after(TrialAnswer(None, "", 0.99))

    class Stating(Trials):
        def play(self, call: Call) -> Completion:
            done = super().play(call)
            if (call.prefix or "").endswith(CUE):
                return Completion(text=" not sure", tokens=3, logprob=math.log(0.99))
            if call.prefix is None:
                return Completion(text="The answer is 5. " + (done.text or ""), tokens=done.tokens)
            return done

    run = virtual(Spec.parse(f"early-exit:every={PIECE}"), Stating(["7"], [0.99]), question(max_tokens=200))
    assert run.value.stopped == "finished"


def test_transitions_are_probed_without_the_turning_word() -> None:
    model = ReasoningModel()
    run = virtual(Spec.parse("early-exit:at=transitions"), model.engine(), question(max_tokens=8000, problem="p3/0"))
    tried = [call.prefix or "" for call in run.calls if (call.prefix or "").endswith(CUE)]
    assert len(tried) >= 2
    assert all(prefix.partition(CLOSE)[0].rstrip().endswith(".") for prefix in tried)
    assert run.value.stopped == "consensus"


def test_it_saves_tokens_on_the_scripted_reasoning_model() -> None:
    model, spent, accuracy = ReasoningModel(), {}, {}
    for spec in ("single", "early-exit:at=transitions"):
        spent[spec] = accuracy[spec] = 0
        for i in range(60):
            request = question(max_tokens=8000, problem=f"p{i}/0")
            run = virtual(Spec.parse(spec), model.engine(), request)
            spent[spec] += sum(entry.completion_tokens or 0 for entry in run.entries)
            accuracy[spec] += run.value.answer == model.truth(f"p{i}/0")
    assert spent["early-exit:at=transitions"] < 0.8 * spent["single"]
    assert accuracy["early-exit:at=transitions"] >= accuracy["single"] - 3


@pytest.mark.parametrize("spec", ["early-exit:mode=any", "early-exit:at=dawn", "early-exit:threshold=1.5"])
def test_wrong_parameters_are_named(spec: str) -> None:
    run = virtual(Spec.parse(spec), Trials(["7"], [0.99]))
    assert isinstance(run.error, BadInput)
