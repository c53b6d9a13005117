"""Outcomes: prompts, how often each of several models was right on them, what it wrote and what it cost.

Knows: columns, which rows are dropped, what makes a file unusable, and that equal prompts must lie on one side of
every split. Does not know predictors, or what is trained on the folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from outthink.controller.router.artefact import prompt_hash
from outthink.core.errors import BadInput
from outthink.engines.traces import reading_parquet
from outthink.evaluation.sample_file import JsonObject

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PAIR = ("weak", "strong")
"""Columns of a weak and a strong model; any others are names."""
_CORRECT, _COST, _TOKENS = "_correct", "_cost", "_tokens"
CORE_HOUR = 0.05
"""Dollars of an hour of one processor core, by which the router's own time is charged."""
_CHARACTER = 2.5e-6
"""Dollars of a character of prompt where a file has no costs: 10 dollars a million tokens of four characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutcomes:
    """Rows that count, in the file's order.

    Args:
        name: of the data.
        models: by what they are called in a predictor, from the cheapest to the dearest where costs are known.
        columns: what they are called in the file.
        prompts, subjects: texts; there are no subjects where the file has none.
        right: (rows, models), share of right answers, of a single one 1.0 or 0.0.
        tokens: (rows, models), mean length of an answer; None where unknown.
        costs: (rows, models), in dollars; None where unknown.
        rows: number of each row in the file, from 0.
        dropped: rows left out because they are marked as contaminated, or because a model was not asked.
    """

    name: str
    models: tuple[str, ...]
    columns: tuple[str, ...] = ()
    prompts: tuple[str, ...]
    subjects: tuple[str, ...] = ()
    right: Floats
    tokens: Floats | None = None
    costs: Floats | None = None
    rows: tuple[int, ...] = ()
    dropped: int = 0
    group: Ints = field(init=False)
    """Number of the group of each prompt: equal prompts share one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", groups(self.prompts))

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def is_pair(self) -> bool:
        """Whether these are a weak and a strong model, which are judged by RouteLLM's curve."""
        return self.columns == PAIR

    @property
    def gain(self) -> Floats:
        """Of a pair +1 where only the strong model is right, -1 where only the weak one is."""
        return self.right[:, 1] - self.right[:, 0]

    @property
    def extra(self) -> Floats:
        """Of a pair what the strong call costs more, in one unit for all rows."""
        if self.costs is None:  # the cost of a request is its length: the share of cost is then that of characters
            return np.array([float(len(prompt)) for prompt in self.prompts])
        return np.asarray(self.costs[:, 1] - self.costs[:, 0])

    @property
    def cost_source(self) -> str:
        """Where `extra` comes from, in words."""
        return "characters of the prompt" if self.costs is None else "columns weak_cost and strong_cost"

    def share_of_cost(self, milliseconds: float) -> float:
        """Processor time of one request as a share of the mean extra cost."""
        unit = _CHARACTER if self.costs is None else 1.0
        return milliseconds / 3.6e6 * CORE_HOUR / unit / float(self.extra.mean())

    def subject(self, row: int) -> str:
        """Of one row, empty where there is none."""
        return self.subjects[row] if self.subjects else ""

    def need_subjects(self) -> None:
        """BadInput where a row has no subject."""
        empty = sum(not self.subject(row) for row in range(len(self)))
        if empty:
            problem = f"is empty in {empty} of {len(self)} rows"
            raise BadInput(f"data {self.name}", "subject", problem, "leave out --subject")

    def ordered(self, places: Sequence[int]) -> ModelOutcomes:
        """The same with the models in another order."""
        order = list(places)
        return replace(
            self,
            models=tuple(self.models[place] for place in order),
            columns=tuple(self.columns[place] for place in order),
            right=self.right[:, order],
            tokens=None if self.tokens is None else self.tokens[:, order],
            costs=None if self.costs is None else self.costs[:, order],
        )

    def take(self, rows: Ints) -> ModelOutcomes:
        """Some of the rows."""
        return replace(
            self,
            prompts=tuple(self.prompts[row] for row in rows),
            subjects=tuple(self.subjects[row] for row in rows) if self.subjects else (),
            right=self.right[rows],
            tokens=None if self.tokens is None else self.tokens[rows],
            costs=None if self.costs is None else self.costs[rows],
            rows=tuple(self.rows[row] for row in rows) if self.rows else (),
        )


def columns_of(path: Path) -> list[str]:
    """Names of a file's columns; BadInput for a file that is missing or no Parquet."""
    import pyarrow.parquet as parquet

    if not path.is_file():
        raise BadInput("data", str(path), "does not exist", "give a Parquet file")
    with reading_parquet("data", path, "write it again"):
        return list(parquet.ParquetFile(path).schema_arrow.names)


def read_columns(path: Path, needed: Sequence[str], optional: Sequence[str]) -> list[JsonObject]:
    """Rows with these columns, the optional ones where the file has them; BadInput for a missing one."""
    import pyarrow.parquet as parquet

    names = columns_of(path)
    missing = [name for name in needed if name not in names]
    if missing:
        raise BadInput(f"data {path.name}", ", ".join(missing), "is no column", f"it has: {', '.join(names)}")
    wanted = [name for name in (*needed, *optional) if name in names]
    rows: list[JsonObject] = parquet.ParquetFile(path).read(columns=wanted).to_pylist()
    return rows


