"""Recorded samples in Parquet files.

Knows: the columns of the data card and how a row becomes a Sample. Does not know replay order,
time or strategies. `correct` and gold answers stay here, out of every strategy's sight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outthink.core.confidence import ConfidenceTrace
from outthink.core.errors import BadInput
from outthink.core.sample import Sample
from outthink.engines.simulated import CHUNK

REQUIRED = ("problem_id", "sample_idx", "n_tokens", "answer", "correct")
_OPTIONAL = ("finish_reason", "prompt_tokens", "mean_logprob", "chunk_conf", "extraction", "self_certainty")


@dataclass(slots=True)
class Recorded:
    """All samples of one problem: the greedy one (sample_idx 0), the sampled ones, and what is right."""

    problem: str
    sampled: list[Sample] = field(default_factory=list)
    greedy: Sample | None = None
    right: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Traces:
    """One file of samples. `model` is the stem before `--`, `dataset` what follows it."""

    path: Path
    problems: dict[str, Recorded]

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
    def depth(self) -> int:
        """Sampled completions that every problem has."""
        return min(len(problem.sampled) for problem in self.problems.values())


def columns(path: Path) -> list[str]:
    """Column names of a Parquet file; BadInput if it cannot be read as one."""
    import pyarrow.parquet as parquet

    try:
        return list(parquet.read_schema(path).names)
    except FileNotFoundError:
        raise BadInput("traces", str(path), "does not exist", "check the path") from None
    except Exception as error:  # noqa: BLE001 - pyarrow raises many kinds for a damaged file
        line = str(error).splitlines()[0]
        raise BadInput("traces", str(path), f"is not a readable Parquet file ({line})", "record it again") from None


def missing(path: Path) -> list[str]:
    """Which of the columns that replay needs are absent."""
    names = columns(path)
    return [name for name in REQUIRED if name not in names]


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
    if text and "text" in present:
        wanted.append("text")
    try:
        rows: dict[str, list[Any]] = parquet.read_table(path, columns=wanted).to_pydict()
    except OSError as error:
        line = str(error).splitlines()[0]
        raise BadInput("traces", str(path), f"cannot be read ({line})", "record it again") from None
    if not rows["problem_id"]:
        raise BadInput("traces", str(path), "has no rows", "record some samples")
    return Traces(path, _group(rows))


def _group(rows: dict[str, list[Any]]) -> dict[str, Recorded]:
    count = len(rows["problem_id"])
    nothing: Sequence[Any] = [None] * count
    cells = zip(
        rows["problem_id"],
        rows["sample_idx"],
        rows["n_tokens"],
        rows["answer"],
        rows["correct"],
        *(rows.get(name, nothing) for name in _OPTIONAL),
        rows.get("text", nothing),
        strict=True,
    )
    problems: dict[str, Recorded] = {}
    for key, index, tokens, answer, correct, reason, prompt, logprob, conf, rule, certainty, text in cells:
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
        )
        if index == 0:
            recorded.greedy = sample
        else:
            recorded.sampled.append(sample)
        if correct and answer:
            recorded.right.add(answer)
    return problems
