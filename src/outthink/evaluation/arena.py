"""Runs strategies on an engine at equal token budgets, and keeps every sample they draw.

Knows: one request for each problem, strategy and budget, a journal so that a killed run goes on, and
which samples a replay may use. Does not know intervals, rows or how a strategy works.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from outthink.core.errors import BadInput
from outthink.core.receipt import Receipt, Verdict
from outthink.core.request import AnswerKind, Budget, Request, Sampling
from outthink.core.sample import Sample
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call, Engine, complete
from outthink.evaluation.dataset import Dataset
from outthink.evaluation.published.problem_list import Problem
from outthink.evaluation.record import side_by_side
from outthink.evaluation.sample_file import JsonObject, journal_of
from outthink.session.calls import RunningCall
from outthink.session.open import SessionOptions, Source, open_session
from outthink.session.runner import Places
from outthink.session.scoring import cut
from outthink.session.store import Questions, SampleStore, open_journal
from outthink.strategies import Spec
from outthink.strategies.defaults import BASELINE, PILOT
from outthink.verifiers import protocol as verifiers
from outthink.verifiers.protocol import Verifier

Kept = TypeVar("Kept")
LADDER = (2, 4, 8, 16)
"""Default budgets: so many times what one sample takes, prompt included."""
_PILOT = 4
_FREE = ("dataset", "questions")
"""What may differ between the runs of one journal: requests and samples belong to their question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaPlan:
    """How to compare live.

    Args:
        budgets: total tokens of a request, prompts and verifier included; empty for LADDER.
        seed: every request has seeds of its own, derived from it.
        jobs: requests under way at once; more than 1 makes `seconds` depend on each other.
        parameters: weights read per token, None for what the engine tells.
    """

    answer: AnswerKind = "text"
    sampling: Sampling = field(default_factory=Sampling)
    budgets: tuple[int, ...] = ()
    seed: int = 0
    ahead: int = 4
    jobs: int = 1
    parameters: int | None = None

    def describe(self, engine: Engine, dataset: Dataset) -> JsonObject:
        """Everything that requests of two runs must share to stand in one journal."""
        questions = "\0".join(f"{problem.problem_id}\0{problem.text}" for problem in dataset.problems)
        return {
            "model": engine.model,
            "dataset": dataset.name,
            "questions": hashlib.sha256(questions.encode("utf-8", "surrogatepass")).hexdigest(),
            "answer": self.answer,
            "sampling": asdict(self.sampling),
            "seed": self.seed,
            "ahead": self.ahead,
        }


@dataclass(frozen=True, slots=True)
class Ran:
    """What one request gave; None where a quantity is not known."""

    answer: str | None
    tokens: int | None
    prompt_tokens: int | None
    cancelled_tokens: int | None
    flops: float | None
    seconds: float
    samples: int
    verifier_tokens: int | None
    stopped: str
    verifier: str | None = None
    notes: tuple[str, ...] = ()
    judging: int = 0
    """Tokens, at most, that judging its text would have taken; told of the pilot alone."""


@dataclass(frozen=True, slots=True)
class Field:
    """One strategy under one budget: what its requests gave, in the order of the problems."""

    spec: Spec
    budget: int
    ran: tuple[Ran, ...]


