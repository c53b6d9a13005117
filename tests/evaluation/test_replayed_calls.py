"""Replayed strategies as rows of calls: they say what `compare` measures, whatever runs at once."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from outthink import BadInput, ScriptedEngine, Session, Speed, Verdict
from outthink.controller.cascade import Cascade, Stage
from outthink.controller.policy.rules import Fixed
from outthink.core.errors import Unsupported
from outthink.core.request import Request
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import CHUNK
from outthink.engines.traces import ReplayEngine, load
from outthink.evaluation.compare import CompareSettings, compare
from outthink.evaluation.replay import asked, options_of, sources_of
from outthink.evaluation.replayed_calls.recorder import stages_of
from outthink.evaluation.replayed_calls.rows import ReplayedCall, ReplayedRequest, ReplayedStage, call_columns
from outthink.evaluation.replayed_calls.run import replay_calls
from outthink.session.open import SessionOptions, Source
from outthink.strategies import Spec
from support.policies import policy
from support.recorded import DEMO, needs_demo
from support.runs import question
from support.samples import write_samples
from support.toy_tree import ToyTree, ToyVerifier

WIDE = Speed(total=1e12, concurrency=1000)
VOTES = (
    "self-consistency:n=8",
    "adaptive-consistency:n=16",
    "esc:n=16",
    "deepconf:n=8",
    "deepconf-online:n=16,warmup=4,keep=50,window=64",
    "borda:n=8",
    "best-of-n:n=4",
)
FIRST = "short-m-of-k:n=8,m=3"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's first 25 problems of the larger model."""
    whole = parquet.read_table(DEMO / "qwen2.5-coder-1.5b-instruct-q4--demo.parquet")
    found = tmp_path_factory.mktemp("calls") / "qwen2.5-coder-1.5b-instruct-q4--demo.parquet"
    parquet.write_table(whole.slice(0, 25 * 33), found)  # 32 samples a problem and the greedy one
    return found


def replay(path: Path, *names: str, seeds: int = 2, **settings: Any) -> dict[str, Any]:
    """By the spec's text."""
    specs = [Spec.parse(name) for name in names]
    return {str(each.spec): each for each in replay_calls([path], specs, CompareSettings(seeds=seeds, **settings))}


def measured(path: Path, name: str, **settings: Any) -> dict[str, Any]:
    """The row of `compare`."""
    spec = Spec.parse(name)
    rows = compare([path], [spec], CompareSettings(seeds=2, **settings))
    return next(row for row in rows if (row["strategy"], row["n"]) == (spec.canonical, spec.n))


def run(request: ReplayedRequest, speed: Speed) -> dict[str, float]:
    """A server without limits: what the rows of one request take on it."""
    ends: list[float] = []
    sums = dict.fromkeys(("tokens", "cancelled_tokens", "prompt_tokens", "samples"), 0.0)
    for stage in request.stages:
        start = ends[stage.after] if stage.after >= 0 else 0.0
        ends.append(run_stage(stage, speed, start, sums))
    return sums | {"seconds": max(ends)}


def run_stage(stage: ReplayedStage, speed: Speed, now: float, sums: dict[str, float]) -> float:
    """When it has what it needs."""
    running: list[tuple[float, int, float]] = []
    finished: set[int] = set()
    launched = 0

    def enough() -> bool:
        first = range(stage.need)
        return finished.issuperset(first) if stage.rule == "launched" else len(finished) >= stage.need

    while not enough():
        while launched < len(stage.calls) and len(running) < stage.ahead:
            call = stage.calls[launched]
            begin = now + call.prompt / speed.prefill
            heapq.heappush(running, (begin + call.output / speed.stream, launched, begin))
            launched += 1
        now = running[0][0]
        while running and running[0][0] <= now + 1e-9:
            finished.add(heapq.heappop(running)[1])
    for _, _, begin in running:
        written = int(max(0.0, (now - begin) * speed.stream) + 1e-6)
        sums["cancelled_tokens"] += written
        sums["tokens"] += written
    sums["tokens"] += sum(stage.calls[place].output for place in finished)
    sums["prompt_tokens"] += sum(call.prompt for call in stage.calls[:launched])
    sums["samples"] += launched
    return now


