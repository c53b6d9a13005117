"""Results, receipts, policies and files of samples print themselves in a few lines, and escape what is not theirs."""

from __future__ import annotations

import outthink as ot
from support.policies import policy
from support.recorded import DEMO, needs_demo


def asked(answer: str, **options: object) -> ot.Result:
    engine = ot.ScriptedEngine.sequence([answer], tokens=20, prompt_tokens=5)
    return ot.ask_sync("q", model=engine, strategy="self-consistency:n=2", answer="number", **options)


def test_a_result_shows_its_answer_and_its_receipt() -> None:
    lines = str(asked("391")).splitlines()
    assert lines[0] == "391"
    assert len(lines) < 12
    assert any("self-consistency:n=2 · scripted" in line for line in lines)
    assert any("50 (prompt 10 + completion 40 + cancelled 0)" in line for line in lines)
    assert any(line.split() == ["dollars", "unknown"] for line in lines)


def test_a_receipt_alone() -> None:
    receipt = asked("391").receipt
    assert repr(receipt).splitlines()[0] == "receipt"
    assert "2 finished" in str(receipt)


def test_what_comes_from_a_model_is_escaped_in_html() -> None:
    result = ot.Result("<script>alert(1)</script>", "", "single", "<b>", "finished", ot.Receipt((), 0.0, ("<i>",)))
    shown = result._repr_html_()
    assert "&lt;script&gt;" in shown
    assert not [mark for mark in ("<script>", "<b>", "<i>") if mark in shown]


def test_a_long_answer_is_cut() -> None:
    result = ot.Result("word " * 10_000, "", "single", "toy", "finished", ot.Receipt((), 0.0))
    assert len(str(result)) < 1000
    assert len(result._repr_html_()) < 2000


def test_a_policy_shows_what_it_chooses() -> None:
    lines = str(policy()).splitlines()
    assert lines[0].startswith("policy sha256:")
    assert any("tiny on sums" in line and "fixed@4: accuracy 0.600" in line for line in lines)


@needs_demo
def test_a_file_of_samples_is_not_printed_whole() -> None:
    traces = ot.load_traces(DEMO / "qwen2.5-coder-0.5b-instruct-q4--demo.parquet")
    assert len(repr(traces)) < 1000
    assert "350" in str(traces)
    assert "<table>" in traces._repr_html_()
