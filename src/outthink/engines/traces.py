"""Recorded samples in Parquet files, and the engine that serves them as if a model produced them now.

Knows: the columns of the data card, how a row becomes a Sample, and the order in which a seed deals out a problem's
samples. Does not know time or strategies. `correct` and gold answers stay here, out of every strategy's sight.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from outthink.core.display import Displayed, Rows
from outthink.core.errors import BadInput
from outthink.core.sample import ConfidenceTrace, Sample
from outthink.engines.protocol import CHUNK, Call, Features, Outcome, Simulated, Speed

REQUIRED = ("problem_id", "sample_idx", "n_tokens", "answer", "correct")
_OPTIONAL = ("finish_reason", "prompt_tokens", "mean_logprob", "chunk_conf", "extraction", "self_certainty")
SCORE_COLUMNS = ("score", "steps", "verifier", "verifier_tokens")
"""What `outthink verify` adds to a file of samples."""
VERIFIER_KEY = b"outthink.verifier"
"""Key of the file's metadata that describes the verifier."""


_Columns = dict[str, list[Any]]  # a table by columns, as pyarrow gives it


@dataclass(slots=True)
class Recorded:
    """All samples of one problem: the greedy one (sample_idx 0), the sampled ones, and what is right."""

    problem: str
    sampled: list[Sample] = field(default_factory=list)
    greedy: Sample | None = None
    right: set[str] = field(default_factory=set)

    def order(self, seed: int) -> list[int]:
        """Places of the samples as they are dealt out under a seed: the same for every strategy and size."""
        places = list(range(len(self.sampled)))
        # Seeded by text, which gives the same order in every process; hash() of a text does not.
        random.Random(f"{seed}:{self.problem}").shuffle(places)
        return places

    def dealt(self, seed: int) -> list[Sample]:
        """The sampled ones in the order of a seed."""
        return [self.sampled[place] for place in self.order(seed)]


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

    `scoring` is the verifier whose scores the samples carry, None where they carry none.
    """

    path: Path
    problems: dict[str, Recorded]
    scoring: Scoring | None = None

    @property
    def name(self) -> str:
        """The file's stem."""
        return self.path.stem

    @property
    def model(self) -> str:
        """The model that produced the samples."""
        return self.path.stem.partition("--")[0]

    @property
    def dataset(self) -> str:
        """The data set the samples answer; empty if the name has none."""
        return self.path.stem.partition("--")[2]

    @property
    def verifier(self) -> str | None:
        """Id of the verifier whose scores the samples carry."""
        return None if self.scoring is None else self.scoring.id

    @property
    def depth(self) -> int:
        """Sampled completions that every problem has."""
        return min(len(problem.sampled) for problem in self.problems.values())

    def display(self) -> tuple[str, Rows]:
        """Model, data set and how much there is."""
        samples = sum(len(problem.sampled) for problem in self.problems.values())
        greedy = sum(problem.greedy is not None for problem in self.problems.values())
        rows = [
            ("model", self.model),
            ("dataset", self.dataset or "unnamed"),
            ("problems", f"{len(self.problems):,}"),
            ("samples", f"{samples:,}, {self.depth} or more of each problem, and {greedy:,} greedy ones"),
            ("verifier", self.verifier or "none"),
        ]
        return f"samples of {self.path}", rows


@contextmanager
def reading_parquet(field: str, path: Path, remedy: str) -> Iterator[None]:
    """BadInput for whatever is raised inside, where a Parquet file is read."""
    try:
        yield
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
    present = columns(path)
    wanted = [*REQUIRED, *(name for name in _OPTIONAL if name in present)]
    if "verifier" in present:
        wanted += [name for name in SCORE_COLUMNS if name in present]
    if text and "text" in present:
        wanted.append("text")
    try:
        rows: _Columns = parquet.read_table(path, columns=wanted).to_pydict()
    except OSError as error:
        line = str(error).splitlines()[0]
        raise BadInput("traces", str(path), f"cannot be read ({line})", "record it again") from None
    if not rows["problem_id"]:
        raise BadInput("traces", str(path), "has no rows", "record some samples")
    return Traces(path, _group(rows), _scoring(path, rows))


def _scoring(path: Path, rows: _Columns) -> Scoring | None:
    """The one verifier of a file; scores of two are never mixed."""
    names = sorted(set(rows.get("verifier", ())) - {None})
    if len(names) > 1:
        raise BadInput("traces", names, f"are verifiers of one file, {path}", "score it with one: outthink verify")
    if not names:
        return None
    described = metadata(path, VERIFIER_KEY)
    if described.get("id") != names[0]:
        described = {}
    known = {name: described.get(name) for name in ("kind", "model", "parameters", "aggregation")}
    return Scoring(str(names[0]), **known)


def _group(rows: _Columns) -> dict[str, Recorded]:
    nothing = [None] * len(rows["problem_id"])
    names = (*REQUIRED, *_OPTIONAL, "text", "score", "steps", "verifier_tokens")
    cells = zip(*(rows.get(name, nothing) for name in names), strict=True)
    problems: dict[str, Recorded] = {}
    for (
        key, index, tokens, answer, correct, reason, prompt, logprob, conf, rule, certainty, text, score, steps, spent
    ) in cells:  # fmt: skip
        recorded = problems.get(key)
        if recorded is None:
            recorded = problems[key] = Recorded(key)
        trace = ConfidenceTrace(tuple(conf), CHUNK, tokens) if conf else None
        sample = Sample(
            index,
            text or "",
            answer or None,
            rule or ("recorded" if answer else "none"),
            tokens,
            reason or "unknown",
            prompt,
            logprob,
            trace,
            certainty,
            scores=tuple(steps) if steps else () if score is None else (score,),
            verifier_tokens=spent,
        )
        if index == 0:
            recorded.greedy = sample
        else:
            recorded.sampled.append(sample)
        if correct and answer:
            recorded.right.add(answer)
    return problems


class ReplayEngine(Simulated):
    """Recorded samples of one model on one data set. Sample 0 is the greedy one: it serves calls at temperature 0 only.

    Args:
        traces: the samples; a call's `problem` selects among them.
        seed: each (problem, seed) has one permutation, shared by all strategies and sizes.
        speed: the time model of the simulated server.
    """

    features: Features

    def __init__(self, traces: Traces, *, seed: int = 0, speed: Speed | None = None) -> None:
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
        return _outcome(greedy)

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
        order = self._dealt[recorded.problem] = [_outcome(sample) for sample in recorded.dealt(self.seed)]
        return order

    async def count_prompt(self, call: Call) -> int | None:
        """The recorded prompt length."""
        recorded = self._problem(call.problem)
        sample = recorded.sampled[0] if recorded.sampled else recorded.greedy
        return None if sample is None else sample.prompt_tokens


def _outcome(sample: Sample) -> Outcome:
    return Outcome(sample, sample.tokens or 0, sample.prompt_tokens or 0, told=sample.tokens is not None)


def _cut(outcome: Outcome, cap: int) -> Outcome:
    """A recorded sample under a smaller limit: what its first tokens answered is not known."""
    sample = outcome.sample
    text = sample.text[: len(sample.text) * cap // outcome.tokens]
    trace = sample.confidence
    if trace is not None:
        # `_known` holds figures of the whole trace, which are not those of a part.
        trace = replace(trace, values=trace.values[: -(-cap // trace.stride)], tokens=cap, _known={})
    short = replace(sample, text=text, answer=None, rule="none", tokens=cap, finish_reason="length", confidence=trace)
    return replace(outcome, sample=short, tokens=cap)
