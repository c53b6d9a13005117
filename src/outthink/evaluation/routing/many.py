"""Routing data of several models: prompts, and for each model whether it was right and what it cost.

Knows: columns `NAME_correct` and `NAME_cost`, which rows are dropped, what makes a file unusable. Does not
know routers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from outthink.core.errors import BadInput
from outthink.evaluation.routing.data import LABELS, Floats, columns_of, read_columns

CORRECT, COST = "_correct", "_cost"


@dataclass(frozen=True, slots=True)
class ManyData:
    """Rows that count, in the file's order; models from the cheapest to the dearest.

    Args:
        right, costs: (rows, models).
        dropped: rows left out because they are marked as contaminated.
    """

    name: str
    models: tuple[str, ...]
    prompts: tuple[str, ...]
    right: Floats
    costs: Floats
    dropped: int

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def labels(self) -> dict[str, Floats]:
        """Whether each model was right, by its column."""
        return {f"{model}{CORRECT}": self.right[:, place] for place, model in enumerate(self.models)}


def models_of(path: Path) -> tuple[str, ...]:
    """Models other than a weak and a strong one that a file has outcomes of, in its order; empty without any.

    Raises BadInput for a file that cannot be read.
    """
    names = [name for name in columns_of(path) if name.endswith(CORRECT) and name not in LABELS]
    return tuple(name.removesuffix(CORRECT) for name in names)


def read_many(path: Path) -> ManyData:
    """Read a Parquet file with `prompt`, and `NAME_correct` and `NAME_cost` of two or more models.

    Rows marked in the optional column `contaminated` are dropped. Raises BadInput for a missing file or
    column, an empty prompt, a label other than true and false, a cost that is no number, or no rows.
    """
    models = models_of(path)
    if len(models) < 2:
        raise BadInput("data", str(path), f"has outcomes of {len(models)} model", "give NAME_correct of two or more")
    needed = ("prompt", *(f"{model}{end}" for model in models for end in (CORRECT, COST)))
    rows = read_columns(path, needed, ("contaminated",))
    kept = [(place, row) for place, row in enumerate(rows, start=1) if not row.get("contaminated")]
    if not kept:
        raise BadInput("data", str(path), "has no rows that count", "give a file with rows to learn from")
    for place, row in kept:
        if not isinstance(row["prompt"], str) or not row["prompt"].strip():
            raise BadInput(f"data {path.name}", row["prompt"], f"is an empty prompt (row {place})", "remove the row")
    right = _table(path.name, kept, [f"{model}{CORRECT}" for model in models], labels=True)
    costs = _table(path.name, kept, [f"{model}{COST}" for model in models], labels=False)
    order = np.argsort(costs.mean(axis=0), kind="stable")
    return ManyData(
        path.stem,
        tuple(models[place] for place in order),
        tuple(row["prompt"] for _, row in kept),
        right[:, order],
        costs[:, order],
        len(rows) - len(kept),
    )


def _table(name: str, kept: Sequence[tuple[int, Mapping[str, Any]]], columns: Sequence[str], *, labels: bool) -> Floats:
    for place, row in kept:
        for column in columns:
            value = row[column]
            if labels and (value is None or value not in (0, 1)):
                raise BadInput(f"data {name}, {column}", value, f"is neither true nor false (row {place})", "grade it")
            if not labels and (not isinstance(value, int | float) or not 0 <= value < float("inf")):
                raise BadInput(f"data {name}, {column}", value, f"is no cost (row {place})", "give a number")
    return np.array([[float(row[column]) for column in columns] for _, row in kept])
