"""Recorded samples and labels become token arrays and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from outthink import BadInput
from outthink.training.examples import Collection, Examples, Solution, Targets, encode_all, read_labels, read_solutions
from outthink.training.loop import epoch_plan, micro_batches
from outthink.training.prm import split
from outthink.verifiers.reward_model.formats import Newline


class Letters:
    """A tokeniser of characters, of the two forms that are used."""

    def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [list(map(ord, text)) for text in texts]}

    def encode(self, text: str, **_: object) -> list[int]:
        return list(map(ord, text))


def collection(*solutions: Solution) -> Collection:
    return Collection({f"p{i}": f"Q{i}?" for i in range(50)}, solutions)


def files(tmp_path: Path, labels: list[tuple[int, int, int]]) -> tuple[Path, Path, Path]:
    problems, samples, steps = (tmp_path / name for name in ("p.parquet", "s.parquet", "l.parquet"))
    parquet.write_table(
        pa.table({"problem_id": ["p0", "p1"], "question": ["Q0?", "Q1?"], "answer": ["7", "7"]}), problems
    )
    rows = {
        "problem_id": ["p0", "p0", "p0", "p1", "gone"],
        "sample_idx": [0, 1, 2, 1, 1],
        "text": ["greedy", "One.\n\nTwo.\nThree.", " \n", "Only.", "x"],
        "correct": [True, True, False, False, True],
    }
    parquet.write_table(pa.table(rows), samples)
    columns = {
        "problem_id": ["p0"] * len(labels),
        "sample_idx": [1] * len(labels),
        "step_idx": [step for step, _, _ in labels],
        "prefix_end": [end for _, end, _ in labels],
        "n_correct": [hits for _, _, hits in labels],
    }
    parquet.write_table(pa.table(columns), steps)
    return samples, problems, steps


def test_recorded_rows_become_solutions(tmp_path) -> None:
    samples, problems, steps = files(tmp_path, [(0, 6, 2), (1, 11, 0)])  # the first prefix ends in a blank line
    result = read_solutions(samples, problems, steps)
    assert [(s.problem_id, s.sample_idx) for s in result.solutions] == [("p0", 1), ("p1", 1)]
    assert result.solutions[0].steps == ("One.\n", "\nTwo.\n", "Three.")
    assert result.solutions[0].labels == (0.25, 0.0, None)
    assert result.left_out == {"no text": 1, "no question": 1}
    assert read_labels(steps, "hard")["p0", 1] == {0: (6, 1.0), 1: (11, 0.0)}


def test_samples_of_unknown_truth_are_left_out_and_other_types_are_read(tmp_path) -> None:
    samples, problems, _ = files(tmp_path, [])
    rows = parquet.read_table(samples).to_pydict()
    rows |= {"sample_idx": ["0", "1", "2", "1", "1"], "correct": ["True", "False", "0", None, "1"]}
    rows["text"] = [text.encode() for text in rows["text"][:2]] + [None, b"Only.", b"x"]
    parquet.write_table(pa.table(rows), samples)
    result = read_solutions(samples, problems)
    assert [(s.sample_idx, s.correct) for s in result.solutions] == [(1, False)]
    assert result.left_out == {"no text": 1, "no question": 1, "not graded": 1}


@pytest.mark.parametrize(
    ("column", "cells", "told"),
    [
        ("sample_idx", [0, 1, 2, 70_000, 1], "row 4: sample_idx is more than 65,535"),
        ("sample_idx", [0, 1, None, 1, 1], "row 3: sample_idx is no whole number"),
        ("text", [1, 2, 3, 4, 5], "row 1: text is no text"),
        ("correct", [1.0, 0.5, 1.0, 0.0, 1.0], "row 2: correct is no truth value"),
    ],
)
def test_cells_that_are_none_of_a_sample_are_named(tmp_path, column, cells, told) -> None:
    samples, problems, _ = files(tmp_path, [])
    rows = parquet.read_table(samples).to_pydict() | {column: cells}
    parquet.write_table(pa.table(rows), samples)
    with pytest.raises(BadInput, match=told):
        read_solutions(samples, problems)


def test_what_is_no_parquet_is_one_line(tmp_path) -> None:
    samples, problems, _ = files(tmp_path, [])
    samples.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(BadInput, match="readable Parquet"):
        read_solutions(samples, problems)


@pytest.mark.parametrize("labels", [[(0, 3, 1)], [(3, 18, 1)], [(0, 6, 9)]])
def test_labels_of_other_texts_are_refused(tmp_path, labels) -> None:
    with pytest.raises(BadInput, match="steps"):
        read_solutions(*files(tmp_path, labels))


def test_tokens_are_those_of_the_format() -> None:
    solution = Solution("p3", 1, ("One.\n", "\nTwo.\n", "End"), True, (0.5, None, None))
    examples = encode_all(collection(solution), Letters())
    encoded = Newline(Letters()).encode("Q3?", solution.steps)
    assert examples.ids.tolist() == list(encoded.ids)
    assert examples.ends.tolist() == list(encoded.positions)


@pytest.mark.parametrize(
    ("targets", "weights"),
    [
        (Targets("last"), [1, 0, 1]),
        (Targets("steps", 0.5), [1, 0.5, 1]),
        (Targets("steps", 0.5, 2.0), [2, 0.5, 1]),
        (Targets("tokens", 0.5), [1, 0.5, 1]),
    ],
)
def test_targets_stand_where_asked(targets: Targets, weights: list[float]) -> None:
    solution = Solution("p0", 1, ("One.\n", "Two.\n", "End"), False, (0.5, None, None))
    examples = encode_all(collection(solution), Letters(), targets=targets)
    assert examples.targets[examples.ends].tolist() == [0.5, 0, 0]
    assert examples.weights[examples.ends].tolist() == weights
    between = np.delete(examples.weights, examples.ends)
    question = len("Q0?\n\n")
    assert not between[:question].any()
    assert set(between[question:].tolist()) == ({0.5} if targets.outcome_at == "tokens" else {0.0})


def test_too_long_is_left_out_and_said() -> None:
    short, long = Solution("p0", 1, ("ab",), True), Solution("p0", 2, ("ab" * 50,), True)
    examples = encode_all(collection(short, long), Letters(), max_context=20)
    assert (len(examples), examples.too_long, examples.source.tolist()) == (1, 1, [0])


def some(count: int = 60) -> Examples:
    rng = np.random.default_rng(0)
    return encode_all(
        collection(*(Solution(f"p{i % 15}", i, ("x" * int(rng.integers(5, 90)),), i % 3 == 0) for i in range(count))),
        Letters(),
    )


def test_a_batch_is_padded_on_the_right() -> None:
    examples = some()
    ids, targets, weights, lengths = examples.batch(np.array([4, 7]))
    assert ids.shape == targets.shape == weights.shape
    assert ids.shape[1] % 8 == 0
    for row, i in enumerate((4, 7)):
        assert ids[row, : lengths[row]].tolist() == examples.ids[examples.starts[i] : examples.starts[i + 1]].tolist()
        assert not ids[row, lengths[row] :].any()
        assert np.flatnonzero(weights[row]).tolist() == [lengths[row] - 1]


@pytest.mark.parametrize("together", [False, True])
def test_every_example_is_learnt_from_once_an_epoch(together: bool) -> None:
    examples = some()
    groups = examples.problem if together else None
    plan = epoch_plan(examples.lengths, tokens=800, micro=400, seed=1, epoch=0, groups=groups)
    parts = [part for step in plan for part in step]
    assert sorted(np.concatenate(parts).tolist()) == list(range(60))
    sizes = [len(part) * examples.lengths[part].max() for part in parts]
    assert len(plan) < len(parts)
    if together:
        homes = [{int(problem) for problem in examples.problem[part]} for part in parts]
        assert sum(map(len, homes)) == 15
    else:
        assert max(sizes) <= 400


def test_plans_depend_on_seed_and_epoch_alone() -> None:
    lengths = some().lengths

    def plan(seed: int, epoch: int) -> list[list[list[int]]]:
        result = epoch_plan(lengths, tokens=800, micro=400, seed=seed, epoch=epoch)
        return [[part.tolist() for part in step] for step in result]

    assert plan(1, 0) == plan(1, 0)
    assert plan(1, 0) != plan(1, 1)
    assert plan(1, 0) != plan(2, 0)


def test_sorting_leaves_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(50, 500, size=2000)
    parts = micro_batches(lengths, 8000)
    padded = sum(len(part) * lengths[part].max() for part in parts)
    assert padded / lengths.sum() < 1.02


def test_the_split_is_by_problem() -> None:
    learnt, held = split(collection(*(Solution(f"p{i % 40}", i, ("x",), True) for i in range(200))), 0.1, seed=3)
    assert (len(learnt.problems), len(held.problems)) == (36, 4)
    assert not set(learnt.problems) & set(held.problems)
    assert len(learnt.solutions) + len(held.solutions) == 200
    with pytest.raises(BadInput, match="holdout"):
        split(collection(Solution("p0", 1, ("x",), True)), 0.1, seed=0)
