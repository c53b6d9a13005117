"""A whole proxy from what its operator wrote: backends, ledger, policy and address.

Knows: how the parts are put together, started and stopped, and how a model of our own becomes a backend. Every part is
a file of its own; what a request meets is in `app`.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import importlib.util
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from outthink.controller.decide import read_router
from outthink.controller.plugins import load_plugins
from outthink.controller.router.chooser import pairs_of
from outthink.core.errors import BadInput, EngineError
from outthink.core.request import Message, Sampling
from outthink.economics.tariff import Tariff
from outthink.engines.embedded import EmbeddedEngine
from outthink.engines.protocol import Call
from outthink.serving import dashboard
from outthink.serving.app import App
from outthink.serving.chat.backends import Policies
from outthink.serving.chat.engine_server import EngineServer
from outthink.serving.config import Config
from outthink.serving.config.sections import BackendConfig
from outthink.serving.endpoints import Endpoints
from outthink.serving.guard import Guard
from outthink.serving.inbound.connections import FILES
from outthink.serving.ledger import open_ledger
from outthink.serving.observe import logs, metrics, telemetry
from outthink.serving.pool import BackendPool, BackendSettings
from outthink.serving.pool.transport import AiohttpTransport
from outthink.serving.verifier import ServedVerifier
from outthink.serving.watch import Watchers

_SLOTS = 8
_CONTEXT = 4096
_M_MMAP_THRESHOLD = -3
_LARGE = 1 << 20
"""Bytes of a block that is a mapping of its own."""


class Proxy:
    """A running proxy; `stop` ends everything it has started. Secrets and policies are read at once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        policy = config.policy
        self.policies = Policies(policy.file, policy.shadow, policy.share)
        decided = [each for each in (self.policies.active, self.policies.candidate) if each is not None]
        names = pairs_of("router.map", config.router.map)
        self.router = read_router(config.router.file, names, config.router.operating_point, policies=decided)
        self._keys = [backend.secret(config.variables) for backend in config.backends]
        self._server = config.capacity_server()
        url = config.ledger_url
        marker = config.marker()
        self.guard = Guard(config.listen.keys, marker)
        self.guard.check_ledger(url)
        absent = marker.absent(config.ledger.named, new=config.new_ledger)
        self._ledger = open_ledger(url, config.ledger.rules(config.content), absent=absent)
        source = config.verifier.source
        self.verifier = None if source is None else ServedVerifier(source, self.policies.check_verifier)
        self._children: list[EmbeddedBackend | EngineServer] = []
        self._app: App | None = None
        self._opened = False
        self._closing: list[Callable[[], None]] = []
        self.refused: list[str] = []
        """Plugins that cannot be used, a line each."""
        self.pool: BackendPool
        self.port = config.listen.port

    async def start(self) -> None:
        """Start; backends that do not answer yet may come later. Raises BadInput, EngineError or LedgerDown."""
        config = self.config
        _more_files()
        host, port = config.listen.host, config.listen.port
        # Before a model is fetched or started, which may take minutes; and keys decide where we may listen.
        await self._ledger.open()
        self._opened = True
        self.guard.check_host(host, self._ledger.guarded)
        self.guard.note(self._ledger.guarded)
        self.refused = [problem for _, problem in load_plugins() if problem]  # once, never for a request
        # The list of prices takes a second to load, and no request shall wait for it.
        prices = asyncio.create_task(asyncio.to_thread(Tariff.of, "any", url="http://any/v1"))
        backends = [await self._backend(*pair) for pair in zip(config.backends, self._keys, strict=True)]
        wire, watchers = AiohttpTransport(), Watchers()
        self.pool = BackendPool(wire, backends, config.pool, watchers.backend)
        self._app = app = App(self.pool, wire, self._ledger, config.limits, config.admission, watchers, self.guard)
        Endpoints(app, self.policies, self.router, self.verifier)
        if self.verifier is not None:
            await self.verifier.start()
        await self.policies.start()
        headroom = None if self._server is None else dashboard.HourlyHeadroom(app, self._server)
        dashboard.attach(app, lambda: self.policies.active, headroom)
        metrics.attach(app, self.policies, self.verifier, headroom)
        if (endpoint := config.telemetry.endpoint) is not None:
            provider = telemetry.provider_for(endpoint, config.telemetry.service)
            self._closing.append(watchers.add(telemetry.Telemetry(provider)).close)
        await prices
        try:
            self.port = await app.start(host, port)
        except OSError as error:
            what = error.strerror or str(error)
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise BadInput("host", host, f"is no address of this machine ({what})", "give one") from None
            raise BadInput("port", port, f"cannot be used on {host} ({what})", "give another one") from None
        if self.router is not None and all(backend.trouble is None for backend in self.pool.backends):
            self.router.check(
                [self.pool.called(name) for name in self.pool.names()]
            )  # of one that is not there yet nothing is known
        self._closing.append(watchers.add(logs.Logs(config.logs.level, config.logs.file)).close)  # below the first line

    @property
    def unjudged(self) -> list[str]:
        """What goes without a verifier until there is one, a line each."""
        if self.verifier is not None:
            problem = self.verifier.problem
            return [] if problem is None else [f"the verifier {self.verifier.source} is not there ({problem})"]
        carried = self.policies.verifiers.items()
        what = "the policy {} carries the verifier {}, and none is served: its arm without one is used"
        return [what.format(policy[:12], ", ".join(ids)) for policy, ids in carried]

    @property
    def access(self) -> str:
        """Who comes in, in words."""
        guarded = self._ledger.guarded
        if not self.guard.needs_key(guarded):
            return "no API key is needed"
        return "an API key is needed" + ("" if guarded else ", and there is none: outthink keys add NAME --admin")

    async def _backend(self, backend: BackendConfig, key: str | None) -> BackendSettings:
        """As the pool takes it; a model of our own is started first."""
        if not backend.local:
            return backend.settings(key)
        child: EmbeddedBackend | EngineServer
        if backend.plugin is None:
            child = EmbeddedBackend(backend.url, slots=backend.limit, context=backend.context)
        else:
            child = EngineServer(backend.url, self.config.limits, slots=backend.limit)
        self._children.append(child)
        url, key = await child.start()
        return replace(backend.settings(key), url=url, limit=child.slots)

    async def stop(self) -> None:
        """Let running requests end, then end everything. Raises LedgerDown where records are lost."""
        await self.policies.stop()
        try:
            if self._app is not None:
                await self._app.stop()
            elif self._opened:
                await self._ledger.close()
        finally:
            # After the app, whose last requests they still answer.
            if self.verifier is not None:
                await self.verifier.stop()
            for child in self._children:
                await child.aclose()
            for close in self._closing:
                await asyncio.to_thread(close)  # they export what waits and join their threads, which blocks

    def reload(self) -> None:
        """Read the policies again, changed or not."""
        if self._app is not None:
            self._app.later(self.policies.reload(all=True))

    def stop_waiting(self) -> None:
        """Wait neither for load balancers nor for running requests any longer."""
        if self._app is not None:
            self._app.hurry()


