"""Think-with-Me: pauses, judges, feedback, fallbacks and controls on the scripted reasoning model."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from outthink import BadInput, Completion, Request, ScriptedEngine, Speed
from outthink.cli.ask import TerminalJudge
from outthink.core.sample import Candidate
from outthink.engines.protocol import Call, Outcome
from outthink.strategies import Spec
from outthink.strategies.serial.think_with_me import JUDGES, parsed
from outthink.strategies.serial.thinking import CLOSE
from outthink.verifiers.checks import FunctionVerifier
from support.reasoning_model import TURNS, WIDTH, ReasoningModel
from support.runs import Run, live, question, virtual

MODEL = ReasoningModel()
FAST = Speed(stream=1e9, total=1e9, prefill=1e9)
FEEDBACK = re.compile(r"<feedback>(.*?)</feedback>")


def think(spec: str = "", problem: str = "p3/0", *, engine: ScriptedEngine | None = None, **options: Any) -> Run:
    request = question(max_tokens=8000, problem=problem)
    options.setdefault("seed", 1)
    run = virtual(Spec.parse(f"think-with-me:{spec}"), engine or MODEL.engine(), request, **options)
    if run.error is not None:
        raise run.error
    return run


def said(run: Run) -> list[str]:
    return FEEDBACK.findall(run.value.text)


def score(function: Callable[[str], float], **options: Any) -> FunctionVerifier:
    return FunctionVerifier(lambda request, text: function(text), **options)


def test_it_pauses_before_turning_words_with_room_between_them() -> None:
    run = think("judge=always-continue")
    thinking = run.value.text.partition(CLOSE)[0]
    pieces = re.split(r"\n<feedback>sound, continue</feedback>\n", thinking)
    assert 2 <= len(pieces) - 1 <= 16
    turns = r"(?:Wait|But|Alternatively|Hmm|However|So|Therefore|Thus)[ ,]"
    assert all(re.match(turns, piece) for piece in pieces[1:])
    assert all(len(piece) >= 63 * WIDTH for piece in pieces[:-1])


def test_at_most_so_many_interventions() -> None:
    assert len(said(think("judge=always-continue,interventions=2"))) == 2
    assert len(said(think("judge=always-continue,pauses=every,m=1,gap=9"))) == 16


def test_a_complete_verdict_closes_the_thinking_and_has_the_answer_written() -> None:
    truth = MODEL.truth("p1/0")
    run = think("judge=verifier", "p1/0", verifier=score(lambda text: 0.5 if f"is {truth}." in text else 0.3))
    assert (run.value.answer, run.value.stopped) == (truth, "consensus")
    assert said(run)[-1] == "complete, stop"
    assert set(said(run)[:-1]) <= {"sound, continue"}
    assert "Final Answer:" in run.value.text


def test_an_unsound_verdict_redirects_in_place_of_the_turning_word() -> None:
    seen: list[str] = []

    def first_wrong(text: str) -> float:
        seen.append(text)
        return 0.0 if len(seen) == 1 else 0.3

    run = think("judge=verifier", verifier=score(first_wrong))
    assert said(run)[0] == "step 1 unsound"
    after = run.value.text.partition("</feedback>\n")[2]
    assert after.startswith("Wait,")
    assert run.value.text.startswith(seen[0] + "\n<feedback>")
    assert "1 redirected" in run.receipt.notes[-1]


def test_feedback_counts_against_the_limit() -> None:
    for limit in (150, 400):
        run = think(f"judge=always-continue,pauses=every,m=1,gap=20,max_think={limit}")
        thinking = run.value.text.partition(CLOSE)[0].rstrip("\n")
        assert said(run)
        assert len(thinking) <= limit * WIDTH


def test_the_model_judges_itself_at_its_own_cost() -> None:
    run = think("judge=self")
    judging = [entry for entry in run.entries if entry.role == "verifier"]
    assert judging
    assert all(entry.prompt_tokens and entry.completion_tokens for entry in judging)
    asked = [call for call in run.calls if "<reasoning>" in call.messages[-1].text]
    assert len(asked) == len(judging)
    assert all(call.sampling.temperature == 0 for call in asked)


@pytest.mark.parametrize("reply", ["Let me think.", '{"rational": 2, "complete": 0}', '{"rational": 1}', "{", "[]"])
def test_a_judge_that_answers_nonsense_lets_the_trace_go_on(reply: str) -> None:
    def script(call: Call) -> Completion:
        asked = "<reasoning>" in call.messages[-1].text
        return Completion(text=reply, tokens=5) if asked else MODEL.complete(call)

    run = think("judge=self", engine=ScriptedEngine(script, prompt_tokens=MODEL.engine().prompt_tokens))
    plain = virtual(Spec.parse("single"), MODEL.engine(), question(max_tokens=8000, problem="p3/0"))
    assert run.value.text == plain.value.text
    count = sum(entry.role == "verifier" for entry in run.entries)
    assert count > 0
    assert f"{count} without a usable opinion" in run.receipt.notes[-1]


def test_a_verifier_that_gives_nan_lets_the_trace_go_on() -> None:
    run = think("judge=verifier", verifier=score(lambda text: float("nan")))
    assert not said(run)
    assert re.search(r"[1-9]\d* without a usable opinion", run.receipt.notes[-1])


def test_opinions_are_read_strictly() -> None:
    opinion = parsed('Sure: {"rational": true, "complete": 0, "note": "fine"} done')
    assert opinion is not None
    assert (opinion.rational, opinion.complete, opinion.note) == (True, False, "fine")
    assert parsed("rational: 1, complete: 1") is None


def test_a_note_that_tells_the_answer_is_left_out() -> None:
    def script(call: Call) -> Completion:
        if "<reasoning>" in call.messages[-1].text:
            return Completion(text='{"rational": 0, "complete": 0, "note": "The answer is 42."}', tokens=9)
        return MODEL.complete(call)

    run = think("judge=self,interventions=1", engine=ScriptedEngine(script))
    assert said(run) == ["step 1 unsound"]
    assert any("left out" in note for note in run.receipt.notes)
    kept = ScriptedEngine(
        lambda call: (
            Completion(text='{"rational": 0, "complete": 0, "note": "Check the sign. More."}', tokens=9)
            if "<reasoning>" in call.messages[-1].text
            else MODEL.complete(call)
        )
    )
    assert said(think("judge=self,interventions=1", engine=kept)) == ["step 1 unsound: Check the sign."]


def test_an_exact_checks_message_is_never_passed_on() -> None:
    class WithFeedback(FunctionVerifier):
        async def score(self, request: Request, candidates: Any) -> Any:
            return [replace(item, message="expected 42") for item in await super().score(request, candidates)]

    run = think("judge=verifier,interventions=1", verifier=WithFeedback(lambda request, text: False, exact=True))
    assert said(run) == ["step 1 unsound"]


def test_nobody_and_always_continue_change_nothing_but_the_feedback() -> None:
    plain = virtual(Spec.parse("single"), MODEL.engine(), question(max_tokens=8000, problem="p3/0")).value.text
    assert think("judge=none").value.text == plain
    assert FEEDBACK.sub("", think("judge=always-continue").value.text).replace("\n", "") == plain.replace("\n", "")


def test_the_same_pauses_with_trial_answers_are_early_exit() -> None:
    run = think("judge=probe")
    assert run.value.stopped == "consensus"
    assert not said(run)
    assert sum(entry.role == "probe" for entry in run.entries) >= 2


def test_random_verdicts_follow_the_seed() -> None:
    texts = [think("judge=random,chance=0.3", seed=seed).value.text for seed in range(8)]
    assert texts == [think("judge=random,chance=0.3", seed=seed).value.text for seed in range(8)]
    assert len(set(texts)) > 1


def test_random_pauses_stand_at_sentence_ends_and_are_as_many() -> None:
    counts = {"conjunctions": 0, "random": 0, "every": 0}
    for pauses in counts:
        for i in range(30):
            run = think(f"judge=always-continue,interventions=999,gap=70,pauses={pauses}", f"p{i}/0", seed=i)
            counts[pauses] += len(said(run))
            if pauses == "random":
                before = re.findall(r"(.)\s*\n<feedback>", run.value.text)
                assert len(before) == len(said(run))
                assert set(before) <= {"."}
    assert 0.8 < counts["random"] / counts["conjunctions"] < 1.25
    assert 0.8 < counts["every"] / counts["conjunctions"] < 1.5


def test_rules_stop_once_an_answer_was_stated_twice() -> None:
    run = think("judge=rules", "p1/0")
    thinking = run.value.text.partition(CLOSE)[0]
    stated = re.findall(r"[Tt]he answer is (\d+)\.", thinking)
    assert run.value.stopped == "consensus"
    assert stated.count(stated[-1]) >= 2


def person(*lines: str) -> TerminalJudge:
    left = list(lines)

    def read() -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    return TerminalJudge(read, io.StringIO())


def ask(judge: TerminalJudge) -> Any:
    import asyncio

    (result,) = asyncio.run(judge.score(question(), [Candidate(("so far",))]))
    return result


def test_a_person_answers_y_n_or_w() -> None:
    assert [ask(person(line)).steps for line in ("y", "N", "w")] == [(1.0,), (0.25,), (0.0,)]
    assert ask(person("w the sign is lost")).message == "the sign is lost"
    assert ask(person("what?", "y")).steps == (1.0,)
    assert ask(person("a", "b", "c", "y")).steps == ()
    assert ask(person()).steps == ()


def test_a_person_at_the_terminal_can_stop_the_thinking() -> None:
    judge = person("n", "w", "y")
    value, session = live(
        Spec.parse("think-with-me:judge=verifier"),
        ScriptedEngine(MODEL.complete, speed=FAST).live(),
        question(max_tokens=8000, problem="p3/0"),
        verifier=judge,
    )
    assert FEEDBACK.findall(value.text) == ["sound, continue", "step 2 unsound", "complete, stop"]
    assert session.receipt().tokens is not None


@pytest.mark.parametrize("spec", ["judge=oracle", "judge=verifier", "pauses=dawn", "judge=random,chance=0.7"])
def test_wrong_parameters_are_named(spec: str) -> None:
    run = virtual(Spec.parse(f"think-with-me:{spec}"), MODEL.engine())
    assert isinstance(run.error, BadInput)


@pytest.mark.parametrize("judge", [name for name in JUDGES if name != "verifier"])
@pytest.mark.parametrize("text", ["hm", ""])
def test_every_judge_survives_a_model_that_does_not_think(judge: str, text: str) -> None:
    engine = ScriptedEngine(lambda call: Completion(text=text, tokens=3))
    run = virtual(Spec.parse(f"think-with-me:judge={judge}"), engine)
    assert (run.error, run.value.answer, run.value.text) == (None, None, text)


def test_a_server_that_does_not_name_its_stop_is_paused_at_turning_words_too() -> None:
    class Silent(ScriptedEngine):
        def outcome(self, call: Call) -> Outcome:
            done = super().outcome(call)
            return replace(done, sample=replace(done.sample, stop=None))

    engine = Silent(MODEL.complete, prompt_tokens=MODEL.engine().prompt_tokens)
    run = think("judge=always-continue", "p1/0", engine=engine)
    pieces = run.value.text.partition(CLOSE)[0].split("\n<feedback>sound, continue</feedback>\n")
    assert len(pieces) >= 2
    assert all(re.match(rf"\s*(?:{'|'.join(TURNS)}), ", piece) for piece in pieces[1:])
    assert run.value.answer == think("judge=always-continue", "p1/0").value.answer
