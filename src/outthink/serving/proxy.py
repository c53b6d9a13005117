"""A whole proxy from what its operator wrote: backends, ledger, policy and address.

Knows how the parts are put together, started and stopped. Every part is a file of its own.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from outthink.controller.policy.artefact import Policy
from outthink.core.errors import BadInput
from outthink.engines.openai.address import Address
from outthink.serving.app import App
from outthink.serving.embedded import Embedded
from outthink.serving.endpoints import Endpoints
from outthink.serving.fixed import FixedPool
from outthink.serving.limits import Limits
from outthink.serving.memory import MemoryLedger
from outthink.serving.origin import is_loopback
from outthink.serving.transport import AiohttpWire


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run.

    Args:
        models: URLs of backends, paths of GGUF files, or `embedded`.
        policy: file of `outthink calibrate`, for `outthink/auto`.
        key: bearer token for the backends given by URL.
        port: 0 for any that is free.
    """

    models: tuple[str, ...]
    policy: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.models:
            raise BadInput("model", "", "is missing", "give --model URL[,URL...] or --model embedded")
        if not 0 <= self.port <= 65535:
            raise BadInput("port", self.port, "is no port", "give 0 to 65535")
        for model in self.models:
            if not local(model):
                Address.parse(model)


def local(model: str) -> bool:
    """Whether a model runs in a child process of ours."""
    return model == "embedded" or model.endswith(".gguf")


class Proxy:
    """A running proxy; `stop` ends everything it has started."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.policy = None if plan.policy is None else Policy.load(plan.policy)
        self._children: list[Embedded] = []
        self._app: App | None = None
        self.port = plan.port

    async def start(self) -> list[str]:
        """Start; returns the models that are served. Raises BadInput or EngineError."""
        plan, backends = self.plan, dict[str, str | None]()
        calls: dict[str, int] = {}
        for model in plan.models:
            if local(model):
                child = Embedded(None if model == "embedded" else Path(model))
                self._children.append(child)
                url, key = await child.start()
                backends[url] = key
                calls[child.model] = child.slots
            else:
                backends[model] = plan.key
        ledger = MemoryLedger()
        if not is_loopback(plan.host) and not ledger.guarded:
            remedy = "add a key first (outthink keys add), or listen on 127.0.0.1"
            raise BadInput("host", plan.host, "is reachable from elsewhere, and there are no API keys", remedy)
        wire = AiohttpWire()
        pool = FixedPool(wire, backends)
        self._app = app = App(pool, wire, ledger, plan.limits)
        Endpoints(app, self.policy, calls)
        try:
            self.port = await app.start(plan.host, plan.port)
        except OSError as error:
            raise BadInput("port", plan.port, f"cannot be used ({error.strerror})", "give another one") from None
        return list(pool.names())

    async def stop(self) -> None:
        """Let running requests end, then end everything."""
        if self._app is not None:
            await self._app.stop()
        for child in self._children:
            await child.aclose()


async def serve(plan: Plan, ready: Callable[[Proxy, list[str]], None]) -> None:
    """Run until SIGINT or SIGTERM; `ready` hears the models once requests are answered."""
    proxy = Proxy(plan)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        ready(proxy, await proxy.start())
        await ended.wait()
    finally:
        await proxy.stop()
