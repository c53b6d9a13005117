"""Routing data: prompts, whether each of two or more models answered them rightly, and what it cost.

Knows: columns, which rows are dropped, what makes a file unusable, and that equal prompts must lie on one side of
every split. Does not know routers, or what is trained on the folds.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from outthink.controller.router.folder import prompt_hash
from outthink.core.errors import BadInput
from outthink.engines.traces import reading_parquet
from outthink.evaluation.sample_file import JsonObject

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_CORRECT, _COST = "_correct", "_cost"
LABELS = ("weak_correct", "strong_correct")
COSTS = ("weak_cost", "strong_cost")
CORE_HOUR = 0.05
"""Dollars of an hour of one processor core, by which the router's own time is charged."""
_CHARACTER = 2.5e-6
"""Dollars of a character of prompt where a file has no costs: 10 dollars a million tokens of four characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRows:
    """Rows that count, in the file's order.

    Args:
        name: of the file.
        models: by what they are called in a router.
        prompts, subjects: texts; a subject is empty where the file has none, and none is read for several models.
        right: (rows, models), 1.0 where that model was right, else 0.0.
        dropped: rows left out because they are marked as contaminated.
    """

    name: str
    models: tuple[str, ...]
    prompts: tuple[str, ...]
    subjects: tuple[str, ...] = ()
    right: Floats
    dropped: int

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that say which models were right."""
        return tuple(f"{model}{_CORRECT}" for model in self.models)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingData(ModelRows):
    """Rows of a weak and a strong model.

    Args:
        extra: what the strong call costs more than the weak one, in one unit for all rows.
        cost_source: where `extra` comes from, in words.
        dollars: of one unit of `extra`, to charge the router's time in.
    """

    models: tuple[str, ...] = ("weak", "strong")
    extra: Floats
    cost_source: str
    dollars: float = 1.0

    @property
    def weak(self) -> Floats:
        """1.0 where the weak model was right, else 0.0."""
        return self.right[:, 0]

    @property
    def strong(self) -> Floats:
        """1.0 where the strong model was right, else 0.0."""
        return self.right[:, 1]

    @property
    def gain(self) -> Floats:
        """+1 where only the strong model is right, -1 where only the weak one is."""
        return self.strong - self.weak

    def take(self, rows: Ints) -> RoutingData:
        """Some of the rows."""
        return replace(
            self,
            prompts=tuple(self.prompts[row] for row in rows),
            subjects=tuple(self.subjects[row] for row in rows),
            right=self.right[rows],
            extra=self.extra[rows],
        )

    def share_of_cost(self, milliseconds: float) -> float:
        """Processor time of one request as a share of the mean extra cost."""
        return milliseconds / 3.6e6 * CORE_HOUR / self.dollars / float(self.extra.mean())


def read_routing(path: Path) -> RoutingData:
    """Read a Parquet file with `prompt`, `weak_correct` and `strong_correct`; optional are `subject`,
    `contaminated` (these rows are dropped), `weak_cost` and `strong_cost`.

    Raises BadInput for a missing file or column, an empty prompt, a label other than true and false,
    a cost that is no number, or no rows.
    """
    rows = read_columns(path, ("prompt", *LABELS), ("subject", "contaminated", *COSTS))
    kept = _kept(path, rows, "has only contaminated rows" if rows else "has no rows")
    right = _table(path, kept, LABELS, "grade the row", labels=True)
    priced = all(name in kept[0][1] for name in COSTS)
    if priced:
        costs = _table(path, kept, COSTS, "give a number of dollars", labels=False)
        extra, source = costs[:, 1] - costs[:, 0], "columns weak_cost and strong_cost"
        if extra.sum() <= 0:
            field, remedy = f"data {path.name}", "swap the two models: there is no trade"
            raise BadInput(field, "strong_cost", "is no more than weak_cost", remedy)
    else:  # the cost of a request is its length: the share of cost is then that of characters
        extra, source = np.array([float(len(row["prompt"])) for _, row in kept]), "characters of the prompt"
    return RoutingData(
        name=path.stem,
        prompts=tuple(row["prompt"] for _, row in kept),
        subjects=tuple(str(row.get("subject") or "") for _, row in kept),
        right=right,
        dropped=len(rows) - len(kept),
        extra=extra,
        cost_source=source,
        dollars=1.0 if priced else _CHARACTER,
    )