class Arena:
    """One data set, one engine, one journal.

    Args:
        out: where the samples go; the journal lies beside it.

    Raises BadInput if OUT exists already or its journal is of another run.
    """

    def __init__(self, dataset: Dataset, engine: Engine, verifier: Verifier | None, plan: ArenaPlan, out: Path) -> None:
        self.dataset, self.engine, self.plan, self.out = dataset, complete(engine), plan, out
        self.verifier = None if verifier is None else verifiers.complete(verifier)
        if out.exists() and not journal_of(out).exists():
            raise BadInput("--out", str(out), "exists already", "give another folder or remove it")
        self.questions = Questions.names_by_problem(
            (problem.problem_id, self._request(problem, None, None)) for problem in dataset.problems
        )
        about = plan.describe(engine, dataset)
        self.store = open_journal(
            "--out", journal_of(out), "run", about, _FREE, lambda journal: self._adopt(journal, about)
        )
        places = Places(lambda: max(1, self.engine.concurrency))
        self.source = Source(engine, Tariff.of_engine(self.engine, parameters=plan.parameters), places=places)

    async def pilot(self) -> tuple[float, float]:
        """Tokens that one sample takes, prompt included, and judging it: means over a few problems without a budget."""
        # Kept in the journal: a run that goes on must have the budgets it began with.
        known = self.store.about("pilot with judging")
        if known is None:
            spent, judging = [], []
            for problem in self.dataset.problems[:_PILOT]:
                ran = await self.run(problem, Spec.parse(PILOT), None)
                if ran.tokens is None or ran.prompt_tokens is None:
                    # Unknown counts are taken high: all that may be generated, and a token a byte of the question.
                    spent.append(self.plan.sampling.max_tokens + len(problem.text.encode()))
                else:
                    spent.append(ran.tokens + ran.prompt_tokens)
                judging.append(ran.judging)
            means = [sum(spent) / len(spent), sum(judging) / len(judging)]
            known = self.store.about("pilot with judging", json.dumps(means)) or json.dumps(means)
        each, more = self._kept(tuple[float, float], known)
        return max(1.0, each), more

    async def contest(
        self, specs: Sequence[Spec], *, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Field]:
        """Run what is not in the journal yet; `progress` is called with (requests done, in all)."""
        each, judging = await self.pilot()
        budgets = self.plan.budgets or tuple(_rounded(each * times) for times in LADDER)
        fields = [(fit(spec, budget, each, judging), budget) for spec in _with_baseline(specs) for budget in budgets]
        jobs = [(problem, spec, budget) for problem in self.dataset.problems for spec, budget in fields]
        ran: dict[tuple[str, str, int], Ran] = {}
        waiting = iter(jobs)
        progress(0, len(jobs))

        async def work() -> None:
            for problem, spec, budget in waiting:
                ran[problem.problem_id, str(spec), budget] = await self.run(problem, spec, budget)
                progress(len(ran), len(jobs))

        await side_by_side(work, self.plan.jobs)
        names = [problem.problem_id for problem in self.dataset.problems]
        return [Field(spec, budget, tuple(ran[name, str(spec), budget] for name in names)) for spec, budget in fields]

    async def run(self, problem: Problem, spec: Spec, budget: int | None) -> Ran:
        """One request, from the journal or on the engine; its samples are saved as they finish."""
        judge = None if self.verifier is None else self.verifier.id
        question = self.questions[problem.problem_id]
        key = json.dumps(["request", question, str(spec), budget, judge])
        known = self.store.about(key)
        if known is not None:
            return self._kept(Ran, known)
        drawn = json.dumps(["request", problem.problem_id, str(spec), budget, judge])
        seed = int.from_bytes(hashlib.sha256(f"{self.plan.seed}:{drawn}".encode()).digest()[:4]) >> 1
        request = self._request(problem, budget, seed)

        def keep(event: str, running: RunningCall, sample: Sample | None) -> None:
            if event == "finished" and sample is not None and running.role == "policy":
                name = [question, sample_kind(running.call, sample, request), str(spec), budget, judge]
                prompt = hashlib.sha256(repr((running.call.messages, running.call.sampling)).encode()).hexdigest()[:8]
                place = [running.call.index, running.call.prefix, prompt]
                self.store.put(json.dumps([*name, *place]), sample)

        options = SessionOptions(ahead=self.plan.ahead, observer=keep, verifier=self.verifier)
        opened = open_session([self.source], budget=request.budget, seed=request.seed, options=options)
        session = opened.session
        verdict = await opened.run(spec(session, request))
        summary = _summary(verdict, session.receipt(), session.stopped or verdict.stopped, judge)
        if budget is None:
            summary["judging"] = self._judging(request, verdict.text)
        value = json.dumps(summary)
        return self._kept(Ran, self.store.about(key, value) or value)

    def _kept(self, kind: type[Kept], value: str) -> Kept:
        """A remark of the journal; BadInput where it is damaged."""
        from outthink.validation import Border, read_json

        remedy = "give another name, or move the file away"
        return read_json(kind, value, Border(source=str(journal_of(self.out)), remedy=remedy))

    def _request(self, problem: Problem, budget: int | None, seed: int | None) -> Request:
        return Request.of(
            problem.question,
            answer=self.plan.answer,
            budget=Budget(tokens=budget),
            sampling=self.plan.sampling,
            seed=seed,
            problem=problem.problem_id,
        )

    def _adopt(self, journal: SampleStore, about: JsonObject) -> bool:
        """Read a journal of 0.1, which tells its questions and keeps everything under their problems' ids."""
        if journal.described("run").get("questions") != about["questions"]:
            return False

        def renamed(key: str, place: int) -> str:
            parts = json.loads(key) if key.startswith("[") else []
            if len(parts) > place and parts[place] in self.questions:
                parts[place] = self.questions[parts[place]]
                return json.dumps(parts)
            return key

        journal.rename(lambda key: renamed(key, 0), lambda name: renamed(name, 1))
        return True

    def _judging(self, request: Request, text: str) -> int:
        """Tokens that the verifier would reserve for this text, 0 where it would not take it."""
        if self.verifier is None or not text.strip():
            return 0
        try:
            return self.verifier.bound(request, cut(text, self.verifier))
        except BadInput:
            return 0

    def close(self) -> None:
        """Close the journal; it stays for the next run."""
        self.store.close()


