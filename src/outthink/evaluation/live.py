"""A live comparison from data sets to rows of a report and files of samples.

Knows: names of files, the order of work, when a journal may go, the keys of a row, pairing at equal budgets, and the
file that `compare` replays. Does not know engines or how a request was run.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from outthink.controller.decide import need_fitting
from outthink.core.paths import write_file
from outthink.core.request import Request
from outthink.core.sample import Sample
from outthink.engines.protocol import Call, Engine
from outthink.evaluation.arena import Arena, ArenaPlan, Field, Ran
from outthink.evaluation.dataset import Dataset
from outthink.evaluation.record import trace_row, write_traces
from outthink.evaluation.replay import MEASURES, Array
from outthink.evaluation.rows import Difference, Frontier, Row, columns, in_flight, intervals
from outthink.evaluation.sample_file import JsonObject, remove_journal
from outthink.strategies import Spec
from outthink.strategies.defaults import BASELINE
from outthink.verifiers.protocol import Verifier, complete

Judge = Callable[[Dataset], Verifier | None]


async def live(
    datasets: Sequence[Dataset],
    engine: Engine,
    specs: Sequence[Spec],
    plan: ArenaPlan,
    folder: Path,
    judge: Judge = lambda dataset: None,
    *,
    progress: Callable[[str], Callable[[int, int], None]] = lambda name: lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Compare live on every data set; one row for each strategy and budget.

    Args:
        folder: gets `<model>--<dataset>.parquet` with all whole samples, journals while the run lasts.
        judge: opens the verifier for a data set.
        progress: from a data set's name to a function called with (requests done, in all).
        say: receives one line for each file written.

    Raises BadInput if a file is there already or its journal is of another run, EngineError where the
    engine dies: what was run is kept, run again.
    """
    first = Request.of(datasets[0].problems[0].question, answer=plan.answer)
    await engine.prepare(Call(first.messages, plan.sampling))
    model = re.sub(r"[^\w.+-]+", "-", engine.model)  # a model's name may hold slashes, and the file is named after it
    rows: list[Row] = []
    outs = []
    for dataset in datasets:
        out = folder / f"{model}--{dataset.name}.parquet"
        verifier = await asyncio.to_thread(judge, dataset)  # opening one may take long
        for spec in specs:
            need_fitting(spec, verifier)
        if verifier is not None:
            await complete(verifier).prepare()
        arena = Arena(dataset, engine, verifier, plan, out)
        try:
            fields = await arena.contest(specs, progress=progress(out.stem))
            written, parts = write_samples(out, arena, plan.describe(engine, dataset))
        finally:
            arena.close()
            if verifier is not None:
                await complete(verifier).aclose()
        more = f" and {parts} unfinished or other texts to {out.stem}.parts.jsonl" if parts else ""
        say(f"wrote {written} samples to {out}{more}")
        rows += _rows(out.stem, engine.model, dataset, fields, plan.ahead)
        outs.append(out)
    for out in outs:  # a data set that is done stays resumable until all are
        remove_journal(out)
    return rows