def by_problem(requests: Sequence[ReplayedRequest]) -> list[tuple[str, int]]:
    return [(request.problem, request.seed) for request in requests]


@needs_demo
@pytest.mark.parametrize("name", VOTES)
def test_one_in_flight_the_rows_sum_up_to_what_compare_measures(path: Path, name: str) -> None:
    row, (replayed,) = measured(path, name), replay(path, name).values()
    for key in ("accuracy", "accuracy_low", "accuracy_high"):
        assert getattr(replayed, key) == pytest.approx(row[key], abs=1e-12)
    needed = [[call for stage in each.stages for call in stage.calls[: stage.need]] for each in replayed.requests]
    assert fmean(sum(call.output for call in calls) for calls in needed) == pytest.approx(row["tokens"])
    assert fmean(sum(call.prompt for call in calls) for calls in needed) == pytest.approx(row["prompt_tokens"])
    assert fmean(map(len, needed)) == pytest.approx(row["samples"])
    assert by_problem(replayed.requests) == [(problem, seed) for problem in load(path).problems for seed in range(2)]


@needs_demo
@pytest.mark.parametrize("ahead", [1, 3, 8])
@pytest.mark.parametrize("name", [*VOTES, FIRST])
def test_a_plain_event_loop_over_the_rows_reproduces_compare(path: Path, name: str, ahead: int) -> None:
    row = measured(path, name, ahead=ahead, speed=WIDE)
    (replayed,) = replay(path, name, ahead=ahead, speed=WIDE).values()
    ran = [run(each, WIDE) for each in replayed.requests]
    for key in ("tokens", "cancelled_tokens", "prompt_tokens", "samples", "seconds"):
        assert fmean(each[key] for each in ran) == pytest.approx(row[key], rel=1e-9), key


@needs_demo
@pytest.mark.parametrize("name", VOTES)
def test_what_a_vote_needs_depends_neither_on_speed_nor_on_calls_in_flight(path: Path, name: str) -> None:
    def told(**settings: Any) -> list[Any]:
        (replayed,) = replay(path, name, **settings).values()
        return [
            (each.accuracy, [(stage.need, stage.rule, stage.calls[: stage.need]) for stage in each.stages])
            for each in replayed.requests
        ]

    usual = told(ahead=1)
    slow = Speed(stream=3, total=5, prefill=11, concurrency=2)
    for ahead in (1, 4, 8):
        for speed in (slow, WIDE):
            assert told(ahead=ahead, speed=speed) == usual


@needs_demo
def test_a_row_holds_every_call_that_may_be_launched_as_long_as_it_would_have_been(path: Path) -> None:
    problems = load(path).problems
    for replayed in replay(path, "adaptive-consistency:n=16", FIRST, "single").values():
        for request in replayed.requests:
            (stage,) = request.stages
            dealt = problems[request.problem].dealt(request.seed)[: replayed.spec.n]
            assert [call.output for call in stage.calls] == [sample.tokens for sample in dealt]
            shared = [call.prompt if len(dealt) > 1 else 0 for call in stage.calls]
            assert [call.shared for call in stage.calls] == shared
    stages = [request.stages[0] for request in replay(path, FIRST)[str(Spec.parse(FIRST))].requests]
    assert {stage.rule for stage in stages} == {"finished"}
    assert min(stage.need for stage in stages) == 3


@needs_demo
def test_calls_that_were_never_launched_end_where_their_watch_would_have_stopped_them(path: Path) -> None:
    name = "deepconf-online:n=16,warmup=4,keep=50,window=64,consensus="
    # At 1.01 all are launched, under the same watch.
    name, never = f"{name}0.7", f"{name}1.01"
    early, late = (replay(path, each, seeds=1)[str(Spec.parse(each))].requests for each in (name, never))
    pairs = [(one.stages[1], all_.stages[1]) for one, all_ in zip(early, late, strict=True) if len(one.stages) > 1]
    assert any(one.need < len(one.calls) for one, _ in pairs)
    for one, whole in pairs:
        assert one.calls == whole.calls
        assert whole.need == len(whole.calls)
        assert one.after == 0
    assert any(call.output % CHUNK == 0 for _, whole in pairs for call in whole.calls)