def provenance(recipe: JsonObject) -> JsonObject:
    """When and with what something was trained, for its card."""
    return {
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "outthink": version("outthink"),
        "recipe": recipe,
    }


def need_subjects(data: ModelRows) -> None:
    """BadInput where a row has no subject."""
    empty = sum(not subject for subject in data.subjects)
    if empty:
        raise BadInput(
            f"data {data.name}", "subject", f"is empty in {empty} of {len(data)} rows", "leave out --subject"
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


def _kept(path: Path, rows: Sequence[JsonObject], empty: str) -> list[tuple[int, JsonObject]]:
    """Rows that are not contaminated with their numbers; BadInput, saying `empty`, where there are none."""
    kept = [(place, row) for place, row in enumerate(rows, start=1) if not row.get("contaminated")]
    if not kept:
        raise BadInput("data", str(path), empty, "give a file with rows to learn from")
    for place, row in kept:
        prompt = row["prompt"]
        if not isinstance(prompt, str) or not prompt.strip():
            raise BadInput(f"data {path.name}", prompt, f"is an empty prompt (row {place})", "remove the row")
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyData(ModelRows):
    """Rows of several models, from the cheapest to the dearest.

    Args:
        costs: (rows, models).
    """

    costs: Floats


def names_models(path: Path) -> bool:
    """Whether a file is about models by name rather than a weak and a strong one; BadInput if it cannot be read."""
    return not set(LABELS) & set(columns_of(path)) and bool(models_of(path))


def read_data(path: Path) -> RoutingData | ManyData:
    """Read either kind of file: `read_routing` or `read_many`."""
    return read_many(path) if names_models(path) else read_routing(path)


def models_of(path: Path) -> tuple[str, ...]:
    """Models other than a weak and a strong one that a file has outcomes of, in its order; empty without any.

    Raises BadInput for a file that cannot be read.
    """
    names = [name for name in columns_of(path) if name.endswith(_CORRECT) and name not in LABELS]
    return tuple(name.removesuffix(_CORRECT) for name in names)


def read_many(path: Path) -> ManyData:
    """Read a Parquet file with `prompt`, and `NAME_correct` and `NAME_cost` of two or more models.

    Rows marked in the optional column `contaminated` are dropped. Raises BadInput for a missing file or
    column, an empty prompt, a label other than true and false, a cost that is no number, or no rows.
    """
    models = models_of(path)
    if len(models) < 2:
        raise BadInput("data", str(path), f"has outcomes of {len(models)} model", "give NAME_correct of two or more")
    needed = ("prompt", *(f"{model}{end}" for model in models for end in (_CORRECT, _COST)))
    rows = read_columns(path, needed, ("contaminated",))
    kept = _kept(path, rows, "has no rows that count")
    right = _table(path, kept, [f"{model}{_CORRECT}" for model in models], "grade it", labels=True)
    costs = _table(path, kept, [f"{model}{_COST}" for model in models], "give a number", labels=False)
    order = np.argsort(costs.mean(axis=0), kind="stable")
    return ManyData(
        name=path.stem,
        models=tuple(models[place] for place in order),
        prompts=tuple(row["prompt"] for _, row in kept),
        right=right[:, order],
        dropped=len(rows) - len(kept),
        costs=costs[:, order],
    )


def _table(
    path: Path, kept: Sequence[tuple[int, JsonObject]], columns: Sequence[str], remedy: str, *, labels: bool
) -> Floats:
    """Columns of labels, true or false, or of costs; BadInput with this remedy for a value that is neither."""
    for place, row in kept:
        for column in columns:
            value, field = row[column], f"data {path.name}, {column}"
            if labels and (value is None or value not in (0, 1)):
                raise BadInput(field, value, f"is neither true nor false (row {place})", remedy)
            if not labels and (not isinstance(value, int | float) or not 0 <= value < float("inf")):
                raise BadInput(field, value, f"is no cost (row {place})", remedy)
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
