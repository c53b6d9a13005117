"""Replay with verifiers: recorded scores, scores made on the way, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from outthink import BadInput, Message, Request, Session, Speed, Verdict, Votes
from outthink.economics.tariff import Tariff
from outthink.engines.traces import ReplayEngine, load
from outthink.evaluation.compare import CompareSettings, compare
from outthink.evaluation.replay import MEASURES, rerun
from outthink.evaluation.verify import Prescoring
from outthink.session.open import SessionOptions, Source, open_session
from outthink.strategies import Spec
from outthink.verifiers import ConfidenceVerifier

POLICY = "qwen2.5-coder-0.5b-instruct-q4"
WEIGHTS = 494_032_768
VERIFIER = {"id": "prm@1", "kind": "process", "model": "prm", "parameters": 1000, "aggregation": "min"}


def write(path: Path, *, scored: bool = True, told: bool = True, described: bool = True, samples: int = 4) -> Path:
    """Three of four samples say 2, the fourth the right 1; only a verifier can tell. Ten tokens each, prompt 5."""
    rows = []
    for problem in range(5):
        for index in range(1, samples + 1):
            right = index % 4 == 0
            row = {
                "problem_id": f"p{problem}",
                "sample_idx": index,
                "text": f"The answer is {1 if right else 2}.",
                "n_tokens": 10,
                "prompt_tokens": 5,
                "answer": "1" if right else "2",
                "correct": right,
            }
            if scored:
                row |= {"steps": [0.9, 0.8] if right else [0.9, 0.1], "score": 0.8 if right else 0.1}
                row |= {"verifier": "prm@1", "verifier_tokens": 20 if told else None}
            rows.append(row)
    table = pa.Table.from_pylist(rows)
    if scored and described:
        table = table.replace_schema_metadata({"outthink.verifier": json.dumps(VERIFIER)})
    parquet.write_table(table, path)
    keys = [{"problem_id": f"p{i}", "question": f"question {i}", "answer": "1"} for i in range(5)]
    parquet.write_table(pa.Table.from_pylist(keys), path.with_name("problems-toy.parquet"))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{POLICY}--toy.parquet"


def replay(path: Path, *names: str, **settings) -> dict[tuple[str, int], dict]:
    rows = compare([path], [Spec.parse(name) for name in names], CompareSettings(seeds=2, **settings))
    return {(row["strategy"], row["n"]): row for row in rows}


def test_recorded_step_scores_decide_the_vote(path) -> None:
    rows = replay(write(path), "weighted-vote:n=4", "weighted-vote:n=4,aggregation=last", "best-of-n:n=4")
    vote, majority = rows["weighted-vote", 4], rows["self-consistency", 4]
    assert (vote["accuracy"], majority["accuracy"]) == (1.0, 0.0)  # 0.8 against 0.3
    assert rows["weighted-vote:aggregation=last", 4]["accuracy"] == 1.0
    assert rows["best-of-n", 4]["accuracy"] == 1.0
    assert (vote["verifier"], vote["verifier_tokens"]) == ("prm@1", 80.0)
    assert (majority["verifier"], majority["verifier_tokens"]) == (None, 0.0)


def test_the_verifiers_tokens_are_charged_by_its_own_parameters_and_kept_apart(path) -> None:
    rows = replay(write(path), "weighted-vote:n=4")
    vote, majority = rows["weighted-vote", 4], rows["self-consistency", 4]
    assert Tariff.of(POLICY).parameters == WEIGHTS
    assert majority["flops"] == 2 * WEIGHTS * 60
    assert vote["flops"] == 2 * WEIGHTS * 60 + 2 * 1000 * 80
    for name in ("tokens", "prompt_tokens", "samples"):
        assert vote[name] == majority[name]
    assert (vote["tokens"], vote["prompt_tokens"], vote["samples"]) == (40, 20, 4)


def test_judging_takes_time_on_the_virtual_clock(path) -> None:
    for speed, reading in ((Speed(), 80 / 5000), (Speed(judge=100), 80 / 100)):
        rows = replay(write(path), "weighted-vote:n=4", speed=speed)
        assert rows["self-consistency", 4]["seconds"] == pytest.approx(5 / 5000 + 10 / 50)
        assert rows["weighted-vote", 4]["seconds"] == pytest.approx(5 / 5000 + 10 / 50 + reading)


def test_equal_flops_is_another_question_than_equal_tokens(path) -> None:
    rows = replay(write(path, samples=8), "weighted-vote:n=4", "weighted-vote:n=8")
    four, eight = rows["weighted-vote", 4], rows["weighted-vote", 8]
    assert four["difference"] == four["accuracy"] - rows["self-consistency", 4]["accuracy"]
    assert four["flops_difference"] is not None
    assert four["flops_difference_low"] <= four["flops_difference"] <= four["flops_difference_high"]
    # As many tokens as the last rung of self-consistency, but more FLOPs than any of them.
    assert eight["difference"] is not None
    assert (eight["flops_difference"], eight["flops_difference_low"], eight["flops_difference_high"]) == (None,) * 3
    assert all(rows["self-consistency", n]["flops_difference"] == 0 for n in (1, 2, 4, 8))


@pytest.mark.parametrize(("told", "described"), [(False, True), (True, False)])
def test_what_is_not_known_is_null(path, told, described) -> None:
    vote = replay(write(path, told=told, described=described), "weighted-vote:n=4")["weighted-vote", 4]
    assert vote["accuracy"] == 1.0
    assert vote["flops"] is None
    assert vote["flops_difference"] is None
    assert vote["verifier_tokens"] == (80 if told else None)
    assert (vote["seconds"] is None) == (not told)
    assert vote["difference"] is not None


def test_strategies_that_the_samples_cannot_serve_are_refused(path) -> None:
    with pytest.raises(BadInput, match="--live"):
        replay(write(path), "beam:n=4")
    with pytest.raises(BadInput, match="outthink verify"):
        replay(write(path, scored=False), "weighted-vote:n=4")


def test_samples_are_scored_once_and_the_scores_are_kept(path, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
    write(path, scored=False)
    before, received = path.read_bytes(), []
    scoring = Prescoring(verifier="exact", progress=lambda done, total: received.append((done, total)))
    rows = replay(path, "weighted-vote:n=4", scoring=scoring)
    vote = rows["weighted-vote", 4]
    assert (vote["accuracy"], vote["verifier"], vote["verifier_tokens"]) == (1.0, "exact-number", 0.0)
    assert vote["flops"] == rows["self-consistency", 4]["flops"]  # no model has judged
    assert vote["traces"] == path.stem
    assert received[-1] == (20, 20)
    received.clear()
    assert replay(path, "weighted-vote:n=4", scoring=scoring)["weighted-vote", 4] == vote
    assert received == []
    assert path.read_bytes() == before
    assert list(path.parent.glob("*.journal*")) == []


def test_scores_of_the_same_verifier_are_not_made_again_and_those_of_another_give_way(
    path, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
    rows = replay(write(path), "weighted-vote:n=4", scoring=Prescoring(verifier="exact"))
    assert rows["weighted-vote", 4]["verifier"] == "exact-number"
    table = parquet.read_table(path)
    names = pa.array(["exact-number"] * table.num_rows)
    parquet.write_table(table.set_column(table.column_names.index("verifier"), "verifier", names), path)
    received: list[object] = []
    replay(
        path, "weighted-vote:n=4", scoring=Prescoring(verifier="exact", progress=lambda *seen: received.append(seen))
    )
    assert received == []


def test_an_exact_verifier_stops_at_its_first_pass(path, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
    rows = replay(write(path, scored=False), "best-of-n:n=4", scoring=Prescoring(verifier="exact"))
    best = rows["best-of-n", 4]
    assert best["accuracy"] == 1.0
    assert best["samples"] < 4


def test_problems_are_needed_where_none_lie_beside(path, tmp_path) -> None:
    write(path, scored=False)
    path.with_name("problems-toy.parquet").unlink()
    with pytest.raises(BadInput, match="--verifier"):
        replay(path, "weighted-vote:n=4", scoring=Prescoring(verifier="exact"))


class Weighed:
    """Votes that weigh by the scores, a sample at a time, until the leader has `bar`; it cannot see more."""

    canonical, waits = "weighed", True

    def __init__(self, n: int, bar: float) -> None:
        self.n, self.bar = n, bar

    def __call__(self, session: Session, request: Request) -> Coroutine[Any, Any, Verdict]:
        return self._vote(session, request)

    async def _vote(self, session: Session, request: Request) -> Verdict:
        votes = Votes()
        async for sample in session.sample(request, n=self.n, judged=True):
            votes.add(sample, sample.scores[-1] if sample.scores else 0.0)
            if votes.top()[0] >= self.bar:
                break
        return votes.winner()


def judged_replay(path: Path, bar: float, *, ahead: int = 1, **speed: float) -> dict[str, float]:
    engine = ReplayEngine(load(path), speed=Speed(**speed))
    (outcome,) = rerun(engine, [Weighed(4, bar)], list(engine.traces.problems), 2, ahead)
    return dict(zip(MEASURES, outcome.means.tolist(), strict=True))


def test_a_judged_stream_reads_the_recorded_scores_pays_their_tokens_and_takes_their_time(path) -> None:
    every = judged_replay(write(path, samples=4), 9.0)
    assert every["accuracy"] == 1.0  # 0.8 against 3 x 0.1
    assert (every["samples"], every["tokens"], every["verifier_tokens"]) == (4, 40, 80)
    assert every["seconds"] == pytest.approx(4 * (5 / 5000 + 10 / 50 + 20 / 5000))
    assert every["flops"] == 2 * WEIGHTS * 60 + 2 * 1000 * 80
    slow = judged_replay(path, 9.0, judge=10.0)
    assert slow["seconds"] == pytest.approx(4 * (5 / 5000 + 10 / 50 + 20 / 10))
    together = judged_replay(path, 9.0, ahead=4)  # all end at one moment and are judged in one piece
    assert together["seconds"] == pytest.approx(5 / 5000 + 10 / 50 + 80 / 5000)
    assert together["verifier_tokens"] == 80


def test_a_judged_stream_that_is_left_pays_what_it_has_had_judged(path) -> None:
    """The right answer alone reaches 0.5: it is drawn after 0 to 3 others, and each that was drawn was judged."""
    left = judged_replay(write(path, samples=4), 0.5)
    assert left["accuracy"] == 1.0
    assert 1 <= left["samples"] < 4
    assert left["verifier_tokens"] == 20 * left["samples"]


def test_unknown_tokens_of_a_verifier_leave_the_time_unknown(path) -> None:
    unknown = judged_replay(write(path, samples=4, told=False), 9.0)
    assert unknown["accuracy"] == 1.0
    assert [name for name, value in unknown.items() if value != value] == ["flops", "seconds", "verifier_tokens"]


def test_a_rule_sees_no_recorded_score_that_it_has_not_paid_for(path) -> None:
    """A sample without an answer is not judged, whatever was recorded of it."""
    table = parquet.read_table(write(path, samples=4))
    answers = [None if row % 4 == 0 else answer for row, answer in enumerate(table["answer"].to_pylist())]
    place = table.column_names.index("answer")
    parquet.write_table(table.set_column(place, "answer", pa.array(answers, pa.string())), path)
    engine, seen = ReplayEngine(load(path)), []

    class Look(Weighed):
        async def _vote(self, session: Session, request: Request) -> Verdict:
            seen.extend([sample async for sample in session.sample(request, n=4, judged=True)])
            return Verdict(None, "")

    rerun(engine, [Look(4, 0)], ["p0"], 1, 1)
    assert {(sample.answer, sample.scores, sample.verifier_tokens) for sample in seen if sample.answer is None} == {
        (None, (), None)
    }
    assert sorted(sample.scores for sample in seen if sample.answer) == [(0.9, 0.1), (0.9, 0.1), (0.9, 0.8)]


def test_confidence_judges_recorded_samples_for_nothing(path) -> None:
    table = parquet.read_table(write(path, samples=4, scored=False))
    parquet.write_table(table.append_column("mean_logprob", pa.array([-0.5] * len(table))), path)
    opened = open_session(
        [Source(ReplayEngine(load(path)), Tariff.of(POLICY))],
        options=SessionOptions(verifier=ConfidenceVerifier("logprob")),
    )
    seen = []

    async def strategy(session: Session, request: Request) -> Verdict:
        seen.extend([sample async for sample in session.sample(request, n=3, ahead=1, judged=True)])
        return Verdict(None, "")

    request = Request(messages=(Message("user", "p0"),), problem="p0")
    opened.run_now(strategy(opened.session, request))
    assert [sample.scores for sample in seen] == [(pytest.approx(0.60653, abs=1e-5),)] * 3
    judged = [entry for entry in opened.receipt().entries if entry.role == "verifier"]
    assert [entry.tokens for entry in judged] == [0, 0, 0]
    assert opened.session.elapsed == pytest.approx(3 * (5 / 5000 + 10 / 50))