def judged(folder: Path, **more: Any) -> Path:
    """Samples with scores, of which each took 30 tokens and its number."""
    columns = {"score": lambda k: 0.5, "verifier": lambda k: "wise", "verifier_tokens": lambda k: 30 + k}
    return write_samples(folder, problems=range(6), samples=8, more={**columns, **more})


@pytest.mark.parametrize("name", ["weighted-vote:n=4", "best-of-n:n=4,score=verifier"])
def test_what_judging_takes_stands_with_each_call(tmp_path: Path, name: str) -> None:
    path = judged(tmp_path)
    row, (replayed,) = measured(path, name), replay(path, name).values()
    spent = [sum(call.verifier for stage in each.stages for call in stage.calls) for each in replayed.requests]
    assert fmean(spent) == pytest.approx(row["verifier_tokens"])
    samples = load(path).problems
    for request in replayed.requests:
        dealt = samples[request.problem].dealt(request.seed)[:4]
        assert [call.verifier for call in request.stages[0].calls] == [sample.verifier_tokens for sample in dealt]


def test_samples_that_are_judged_on_their_way_carry_their_tokens(tmp_path: Path) -> None:
    path = judged(tmp_path)

    async def two_of_four(session: Session, request: Request) -> Any:
        async for sample in session.sample(request, n=4, judged=True):
            assert sample.scores
            break
        return await Spec.parse("single")(session, request)

    (scored,) = replay(path, "weighted-vote:n=4", seeds=1).values()
    engine = ReplayEngine(load(path))
    request, _ = asked([engine], "p0")
    _, (stage, last) = stages_of(two_of_four, request, sources_of([engine]), options=options_of(engine, 1))
    assert stage.calls == scored.requests[0].stages[0].calls
    assert (stage.need, last.after, [call.verifier for call in last.calls]) == (1, 0, [0])


def test_a_cascade_tells_the_model_of_each_stage(tmp_path: Path) -> None:
    paths = [write_samples(tmp_path, model=model, problems=range(30)) for model in ("tiny", "large")]
    cascade = Cascade((Stage(None, 2, Fixed(), 1.0), Stage("large", 2, Fixed())))
    settings = CompareSettings(seeds=2, policy=policy(rule=cascade.json()))
    first, other = replay_calls(paths, [], settings, rungs=[4])
    assert (first.traces, other.traces) == ("tiny--sums", "large--sums")
    assert (first.spec.canonical, first.spec.n) == ("auto", 4)
    rows = compare(paths, [], settings)
    (row,) = (row for row in rows if (row["traces"], row["strategy"], row["n"]) == ("tiny--sums", "auto", 4))
    assert first.accuracy == pytest.approx(row["accuracy"])
    assert fmean(run(each, WIDE)["tokens"] for each in first.requests) == pytest.approx(row["tokens"])
    assert sum(first.models.values()) == pytest.approx(1)
    assert set(first.models) == {"tiny", "large"}
    on = [request for request in first.requests if len(request.stages) > 1]
    assert 0 < len(on) < len(first.requests)
    for request in on:
        assert [(stage.model, stage.after) for stage in request.stages] == [("tiny", -1), ("large", 0)]
        (large,) = request.of_model("large").stages
        assert (large.model, large.after, large.calls) == ("large", -1, request.stages[1].calls)
    assert {stage.model for request in other.requests for stage in request.stages} == {"large"}


# Strategies that recorded samples cannot serve, on a scripted engine.


def stages(name: str, engine: ScriptedEngine, **options: Any) -> tuple[ReplayedStage, ...]:
    source = Source(engine, Tariff.of(engine.model))
    return stages_of(Spec.parse(name), question(), [source], seed=0, options=SessionOptions(**options))[1]


def tree() -> ToyTree:
    """Each step is 10 tokens long, and so is a prompt for each step in it, beyond 20."""
    return ToyTree(prompt_tokens=lambda call: 20 + 10 * (call.prefix or "").count("["))


def test_the_level_of_a_search_is_one_stage_behind_the_level_before() -> None:
    first, second, *leaves = stages("beam:n=4,m=2", tree().engine, verifier=ToyVerifier())
    for after, stage in ((-1, first), (0, second)):
        assert (stage.after, len(stage.calls), stage.ahead, stage.need) == (after, 4, 4, 4)
    # Nothing waits for the leaves of both paths together.
    assert [(stage.after, len(stage.calls), stage.ahead, stage.need) for stage in leaves] == [(1, 2, 2, 2)] * 2
    for depth, stage in ((0, first), (1, second), (2, leaves[0]), (2, leaves[1])):
        assert {(call.prompt, call.shared) for call in stage.calls} == {(20 + 10 * depth,) * 2}