class EmbeddedBackend:
    """A llama.cpp server in a child process, which goes through the same pool and protocol as any other backend.

    Args:
        model: path of a GGUF file, `embedded` for the published small one.
        slots: calls at once, None for 8.
        context: tokens of a call, for its prompt and its completion; 0 for 4,096.
    """

    def __init__(self, model: str, *, slots: int | None = None, context: int = 0) -> None:
        self.slots = slots or _SLOTS
        path = None if model == "embedded" else Path(model)
        self._engine = EmbeddedEngine(path, concurrency=self.slots, context=context or _CONTEXT)

    async def start(self) -> tuple[str, str]:
        """Start the server; returns its URL and key. BadInput without the extra, EngineError without the model."""
        await self._engine.prepare(Call((Message("user", "Hello"),), Sampling(max_tokens=16)))
        address = self._engine.address
        if address is None:
            raise EngineError("the embedded server ended as soon as it had started; see its log")
        return address

    async def aclose(self) -> None:
        """End the child process."""
        await self._engine.aclose()


def _more_files() -> None:
    """Allow as many connections as the system lets us: two for each request soon exceed the usual 1,024 files."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or soft < hard):
        limit = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))


def _settle_memory(loop: asyncio.AbstractEventLoop) -> None:
    """Leave what is loaded by now to itself, and look at the rest seldom: a tenth of the time went there.

    Nothing of ours waits for a collection, nor do uvloop's connections; asyncio's do, and 20,000 at once hold it
    up for 11 to 25 ms, be they young or such as have outlived ten collections of those. Where nothing waits, looking
    more often would cost a twentieth of the time at 100 requests at once.

    Long bodies go back to the system when they are freed. By itself glibc soon keeps such blocks, in pieces.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000 if isinstance(loop, asyncio.BaseEventLoop) else 20_000, 10, 2_000)
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop to serve in: uvloop's where it is installed, a third more requests a second."""
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def serve(
    config: Config, ready: Callable[[Proxy], None], within: AbstractContextManager[None] | None = None
) -> None:
    """Run until SIGINT or SIGTERM, a second one ends it at once; `ready` is called when requests are answered.

    Args:
        within: what holds while they are, for those who time it.
    """
    proxy = Proxy(config)
    ended = asyncio.Event()

    def end() -> None:
        if ended.is_set():
            proxy.stop_waiting()
        ended.set()

    try:
        await proxy.start()  # until it has, a signal ends us as it ends any program
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
        if sys.platform != "win32":
            loop.add_signal_handler(signal.SIGHUP, proxy.reload)
        _settle_memory(loop)
        ready(proxy)
        with within or nullcontext():
            await ended.wait()
    finally:
        await proxy.stop()
