"""Math-Shepherd labels: how often a completion of each step's prefix comes right (arXiv 2312.08935).

Knows: prefixes, the journal, and the columns of the data card's process labels. Does not know any
engine; a whole solution is graded, never completed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from outthink.answers import Reading, reader_for
from outthink.core.errors import BadInput, EngineError
from outthink.core.request import AnswerKind, Request, Sampling
from outthink.core.sample import Sample
from outthink.engines.protocol import Call, Engine, complete
from outthink.evaluation.dataset import Dataset
from outthink.evaluation.record import Draw, Drawing, fill
from outthink.evaluation.sample_file import JsonObject, journal_of, remove_journal, write_table
from outthink.session.session import Session
from outthink.session.store import Questions, SampleStore, journal_key, open_journal
from outthink.training.examples import Solution

_COLUMNS = (
    ("problem_id", "string"),
    ("sample_idx", "uint16"),
    ("step_idx", "uint16"),
    ("prefix_end", "uint32"),
    ("prefix_tokens", "uint32"),
    ("is_final", "bool"),
    ("n_correct", "uint16"),
    ("n_correct_boxed", "uint16"),
    ("n_stop", "uint16"),
    ("mean_tokens", "float32"),
    ("n_unparsed", "uint16"),
    ("n_completions", "uint16"),
    ("prefix_hash", "string"),
)
"""The last three go beyond the data card's columns: `n_unparsed` are completions without a readable answer, counted
wrong; `prefix_hash` is the same for equal prefixes of a problem. Completer, temperature and seed are in the file's
metadata under `outthink`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelling(Drawing):
    """How to label: `completions` of each prefix, of the first `steps` steps of a solution.

    `style`, `system` and `instruction` (a line after the question) are those the samples were drawn with. Temperature 0
    makes one completion of any number.
    """

    completions: int = 8  # N of the paper
    steps: int = 24
    answer: AnswerKind = "number"
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.8, max_tokens=256))
    instruction: str | None = None

    def __post_init__(self) -> None:
        if self.sampling.temperature == 0:  # all would be the same one, and each would be paid for
            object.__setattr__(self, "completions", 1)

    def about(self, engine: Engine, dataset: Dataset, solutions: Sequence[Solution]) -> JsonObject:
        """Everything that makes two labellings the same; kept in the journal and the file's metadata."""
        digest = hashlib.sha256()
        for solution in solutions:
            told = f"{solution.problem_id}:{solution.sample_idx}:{''.join(solution.steps)}\0"
            digest.update(told.encode("utf-8", "surrogatepass"))
        return {
            "completer": engine.model,
            "dataset": dataset.name,
            "solutions": digest.hexdigest()[:16],
            **asdict(self),
            "temperature": self.sampling.temperature,
        }


