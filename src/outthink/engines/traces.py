"""Recorded samples in Parquet files, and the engine that serves them as if a model produced them now.

Knows: the columns of the data card, how a row becomes a Sample, and the order in which a seed deals out a problem's
samples. Does not know time or strategies. `correct` and gold answers stay here, out of every strategy's sight.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from outthink.core.display import Displayed, Rows
from outthink.core.errors import BadInput
from outthink.core.sample import Sample
from outthink.engines.column_reader import ColumnReader
from outthink.engines.protocol import Call, Features, Outcome, Simulated, Speed
from outthink.engines.recorded import Recorded, RecordedProblems
from outthink.engines.time_model import TimeModel

REQUIRED = ("problem_id", "sample_idx", "n_tokens", "answer", "correct")
_OPTIONAL = ("finish_reason", "prompt_tokens", "mean_logprob", "chunk_conf", "extraction", "self_certainty")
SCORE_COLUMNS = ("score", "steps", "verifier", "verifier_tokens")
"""What `outthink verify` adds to a file of samples."""
VERIFIER_KEY = b"outthink.verifier"
"""Key of the file's metadata that describes the verifier."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """Who gave the recorded scores; kind and aggregation as in the verifiers' protocol, None if not recorded."""

    id: str
    kind: str | None = None
    model: str | None = None
    parameters: int | None = None
    aggregation: str | None = None


@dataclass(slots=True, repr=False)
class Traces(Displayed):
    """One file of samples. `model` is the stem before `--`, `dataset` what follows it.

    Args:
        problems: by name. Those of a file are built from its columns when they are asked for.
        scoring: the verifier whose scores the samples carry, None where they carry none.
        answered: whether the samples have answers, which can be voted on. Without any, each sample is right or wrong
            by itself, and stands as an answer of its own.
        parameters: weights read per token of the model, None where the file does not say.
    """

    path: Path
    problems: Mapping[str, Recorded]
    scoring: Scoring | None = None
    answered: bool = True
    parameters: int | None = None

    @property
    def name(self) -> str:
        """The file's stem."""
        return self.path.stem

    @property
    def model(self) -> str:
        """The model that produced the samples."""
        return model_of(self.path)

    @property
    def dataset(self) -> str:
        """The data set the samples answer; empty if the name has none."""
        return self.path.stem.partition("--")[2]

    @property
    def verifier(self) -> str | None:
        """Id of the verifier whose scores the samples carry."""
        return None if self.scoring is None else self.scoring.id

    @property
    def sampled(self) -> list[int]:
        """Sampled completions of each problem."""
        if isinstance(self.problems, RecordedProblems):
            return [int(count) for count in self.problems.sampled]
        return [len(problem.sampled) for problem in self.problems.values()]

    @property
    def depth(self) -> int:
        """Sampled completions that every problem has."""
        return min(self.sampled)

    @property
    def greedy(self) -> bool:
        """Whether every problem has a greedy sample."""
        if isinstance(self.problems, RecordedProblems):
            return self.problems.greedy
        return all(problem.greedy is not None for problem in self.problems.values())

    def hits(self) -> list[tuple[int, int]]:
        """Sampled completions of each problem, and how many of them are right."""
        if isinstance(self.problems, RecordedProblems):
            return self.problems.hits()
        problems = self.problems.values()
        return [(len(p.sampled), sum(sample.answer in p.right for sample in p.sampled)) for p in problems]

    def ungraded(self) -> list[str]:
        """Problems with rows that nobody has told to be right or wrong."""
        if isinstance(self.problems, RecordedProblems):
            if self.problems.wholly_graded:
                return []
            if not self.problems.graded:
                return list(self.problems)
        return [name for name, problem in self.problems.items() if problem.ungraded]

    def need_answers(self) -> None:
        """BadInput for samples that cannot be voted on."""
        if not self.answered:
            raise BadInput("traces", str(self.path), "has no answers to vote on", "give samples with answers")

    def need_grades(self) -> None:
        """BadInput where it is not known of every sample whether it is right."""
        if ungraded := len(self.ungraded()):
            what = f"does not say which samples of {ungraded} of its {len(self.problems)} problems are correct"
            raise BadInput("traces", str(self.path), what, "grade them first: outthink verify")

    def need_counts(self, *, prompts: bool = False) -> None:
        """BadInput where generated tokens of some rows are unknown, or those of prompts: they are not 0, and nothing
        can be weighed against them."""
        if isinstance(self.problems, RecordedProblems):
            rows, unread, unasked = self.problems.uncounted
        else:
            samples = [sample for problem in self.problems.values() for sample in problem.samples]
            rows, unread = len(samples), sum(sample.tokens is None for sample in samples)
            unasked = sum(sample.prompt_tokens is None for sample in samples)
        for name, unknown in (("n_tokens", unread), ("prompt_tokens", unasked if prompts else 0)):
            if unknown:
                remedy = "record samples from a server that counts tokens"
                raise BadInput("traces", str(self.path), f"lacks {name} in {unknown} of its {rows} rows", remedy)

    def take(self, names: Sequence[str]) -> Traces:
        """Some of the problems."""
        if isinstance(self.problems, RecordedProblems):
            return replace(self, problems=self.problems.part(names))
        return replace(self, problems={name: self.problems[name] for name in names})

    def display(self) -> tuple[str, Rows]:
        """Model, data set and how much there is."""
        samples = sum(self.sampled)
        greedy = sum(problem.greedy is not None for problem in self.problems.values())
        rows = [
            ("model", self.model),
            ("dataset", self.dataset or "unnamed"),
            ("problems", f"{len(self.problems):,}"),
            ("samples", f"{samples:,}, {self.depth} or more of each problem, and {greedy:,} greedy ones"),
            ("verifier", self.verifier or "none"),
        ]
        return f"samples of {self.path}", rows


