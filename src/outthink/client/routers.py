"""Routers that a client uses: read once, and told what the models at hand are called.

Knows: which names a model has before and after its server was asked. Does not know how a router chooses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from contextlib import suppress
from pathlib import Path

from outthink.client.options import Chosen, Options
from outthink.configuration.models import ModelChoice
from outthink.controller.decide import read_router
from outthink.controller.policy.artefact import Policy
from outthink.controller.router.chooser import ModelChooser
from outthink.core.request import Request
from outthink.engines.protocol import Call
from outthink.session.open import Source


class Routers:
    """Those of one client, by what its options say of them."""

    def __init__(self) -> None:
        self._known: dict[tuple[Hashable, ...], ModelChooser] = {}

    def chooser(self, options: Options, policies: Sequence[Policy] = ()) -> ModelChooser | None:
        """The router of these options, None without one; `policies` decide the rest. Raises BadInput."""
        router, names, point = options.get("router"), options.get("router_map"), options.get("operating_point")
        given = str(router) if isinstance(router, str | Path) else router and router.id
        key = given, tuple(sorted((names or {}).items())), point, tuple(policy.id for policy in policies)
        if (known := self._known.get(key)) is None:
            known = read_router(router, names, point, policies=policies)
            if known is not None and given != "unsaved":
                self._known[key] = known
        return known


async def named(
    sources: Sequence[Source], models: Sequence[Chosen], request: Request, began: float, seconds: float | None
) -> list[tuple[str, ...]]:
    """What each model at hand is called; an engine whose server has not told its model's name is asked for it.

    Where the deadline comes first, what is not told stays unknown.
    """
    untold = [source.engine for source in sources if source.engine.model == source.engine.url]
    call = Call(request.messages, request.sampling)
    left = None if seconds is None else began + seconds - time.monotonic()
    with suppress(TimeoutError):
        async with asyncio.timeout(left):
            await asyncio.gather(*(engine.prepare(call) for engine in untold))
    return [(source.engine.model, *_names(model)) for source, model in zip(sources, models, strict=True)]


def _names(model: Chosen) -> list[str]:
    """What a model that was named is called besides: its alias, its place, and its file."""
    if not isinstance(model, ModelChoice):
        return []
    file = Path(model.where).stem if model.where.endswith(".gguf") else None
    return [name for name in (model.alias, model.where, model.name, file) if name]
