"""A pool of backends that never changes: models are asked for once, the least busy backend is used.

Knows no health checks and no circuit breaking. For trials and tests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from outthink.core.errors import EngineError
from outthink.engines.openai.address import Address
from outthink.engines.openai.transport import Timeouts, TransportFault
from outthink.serving.protocols import NoBackend, Wire


@dataclass(slots=True)
class Backend:
    """One server."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    active: int = 0


class FixedLease:
    """A place on a backend."""

    __slots__ = ("_backend", "headers", "url")

    def __init__(self, backend: Backend) -> None:
        self._backend, self.url, self.headers = backend, backend.url, backend.headers

    def report(self, *, ok: bool, status: int | None = None, seconds: float | None = None) -> None:
        """Nobody listens."""

    def __enter__(self) -> Self:
        self._backend.active += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._backend.active -= 1


class FixedPool:
    """Backends by URL, each with the bearer token that it wants."""

    def __init__(self, wire: Wire, backends: Mapping[str, str | None]) -> None:
        self._wire = wire
        self._backends = [
            Backend(Address.parse(url).base, {"authorization": f"Bearer {key}"} if key else {})
            for url, key in backends.items()
        ]
        self._names: list[str] = []

    async def start(self) -> None:
        """Ask every backend for its models. Raises EngineError for one that does not answer."""
        for backend in self._backends:
            try:
                reply = await self._wire.fetch("GET", f"{backend.url}/models", backend.headers, None, Timeouts(5, 5))
                backend.models = [row["id"] for row in json.loads(reply.content)["data"]]
            except (TransportFault, ValueError, LookupError, TypeError) as error:
                raise EngineError(f"{backend.url} does not list its models ({error}); is it running?") from error
            self._names += [name for name in backend.models if name not in self._names]

    async def stop(self) -> None:
        """Nothing runs."""

    def names(self) -> Sequence[str]:
        """Models in the order of the backends."""
        return self._names

    def choose(self, model: str, prefix: int | None = None, avoid: Sequence[str] = ()) -> FixedLease:
        """The least busy backend that serves the model."""
        able = [backend for backend in self._backends if model in backend.models and backend.url not in avoid]
        if not able:
            raise NoBackend(f"no backend serves {model}")
        return FixedLease(min(able, key=lambda backend: backend.active))

    @property
    def ready(self) -> bool:
        """Whether there are models."""
        return bool(self._names)