def model_of(path: Path | str) -> str:
    """The model whose samples a file holds, by the file's name."""
    return Path(path).stem.partition("--")[0]


@contextmanager
def reading_parquet(field: str, path: Path, remedy: str) -> Iterator[None]:
    """BadInput for whatever is raised inside, where a Parquet file is read."""
    try:
        yield
    except BadInput:
        raise
    except FileNotFoundError:
        raise BadInput(field, str(path), "does not exist", "check the path") from None
    except Exception as error:  # noqa: BLE001 - pyarrow raises many kinds for a damaged file
        line = str(error).splitlines()[0]
        raise BadInput(field, str(path), f"is not a readable Parquet file ({line})", remedy) from None


def columns(path: Path) -> list[str]:
    """Column names of a Parquet file; BadInput if it cannot be read as one."""
    import pyarrow.parquet as parquet

    with reading_parquet("traces", path, "record it again"):
        return list(parquet.read_schema(path).names)


def missing(path: Path) -> list[str]:
    """Which of the columns that replay needs are absent."""
    names = columns(path)
    return [name for name in REQUIRED if name not in names]


def metadata(path: Path, key: bytes) -> dict[str, Any]:
    """The JSON object under a key of a Parquet file's metadata, empty where there is none."""
    import pyarrow.parquet as parquet

    try:
        kept = json.loads((parquet.read_schema(path).metadata or {}).get(key, b"{}"))
    except ValueError:
        return {}
    return kept if isinstance(kept, dict) else {}


def load(path: Path, *, text: bool = False) -> Traces:
    """Read a file of samples.

    Args:
        text: keep the completions too; replaying recorded answers does not need them.

    Raises BadInput for a damaged file, one without the needed columns, or one without rows.
    """
    import pyarrow.parquet as parquet

    path = Path(path)
    absent = missing(path)
    if absent:
        raise BadInput("traces", str(path), f"lacks the columns {', '.join(absent)}", "record samples with them")
    scored = SCORE_COLUMNS if "verifier" in columns(path) else ()
    wanted = [*REQUIRED, *_OPTIONAL, *scored, *(["text"] if text else [])]
    with reading_parquet("traces", path, "record it again"), parquet.ParquetFile(path) as file:
        problems, verifiers = ColumnReader(path, file, wanted).read()
    parameters = metadata(path, b"outthink").get("parameters")
    if not isinstance(parameters, int) or isinstance(parameters, bool) or parameters < 1:
        parameters = None
    return Traces(path, problems, _scoring(path, verifiers), problems.answered, parameters)