def read_outcomes(path: Path, names: Mapping[str, str] | None = None) -> ModelOutcomes:
    """Read a Parquet file with `prompt` and NAME_correct of two or more models.

    Optional are `subject`, `contaminated` (these rows are dropped), NAME_tokens and NAME_cost; of models other than
    `weak` and `strong` costs are needed.

    Args:
        names: what models are called, by their columns; those not named keep the column's name.

    Raises BadInput for a missing file or column, an empty prompt, a label other than true and false, a cost or count
    that is no number, no rows, or a name for a column that there is not.
    """
    present = columns_of(path)
    columns = [name.removesuffix(_CORRECT) for name in present if name.endswith(_CORRECT)]
    pair = set(PAIR) & set(columns)
    if pair or not columns:
        columns = list(PAIR)
    elif len(columns) < 2:
        raise BadInput("data", str(path), "has outcomes of 1 model", "give NAME_correct of two or more")
    models = _named(columns, names or {})
    needed = ["prompt", *(f"{name}{_CORRECT}" for name in columns)]
    needed += [] if columns == list(PAIR) else [f"{name}{_COST}" for name in columns]
    measured = [f"{name}{end}" for end in (_COST, _TOKENS) for name in columns]
    rows = read_columns(path, needed, ("subject", "contaminated", *measured))
    kept = _kept(path, rows)
    table = partial(_table, path, kept, columns)
    costs, tokens = table(_COST, _is_cost, "is no cost", "give a number of dollars"), None
    if all(f"{name}{_TOKENS}" in kept[0][1] for name in columns):
        tokens = table(_TOKENS, _is_count, "is no count of tokens", "give a number above 0, or leave the column out")
    right = table(_CORRECT, _is_label, "is neither true nor false", "grade the row")
    assert right is not None
    order = list(range(len(columns)))
    if costs is not None and columns != list(PAIR):
        order = np.argsort(costs.mean(axis=0), kind="stable").tolist()
    elif costs is not None and (costs[:, 1] - costs[:, 0]).sum() <= 0:
        remedy = "swap the two models: there is no trade"
        raise BadInput(f"data {path.name}", "strong_cost", "is no more than weak_cost", remedy)
    data = ModelOutcomes(
        name=path.stem,
        models=tuple(models),
        columns=tuple(columns),
        prompts=tuple(row["prompt"] for _, row in kept),
        subjects=tuple(str(row.get("subject") or "") for _, row in kept) if "subject" in present else (),
        right=right,
        tokens=tokens,
        costs=costs,
        rows=tuple(place - 1 for place, _ in kept),
        dropped=len(rows) - len(kept),
    )
    return data.ordered(order)


def _named(columns: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """What the models of some columns are called."""
    for name in names:
        if name not in columns:
            raise BadInput("--models", name, "has no outcomes in the data", f"use {', '.join(columns)}")
    models = [names.get(name, name) for name in columns]
    for model in models:
        if models.count(model) > 1 or not model:
            raise BadInput("--models", model, "names no model, or two", "give each model a name of its own")
    return models


def _kept(path: Path, rows: Sequence[JsonObject]) -> list[tuple[int, JsonObject]]:
    """Rows that are not contaminated with their numbers, from 1; BadInput where there are none."""
    kept = [(place, row) for place, row in enumerate(rows, start=1) if not row.get("contaminated")]
    if not kept:
        empty = "has only contaminated rows" if rows else "has no rows"
        raise BadInput("data", str(path), empty, "give a file with rows to learn from")
    for place, row in kept:
        prompt = row["prompt"]
        if not isinstance(prompt, str) or not prompt.strip():
            raise BadInput(f"data {path.name}", prompt, f"is an empty prompt (row {place})", "remove the row")
    return kept


def _is_label(value: Any) -> bool:
    return value is not None and value in (0, 1)


def _is_cost(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < float("inf")


def _is_count(value: Any) -> bool:
    return _is_cost(value) and value > 0


def _table(
    path: Path,
    kept: Sequence[tuple[int, JsonObject]],
    models: Sequence[str],
    end: str,
    allowed: Callable[[Any], bool],
    problem: str,
    remedy: str,
) -> Floats | None:
    """The columns of all models that end so, None where one is not there; BadInput for a value that is not allowed."""
    columns = [f"{model}{end}" for model in models]
    if not all(column in kept[0][1] for column in columns):
        return None
    for place, row in kept:
        for column in columns:
            if not allowed(row[column]):
                raise BadInput(f"data {path.name}, {column}", row[column], f"{problem} (row {place})", remedy)
    return np.array([[float(row[column]) for column in columns] for _, row in kept])


def groups(prompts: Sequence[str]) -> Ints:
    """Number of the group of each prompt, from 0 in order of appearance; equal prompts share one.

    Prompts are equal when they differ in case and spaces only, as everywhere in routers.
    """
    # MMLU holds 89 repeated prompts: dealt out singly they would be learnt from and judged by.
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(prompt_hash(prompt), len(numbers)) for prompt in prompts], dtype=np.int64)


def fold_of(group: Ints, folds: int, seed: int) -> Ints:
    """Fold of each row: groups are shuffled and dealt out, so folds differ by one group at most.

    Raises BadInput for fewer than two folds or fewer groups than folds.
    """
    count = int(group.max()) + 1
    if folds < 2:
        raise BadInput("--folds", folds, "is below 2", "give at least 2")
    if count < folds:
        raise BadInput("data", count, f"different prompts cannot fill {folds} folds", "give more rows")
    dealt = np.random.default_rng(seed).permutation(count) % folds
    return np.asarray(dealt[group], dtype=np.int64)