def _rows(name: str, model: str, dataset: Dataset, fields: Sequence[Field], ahead: int) -> list[Row]:
    """One row for each strategy and budget; the first of self-consistency under a budget is its baseline.

    `difference` is paired over the problems against self-consistency under the same budget,
    `flops_difference` against self-consistency at equal mean FLOPs.
    """
    accuracy = _accuracy(dataset, fields)
    low, high = intervals(accuracy)
    means = [_means(field.ran) for field in fields]
    base: dict[int, int] = {}
    for place, field in enumerate(fields):
        if field.spec.canonical == BASELINE:
            base.setdefault(field.budget, place)
    paired = np.stack([accuracy[place] - accuracy[base[field.budget]] for place, field in enumerate(fields)])
    under, over = intervals(paired)
    flops = [float("nan") if (value := mean["flops"]) is None else value for mean in means]
    rungs = list(base.values())
    equal = Frontier([flops[place] for place in rungs], accuracy[rungs]).differences(flops, accuracy)
    rows = []
    for place, field in enumerate(fields):
        spec = field.spec
        row: Row = {"traces": name, "model": model, "strategy": spec.canonical, "n": spec.n}
        row |= {"budget_tokens": field.budget, "accuracy": float(accuracy[place].mean())}
        row |= {"accuracy_low": float(low[place]), "accuracy_high": float(high[place])} | means[place]
        row |= {
            "verifier": next((ran.verifier for ran in field.ran if ran.verifier), None),
            "ahead": in_flight(spec, ahead),
            "seeds": 1,
            "problems": len(dataset.problems),
        }
        difference = Difference(float(paired[place].mean()), float(under[place]), float(over[place]))
        row |= columns("difference", difference) | columns("flops_difference", equal[place])
        rows.append(row | {"notes": _notes(field.ran)})
    return rows


def _accuracy(dataset: Dataset, fields: Sequence[Field]) -> Array:
    """(fields, problems), 1 where the answer is right."""
    grid = np.zeros((len(fields), len(dataset.problems)))
    for column, problem in enumerate(dataset.problems):
        given = [field.ran[column].answer for field in fields]
        right = dataset.right(problem.problem_id, given)
        grid[:, column] = [answer in right for answer in given]
    return grid


def _means(ran: Sequence[Ran]) -> dict[str, float | None]:
    """Means over the problems, None where one of them is not known."""
    requests = [asdict(request) for request in ran]
    columns = {name: [request[name] for request in requests] for name in MEASURES[1:]}
    return {name: None if None in values else float(np.mean(values)) for name, values in columns.items()}


def _notes(ran: Sequence[Ran]) -> list[str]:
    """Notes of the receipts, and how many requests the budget has ended."""
    ended = sum(request.stopped.startswith("budget:") for request in ran)
    notes = sorted({note for request in ran for note in request.notes})
    return notes + ([f"the budget ended {ended} of {len(ran)} requests"] if ended else [])


def write_samples(out: Path, arena: Arena, described: JsonObject) -> tuple[int, int]:
    """Write whole samples to OUT (Parquet) and parts beside it (JSONL).

    Returns the number of each; a part is a continuation, a sample of another prompt than the plain
    question, or one that a budget has cut: replayed as samples they would mislead.
    """
    dataset = arena.dataset
    by_problem: dict[str, list[tuple[str, Sample]]] = {problem.problem_id: [] for problem in dataset.problems}
    names = {question: problem for problem, question in arena.questions.items()}
    parts = []
    for key, sample in arena.store:
        question, kind, strategy, budget, _, index, prefix, _ = json.loads(key)
        problem = names.get(question)
        if problem is None:
            continue  # of a question that the data set has no more
        if kind == "part":
            part = {"problem_id": problem, "strategy": strategy, "budget_tokens": budget, "sample": index}
            parts.append(part | {"prefix": prefix, "text": sample.text, "n_tokens": sample.tokens})
        else:
            by_problem[problem].append((kind, sample))
    rows, graded = [], dataset.grade is not None
    for problem, drawn in by_problem.items():
        right = dataset.right(problem, [sample.answer for _, sample in drawn])
        # Several strategies may have drawn it; a file has one row 0.
        greedy = [(0, sample) for kind, sample in drawn if kind == "greedy"][:1]
        sampled = [sample for kind, sample in drawn if kind == "sampled"]
        for number, sample in [*greedy, *enumerate(sampled, start=1)]:
            rows.append(trace_row(problem, number, sample, sample.answer in right if graded else None))
    write_traces(out, rows, described)
    if parts:
        beside = out.with_suffix(".parts.jsonl")
        write_file(beside, "".join(json.dumps(part, ensure_ascii=False) + "\n" for part in parts))
    return len(rows), len(parts)