def _scoring(path: Path, names: Sequence[str]) -> Scoring | None:
    """The one verifier of a file; scores of two are never mixed."""
    if len(names) > 1:
        raise BadInput(
            "traces", list(names), f"are verifiers of one file, {path}", "score it with one: outthink verify"
        )
    if not names:
        return None
    described = metadata(path, VERIFIER_KEY)
    if described.get("id") != names[0]:
        described = {}
    known = {name: described.get(name) for name in ("kind", "model", "parameters", "aggregation")}
    return Scoring(names[0], **known)


class ReplayEngine(Simulated):
    """Recorded samples of one model on one data set. Sample 0 is the greedy one: it serves calls at temperature 0 only.

    Args:
        traces: the samples; a call's `problem` selects among them.
        seed: each (problem, seed) has one permutation, shared by all strategies and sizes.
        speed: the time model of the simulated server.
    """

    features: Features

    def __init__(self, traces: Traces, *, seed: int = 0, speed: TimeModel | None = None) -> None:
        self.traces, self.seed = traces, seed
        self.speed = speed or Speed()
        first = next(iter(traces.problems.values()))
        sample = first.sampled[0] if first.sampled else first.greedy
        has_confidence = sample is not None and sample.confidence is not None
        self.features = Features(
            logprobs=sample is not None and sample.mean_logprob is not None,
            top_logprobs=20 if has_confidence else 0,
            full_logprobs=sample is not None and sample.self_certainty is not None,
            prefix=False,
            seed=True,
        )
        self._dealt: dict[str, list[Outcome]] = {}

    @property
    def model(self) -> str:
        """The recorded model."""
        return self.traces.model

    @property
    def parameters(self) -> int | None:
        """Its weights read per token, None where the file does not say."""
        return self.traces.parameters

    def outcome(self, call: Call) -> Outcome:
        """Sample number `call.index` of this seed's order; BadInput for what was not recorded."""
        key = call.problem
        dealt = self._dealt.get(key) if key is not None else None
        if dealt is None:
            dealt = self._deal(key)
        sampling = call.sampling
        if sampling.temperature == 0:
            outcome = self._greedy(key)
        elif call.index < len(dealt):
            outcome = dealt[call.index]
        else:
            raise BadInput(
                "n", call.index + 1, f"is more than the {len(dealt)} samples recorded of {key}", "ask for fewer"
            )
        return outcome if outcome.tokens <= sampling.max_tokens else _cut(outcome, sampling.max_tokens)

    def _greedy(self, key: str | None) -> Outcome:
        greedy = self._problem(key).greedy
        if greedy is None:
            raise BadInput("greedy", key, "has no recorded greedy sample", "record with --greedy")
        return _outcome(greedy, self._problem(key))

    def reseed(self, seed: int) -> None:
        """Deal out every problem anew."""
        self.seed = seed
        self._dealt.clear()

    def _problem(self, key: str | None) -> Recorded:
        recorded = self.traces.problems.get(key or "")
        if recorded is None:
            raise BadInput(
                "problem", key, f"is not recorded in {self.traces.name}", "set request.problem to one that is"
            )
        return recorded

    def _deal(self, key: str | None) -> list[Outcome]:
        recorded = self._problem(key)
        order = self._dealt[recorded.problem] = [_outcome(sample, recorded) for sample in recorded.dealt(self.seed)]
        return order

    async def count_prompt(self, call: Call) -> int | None:
        """The recorded prompt length."""
        recorded = self._problem(call.problem)
        sample = recorded.sampled[0] if recorded.sampled else recorded.greedy
        return None if sample is None else sample.prompt_tokens


def _outcome(sample: Sample, recorded: Recorded) -> Outcome:
    told = sample.tokens is not None
    tokens = sample.tokens if sample.tokens is not None else recorded.lengths.get(sample.index, 0)
    return Outcome(sample, tokens, sample.prompt_tokens or 0, told=told)


def _cut(outcome: Outcome, cap: int) -> Outcome:
    """A recorded sample under a smaller limit: what its first tokens answered is not known."""
    sample = outcome.sample
    text = sample.text[: len(sample.text) * cap // outcome.tokens]
    trace = sample.confidence
    if trace is not None:
        # `_known` holds figures of the whole trace, which are not those of a part.
        trace = replace(trace, values=trace.values[: -(-cap // trace.stride)], tokens=cap, _known={})
    tokens = cap if outcome.told else None
    short = replace(
        sample, text=text, answer=None, rule="none", tokens=tokens, finish_reason="length", confidence=trace
    )
    return replace(outcome, sample=short, tokens=cap)