def sample_kind(call: Call, sample: Sample, request: Request) -> str:
    """What a drawn sample is: `greedy` or `sampled` of the plain question, to be replayed, or a `part`:
    of a longer text, of another prompt, or cut by a budget."""
    wanted, got = request.sampling, call.sampling
    cut = sample.cut and got.max_tokens < wanted.max_tokens
    if call.prefix is not None or call.messages != request.messages or cut or got.stop != wanted.stop:
        return "part"
    if got.temperature == 0:
        return "greedy"
    return "sampled" if got.temperature == wanted.temperature else "part"


def fit(spec: Spec, budget: int, each: float, judging: float = 0.0) -> Spec:
    """The spec with as many samples as the budget pays for, with their judging if it judges, unless it names n."""
    if not spec.strategy.sized or "n" in spec.parameters:
        return spec
    # Without its share the samples would spend all, and the verifier, which has to reserve, would judge none.
    return spec.sized(max(1, int(budget / (each + judging * spec.judges))))


def _with_baseline(specs: Sequence[Spec]) -> list[Spec]:
    """Self-consistency to compare with, then the specs."""
    baseline = Spec.parse(BASELINE)
    return [baseline, *(spec for spec in specs if str(spec) != str(baseline))]


def _rounded(tokens: float) -> int:
    """Two digits, so that the budgets read well."""
    return int(float(f"{tokens:.1e}"))


def _sum(values: Iterable[int | None]) -> int | None:
    """None where one of them is unknown."""
    counts = list(values)
    return None if None in counts else sum(count or 0 for count in counts)


def _summary(verdict: Verdict, receipt: Receipt, stopped: str, judge: str | None) -> JsonObject:
    judgements = [entry for entry in receipt.entries if entry.role == "verifier"]
    completion = _sum(entry.completion_tokens for entry in receipt.entries)
    cancelled = _sum(entry.cancelled_tokens for entry in receipt.entries)
    return {
        "answer": verdict.answer,
        "tokens": None if completion is None or cancelled is None else completion + cancelled,
        "prompt_tokens": _sum(entry.prompt_tokens for entry in receipt.entries),
        "cancelled_tokens": cancelled,
        "flops": receipt.flops,
        "seconds": receipt.seconds,
        "samples": len(receipt.entries) - len(judgements),
        "verifier_tokens": _sum(entry.tokens for entry in judgements),
        "stopped": stopped,
        "verifier": judge if judgements else None,
        "notes": list(receipt.notes),
    }
