"""A verifier's scores of the recorded sets, as `score_samples.py` keeps them: benchmarks/data/scores-SET.npz.

Knows: the columns of such a file, what it says of its making, and how to tell which samples it was made from. One row a
sample, in the order of the recorded file: `problem` (its id), `sample` (0 is the greedy one), `value` (float16: the
logit at the end of the last step, before any temperature; NaN without a score) and `tokens` (uint16: what the verifier
read for it, the question included; 0 without a score). `about` is a JSON object. Does not know verifiers or votes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from outthink.core.errors import BadInput

DATA = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True, slots=True)
class ScoreColumns:
    """All of one file; the first four are arrays of equal length."""

    problem: np.ndarray
    sample: np.ndarray
    value: np.ndarray
    tokens: np.ndarray
    about: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write the file whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            np.savez_compressed(
                file,
                problem=self.problem,
                sample=self.sample,
                value=self.value,
                tokens=self.tokens,
                about=np.array(json.dumps(self.about)),
            )
        os.replace(draft, path)


def scores_file(name: str, folder: Path = DATA) -> Path:
    """Where the scores of a recorded set (`GSM8K 0.5B`) lie."""
    return folder / f"scores-{name.replace(' ', '-').lower()}.npz"


def read_columns(path: Path) -> ScoreColumns:
    """A file of scores, finished or not. Raises BadInput where there is none."""
    try:
        with np.load(path) as file:
            columns = [file[name] for name in ("problem", "sample", "value", "tokens")]
            return ScoreColumns(*columns, json.loads(str(file["about"])))
    except (OSError, ValueError, KeyError) as error:
        raise BadInput("scores", str(path), f"cannot be read ({error})", "run score_samples.py --score") from None


def kept_scores(name: str, folder: Path = DATA) -> dict[tuple[str, int], tuple[float, int]]:
    """Logit and tokens read of a recorded set's samples, by problem and number; those without a score are left out.

    Raises BadInput where the set has not been scored to its end.
    """
    path = scores_file(name, folder)
    found = read_columns(path)
    if (scored := found.about["scored"]) < len(found.value):
        problem = f"holds {scored:,} of {len(found.value):,} samples"
        raise BadInput("scores", str(path), problem, "run score_samples.py --score again")
    rows = zip(*(column.tolist() for column in (found.problem, found.sample, found.value, found.tokens)), strict=True)
    return {(problem, sample): (value, tokens) for problem, sample, value, tokens in rows if tokens}


def digest(samples: Iterable[tuple[str, int, str, str]]) -> str:
    """Hash of (problem, sample, question, text) of every sample: equal where the verifier was given the same."""
    whole = hashlib.sha256()
    for row in samples:
        whole.update(json.dumps(row).encode() + b"\n")
    return whole.hexdigest()
