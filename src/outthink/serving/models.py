"""`/v1/models`: what can be asked for. Knows the pool's names and the strategies; does not ask any backend."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from outthink.serving.failure import Failure
from outthink.strategies import strategies

_BEGAN = int(time.time())


def listing(names: Sequence[str]) -> dict[str, Any]:
    """Backend models first, then `outthink/auto` and the strategies."""
    rows = [{"id": name, "object": "model", "created": _BEGAN, "owned_by": "backend"} for name in names]
    own = ["outthink/auto", *(f"outthink/{name}" for name in strategies())]
    rows += [{"id": name, "object": "model", "created": _BEGAN, "owned_by": "outthink"} for name in own]
    return {"object": "list", "data": rows}


def one(name: str, names: Sequence[str]) -> dict[str, Any]:
    """A row of the list. Raises Failure for a name that is not in it."""
    for row in listing(names)["data"]:
        if row["id"] == name:
            return dict(row)
    raise unknown_model(name, names)


def unknown_model(name: object, names: Sequence[str], field: str = "model") -> Failure:
    """The error for a model that nobody serves."""
    shown = ", ".join(names[:8]) or "none"
    return Failure(
        404,
        f"{field}: {str(name)[:120]!r} is not served here; use one of {shown}, outthink/auto or outthink/STRATEGY[@n]",
        param=field,
        code="model_not_found",
    )