@dataclass(frozen=True, slots=True)
class _Prefix:
    """The beginning of a solution, up to the end of a step. Equal texts of one problem are one prefix."""

    problem_id: str
    text: str

    @property
    def key(self) -> str:
        """Its hash: problem and text."""
        return hashlib.sha256(f"{self.problem_id}\0{self.text}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """A step of a solution and its prefix; `final` where the prefix is the whole, finished solution."""

    solution: Solution
    step: int
    prefix: _Prefix
    final: bool


def places(solutions: Iterable[Solution], steps: int) -> list[LabelPlace]:
    """The steps to label. Of a solution cut at its length limit the last, broken step is left out."""
    labelled: list[LabelPlace] = []
    for solution in solutions:
        text = ""
        for number, piece in enumerate(solution.steps):
            text += piece
            last = number == len(solution.steps) - 1
            if number < steps and not (last and solution.cut):
                labelled.append(LabelPlace(solution, number, _Prefix(solution.problem_id, text), last))
    return labelled


_FREE = ("dataset", "solutions", "completions", "steps")
"""What may differ between the runs of one journal: a completion belongs to its question and prefix."""


async def label(
    dataset: Dataset,
    solutions: Sequence[Solution],
    engine: Engine,
    out: Path,
    plan: Labelling,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Complete the prefixes that are missing, then write OUT at once; returns the number of rows.

    Args:
        dataset: the problems with their gold answers.
        progress: called with (completions saved, completions in all) after each commit.

    Raises BadInput if OUT exists, its journal is of another labelling or a solution has no problem,
    EngineError if completions are missing at the end (what is saved stays saved: run again).
    """
    engine = complete(engine)
    if out.exists():  # noqa: ASYNC240 - one stat before anything runs
        raise BadInput("--out", str(out), "exists already", "give another name or remove it")
    line = plan.instruction
    problems = {p.problem_id: p.asking(line) if line else p for p in dataset.problems}
    wanted = places(solutions, plan.steps)
    strangers = sorted({place.solution.problem_id for place in wanted} - set(problems))
    if strangers or not wanted:
        raise BadInput("--problems", (strangers or ["no solution"])[0], "is not among them", "give their problems")
    # A prefix that several solutions share is completed once.
    prefixes = list(dict.fromkeys(place.prefix for place in wanted if not place.final))
    await engine.prepare(Call(plan.request(next(iter(problems.values()))).messages, plan.sampling))
    about = plan.about(engine, dataset, solutions)  # after `prepare`, which may tell the model's name
    requests = {prefix: plan.request(problems[prefix.problem_id], _seed(prefix, plan)) for prefix in prefixes}
    questions = Questions()
    named = {prefix: questions.name(request, prefix.text) for prefix, request in requests.items()}

    # It survives a kill; what a power cut loses is sampled again.
    store = open_journal("--out", journal_of(out), "labelling", about, _FREE, partial(_adopt, named, about))
    try:
        numbers = _numbers(plan)
        draws = [
            Draw(named[prefix], numbers, partial(_complete, requests[prefix], prefix.text, plan.completions))
            for prefix in prefixes
        ]
        await fill(store, engine, lambda: draws, plan.completions, len(draws) * plan.completions, progress)
        rows = await _rows(wanted, dataset, engine, store, plan, named)
    finally:
        store.close()
    write_table(out, rows, _COLUMNS, about)
    remove_journal(out)
    return len(rows)


def _adopt(named: dict[_Prefix, str], about: JsonObject, journal: SampleStore) -> bool:
    """Take over a journal of 0.1: under the same solutions, which it tells, its keys are the prefixes' own."""
    known = {prefix.key: question for prefix, question in named.items()}
    keys = [key.partition(":")[::2] for key in journal.kept()]
    told = journal.described("labelling")
    if told.get("solutions") != about["solutions"] or not {key for _, key in keys} <= known.keys():
        return False
    journal.rename(lambda key: journal_key(known[key.partition(":")[2]], int(key.partition(":")[0])))
    return True


def _seed(prefix: _Prefix, plan: Labelling) -> int:
    """Each prefix has random numbers of its own, whatever else is labelled with it."""
    return (plan.seed * 1_000_003 + int(prefix.key[:7], 16)) % 2**31


async def _complete(request: Request, prefix: str, n: int, session: Session) -> None:
    async for _ in session.extend(request, prefix, n=n, ahead=n, top_logprobs=None):
        pass


def _numbers(plan: Labelling) -> Sequence[int]:
    """Numbers of a prefix's completions, as `Journal` keeps them."""
    return [0] if plan.sampling.temperature == 0 else range(1, plan.completions + 1)


async def _rows(
    wanted: Sequence[LabelPlace],
    dataset: Dataset,
    engine: Engine,
    store: SampleStore,
    plan: Labelling,
    named: Mapping[_Prefix, str],
) -> list[JsonObject]:
    reader = reader_for(plan.answer)
    known: dict[_Prefix, JsonObject] = {}
    missing = 0
    rows = []
    for place in wanted:
        prefix = place.prefix
        if place.final:
            reading = await reader.read(prefix.text)
            counts = _finished(reading, bool(dataset.right(prefix.problem_id, [reading.answer])), plan.completions)
        else:
            if prefix not in known:
                stored = [store.get(journal_key(named[prefix], number)) for number in _numbers(plan)]
                samples = [sample for sample in stored if sample is not None]
                missing += len(stored) - len(samples)
                known[prefix] = _completed(dataset, prefix, samples)
            counts = known[prefix]
        rows.append(
            {
                "problem_id": prefix.problem_id,
                "sample_idx": place.solution.sample_idx,
                "step_idx": place.step,
                "prefix_end": len(prefix.text),
                "prefix_tokens": await _tokens(engine, prefix.text),
                "is_final": place.final,
                "prefix_hash": prefix.key,
                "n_completions": plan.completions,
                **counts,
            }
        )
    if missing:
        raise EngineError(f"{missing} completions are missing; run the same command again")
    return rows


def _completed(dataset: Dataset, prefix: _Prefix, samples: Sequence[Sample]) -> JsonObject:
    right = dataset.right(prefix.problem_id, [sample.answer for sample in samples])
    lengths = [sample.tokens for sample in samples]
    known = [length for length in lengths if length is not None]
    return {
        "n_correct": sum(sample.answer in right for sample in samples),
        "n_correct_boxed": sum(sample.answer in right and sample.rule == "boxed" for sample in samples),
        "n_stop": sum(sample.finish_reason == "stop" for sample in samples),
        "n_unparsed": sum(sample.answer is None for sample in samples),
        "mean_tokens": sum(known) / len(known) if known and len(known) == len(lengths) else None,
    }


def _finished(reading: Reading, right: bool, completions: int) -> JsonObject:
    """A finished solution: its own grade in place of completions, nothing sampled."""
    return {
        "n_correct": completions * right,
        "n_correct_boxed": completions * (right and reading.rule == "boxed"),
        "n_stop": completions,
        "n_unparsed": completions * (reading.answer is None),
        "mean_tokens": 0.0,
    }


async def _tokens(engine: Engine, text: str) -> int | None:
    """Tokens of a prefix by the engine's own tokeniser, None where it has none."""
    try:
        return await engine.count_text(text)
    except EngineError:
        return None
