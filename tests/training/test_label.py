"""Labels of step prefixes against completers whose success is known (specs/verifiers.md, section 12, 4 to 6)."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
from collections import Counter
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from outthink import BadInput, Completion, EngineError, Fault, Sampling, ScriptedEngine, Speed
from outthink.core.sample import split_steps
from outthink.engines.protocol import Call
from outthink.evaluation.dataset import Dataset, Problem, open_dataset
from outthink.session.store import SampleStore
from outthink.training.examples import Solution, read_labels
from outthink.training.label import Labelling, label

FAST = Speed(stream=1e6, total=1e8, prefill=1e8, concurrency=32)
RIGHT, WRONG = "so the answer is \\boxed{7}", "so the answer is \\boxed{3}"


def solution(problem: str, text: str, index: int = 1, correct: bool = False, cut: bool = False) -> Solution:
    return Solution(problem, index, split_steps(text, "\n"), correct, cut=cut)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    path = tmp_path / "sums.jsonl"
    rows = [{"problem_id": f"p{i}", "question": f"What is 3 + 4, take {i}?", "answer": "7"} for i in range(200)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return open_dataset(str(path), "number")


def labelled(dataset: Dataset, solutions: list[Solution], script, out: Path, **plan) -> list[dict]:
    asyncio.run(label(dataset, solutions, ScriptedEngine(script, speed=FAST).live(), out, Labelling(**plan)))
    return parquet.read_table(out).to_pylist()


def chance(p: float):
    """A completer that is right with chance p, by prefix and sample."""

    def script(call: Call) -> Completion:
        draw = random.Random(f"{call.problem}:{call.prefix}:{call.index}").random()
        return Completion(text=RIGHT if draw < p else WRONG, tokens=9)

    return script


def test_soft_labels_are_unbiased_and_hard_ones_follow_the_formula(dataset, tmp_path) -> None:
    p, n, prefixes = 0.2, 8, 200
    solutions = [solution(f"p{i}", "First.\nLast.\n") for i in range(prefixes)]
    rows = labelled(dataset, solutions, chance(p), tmp_path / "steps.parquet")
    shares = [row["n_correct"] / n for row in rows if not row["is_final"]]
    assert len(shares) == prefixes
    assert sum(shares) / prefixes == pytest.approx(p, abs=3 * math.sqrt(p * (1 - p) / (n * prefixes)))
    hard = 1 - (1 - p) ** n
    assert hard == pytest.approx(0.8322, abs=5e-5)
    hit = sum(share > 0 for share in shares) / prefixes
    assert hit == pytest.approx(hard, abs=3 * math.sqrt(hard * (1 - hard) / prefixes))


def test_hard_is_never_below_soft_and_both_agree_at_the_ends(dataset, tmp_path) -> None:
    chances = {"p0": 0.0, "p1": 0.5, "p2": 1.0}
    solutions = [solution(name, "First.\nSecond.\nLast.") for name in chances]
    out = tmp_path / "steps.parquet"
    labelled(dataset, solutions, lambda call: chance(chances[call.problem])(call), out)
    soft, hard = read_labels(out, "soft"), read_labels(out, "hard")
    for key, steps in soft.items():
        for step, (_, share) in list(steps.items())[:-1]:
            assert hard[key][step][1] >= share
            if key[0] != "p1":
                assert hard[key][step][1] == share == chances[key[0]]


def test_the_whole_solution_is_graded_not_completed(dataset, tmp_path) -> None:
    asked: list[str | None] = []

    def always_right(call: Call) -> Completion:
        asked.append(call.prefix)
        return Completion(text=RIGHT)

    texts = {"p0": "Add.\n" + WRONG, "p1": "Add.\n" + RIGHT, "p2": "One step only, 7."}
    rows = labelled(dataset, [solution(*item) for item in texts.items()], always_right, tmp_path / "steps.parquet")
    final = {row["problem_id"]: row for row in rows if row["is_final"]}
    assert {name: row["n_correct"] for name, row in final.items()} == {"p0": 0, "p1": 8, "p2": 8}
    assert {name: row["n_correct_boxed"] for name, row in final.items()} == {"p0": 0, "p1": 8, "p2": 0}
    assert {row["n_correct"] for row in rows if not row["is_final"]} == {8}
    assert set(asked) == {"Add.\n"}


def test_a_shared_prefix_is_completed_once(dataset, tmp_path) -> None:
    calls: Counter[tuple[str | None, str | None]] = Counter()

    def script(call: Call) -> Completion:
        calls[call.problem, call.prefix] += 1
        return chance(0.5)(call)

    texts = ["Same.\nA.\nEnd.", "Same.\nB.\nEnd.", "Same.\nA.\nOther end."]
    solutions = [solution(problem, text, i) for problem in ("p0", "p1") for i, text in enumerate(texts, 1)]
    rows = labelled(dataset, solutions, script, tmp_path / "steps.parquet", completions=4)
    assert len(rows) == 18
    assert set(calls.values()) == {4}
    assert len(calls) == 6  # "Same.", "Same. A.", "Same. B.", for each problem
    first = [row for row in rows if row["problem_id"] == "p0" and row["step_idx"] == 0]
    assert len({(row["prefix_hash"], row["n_correct"]) for row in first}) == 1


def test_unreadable_completions_are_wrong_and_counted(dataset, tmp_path) -> None:
    def script(call: Call) -> Completion:
        return Completion(text="no idea at all" if call.index < 3 else RIGHT, tokens=5 + call.index)

    rows = labelled(dataset, [solution("p0", "Think.\nEnd.")], script, tmp_path / "steps.parquet")
    first, final = rows
    assert (first["n_correct"], first["n_unparsed"], first["n_stop"], first["n_completions"]) == (5, 3, 8, 8)
    assert first["mean_tokens"] == pytest.approx(8.5)
    assert final["n_unparsed"] == 8
    assert (first["prefix_end"], final["prefix_end"]) == (7, 11)


def test_without_temperature_one_completion_is_drawn_and_counted(dataset, tmp_path) -> None:
    calls: list[Call] = []

    def script(call: Call) -> Completion:
        calls.append(call)
        return Completion(text=RIGHT, tokens=5)

    greedy = Sampling(temperature=0, max_tokens=64)
    solutions = [solution("p0", "Think.\nEnd.")]
    first, final = labelled(dataset, solutions, script, tmp_path / "steps.parquet", sampling=greedy, completions=8)
    assert len(calls) == 1
    assert (first["n_correct"], first["n_completions"], first["n_stop"]) == (1, 1, 1)
    assert (final["n_correct"], final["n_completions"]) == (0, 1)


def test_long_solutions_are_labelled_in_part_and_broken_steps_not_at_all(dataset, tmp_path) -> None:
    long = solution("p0", "a.\nb.\nc.\nd.")
    broken = solution("p1", "a.\nbroken off in the mid", cut=True)
    rows = labelled(dataset, [long, broken], chance(1.0), tmp_path / "steps.parquet", steps=2)
    assert [(row["problem_id"], row["step_idx"]) for row in rows] == [("p0", 0), ("p0", 1), ("p1", 0)]
    assert not any(row["is_final"] for row in rows)


def test_completions_belong_to_their_question_whatever_becomes_of_the_others(dataset, tmp_path) -> None:
    out = tmp_path / "steps.parquet"
    solutions = [solution(f"p{i}", "First.\nLast.") for i in range(3)]
    blocked = out.with_name(f".{out.name}.{os.getpid()}")
    blocked.mkdir()  # where the draft of OUT would stand
    with pytest.raises(BadInput, match="run the same command again"):
        labelled(dataset, solutions, chance(1.0), out)
    blocked.rmdir()
    asked = []

    def script(call: Call) -> Completion:
        asked.append((call.problem, call.index))
        return Completion(text=WRONG, tokens=9)

    rows = labelled(dataset, [solutions[2], solutions[0]], script, out, completions=9)
    assert asked == [("p2", 8), ("p0", 8)]
    assert [(row["problem_id"], row["n_correct"]) for row in rows if not row["is_final"]] == [("p2", 8), ("p0", 8)]


def test_an_interrupted_labelling_pays_nothing_twice(dataset, tmp_path) -> None:
    out = tmp_path / "steps.parquet"
    solutions = [solution(f"p{i}", "First.\nSecond.\nLast.") for i in range(6)]
    paid: Counter[tuple[str | None, str | None, int]] = Counter()
    healthy = False

    def script(call: Call) -> Completion:
        if not healthy and len(paid) >= 30:
            return Completion(text="", fault=Fault(0, fatal=True))
        paid[call.problem, call.prefix, call.index] += 1
        return chance(0.4)(call)

    with pytest.raises(EngineError):
        labelled(dataset, solutions, script, out)
    assert not out.exists()
    journal = SampleStore(tmp_path / "steps.parquet.journal")
    saved = len(journal)
    journal.close()
    assert 0 < saved <= 30
    healthy = True
    paid.clear()
    rows = labelled(dataset, solutions, script, out)
    assert sum(paid.values()) == 96 - saved
    assert not list(tmp_path.glob("*.journal*"))
    again = tmp_path / "again.parquet"
    assert labelled(dataset, solutions, chance(0.4), again) == rows


def test_refusals(dataset, tmp_path) -> None:
    out = tmp_path / "steps.parquet"
    with pytest.raises(BadInput, match="stranger"):
        labelled(dataset, [solution("stranger", "a.\nb.")], chance(1), out)
    labelled(dataset, [solution("p0", "a.\nb.")], chance(1), out)
    with pytest.raises(BadInput, match="exists"):
        labelled(dataset, [solution("p0", "a.\nb.")], chance(1), out)


def test_where_it_comes_from_is_written_down(dataset, tmp_path) -> None:
    out = tmp_path / "steps.parquet"
    labelled(dataset, [solution("p0", "a.\nb.")], chance(1), out, seed=5)
    about = json.loads(parquet.read_schema(out).metadata[b"outthink"])
    assert (about["completer"], about["temperature"], about["seed"], about["completions"]) == ("scripted", 0.8, 5, 8)
    assert Problem("p0", "What is 3 + 4, take 0?", "7") in dataset.problems