def test_subtrees_go_on_without_each_other() -> None:
    found = stages("dvts:n=4,m=2", tree().engine, verifier=ToyVerifier())
    assert [stage.after for stage in found if stage.calls[0].prompt == 20] == [-1, -1]
    deeper = [stage.after for stage in found if stage.after >= 0]
    assert len(set(deeper)) == len(deeper) == len(found) - 2  # each has one behind it at most


def test_what_was_written_is_cached_and_what_is_put_in_is_not() -> None:
    async def forced(session: Session, request: Request) -> Verdict:
        (sample,) = [sample async for sample in session.sample(request, n=1)]
        (sample,) = [sample async for sample in session.extend(request, sample.text + " Wait", n=1)]
        return Verdict(sample.answer, sample.text)

    engine = ScriptedEngine.sequence(["1"], tokens=50, prompt_tokens=lambda call: 75 if call.prefix else 20)
    source = Source(engine, Tariff.of(engine.model))
    _, found = stages_of(forced, question(), [source], options=SessionOptions())
    assert [(stage.after, stage.calls) for stage in found] == [
        (-1, (ReplayedCall(20, 20, 50),)),
        (0, (ReplayedCall(75, 70, 50),)),
    ]


def test_a_call_that_waits_for_branches_of_unequal_length_is_no_row() -> None:
    async def uneven(session: Session, request: Request) -> Any:
        async def chain(branch: Session, count: int) -> None:
            for _ in range(count):
                [sample async for sample in branch.sample(request, n=1)]

        await session.together(lambda branch: chain(branch, 1), lambda branch: chain(branch, 2))
        return await Spec.parse("single")(session, request)

    engine = ScriptedEngine.sequence(["1"])
    with pytest.raises(Unsupported, match="waits for several streams"):
        stages_of(uneven, question(), [Source(engine, Tariff.of(engine.model))], options=SessionOptions())


def test_refused_in_one_line_before_anything_is_replayed(tmp_path: Path) -> None:
    path = write_samples(tmp_path, problems=range(3), samples=4)
    with pytest.raises(BadInput, match="continues unfinished texts"):
        replay(path, "beam:n=4")
    with pytest.raises(BadInput, match="more than the 4 samples"):
        replay(path, "adaptive-consistency:n=8")
    unknown = write_samples(tmp_path / "other", problems=range(3), samples=4, more={"n_tokens": lambda k: None})
    with pytest.raises(BadInput, match="lacks n_tokens"):
        replay(unknown, "self-consistency:n=4")
    untold = judged(tmp_path / "judged", verifier_tokens=lambda k: None)
    with pytest.raises(BadInput, match="verifier_tokens"):
        replay(untold, "weighted-vote:n=4")


def test_columns_hold_every_call_and_stage_in_order() -> None:
    first = ReplayedStage("m", -1, (ReplayedCall(5, 5, 10), ReplayedCall(5, 5, 20, 3)), 2, "launched", 1)
    second = ReplayedStage("m", 0, (ReplayedCall(9, 7, 30),), 1, "finished", 1)
    requests = [ReplayedRequest("a", 0, 1, (first, second)), ReplayedRequest("b", 0, 0, (second,))]
    calls, stages_ = call_columns(requests)
    assert {name: column.tolist() for name, column in calls.items()} == {
        "group": [0, 0, 0, 1],
        "stage": [0, 0, 1, 0],
        "order": [0, 1, 0, 0],
        "prompt": [5, 5, 9, 9],
        "shared": [5, 5, 7, 7],
        "output": [10, 20, 30, 30],
        "verifier": [0, 3, 0, 0],
    }
    assert {name: column.tolist() for name, column in stages_.items()} == {
        "group": [0, 0, 1],
        "stage": [0, 1, 0],
        "after": [-1, 0, 0],
        "ahead": [2, 1, 1],
        "rule": [0, 1, 1],
        "need": [1, 1, 1],
    }
    assert call_columns([]).calls["group"].dtype == np.int64
