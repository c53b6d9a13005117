"""`outthink serve --check`: look at everything that the configuration names, and say what is wrong.

Knows: the proxy's parts from outside, and what each of them needs. Listens nowhere and leaves nothing running.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from outthink.controller.decide import read_router
from outthink.controller.plugins import load_plugins
from outthink.controller.policy.artefact import Policy
from outthink.controller.router.chooser import pairs_of
from outthink.core.errors import OutthinkError, Unsupported
from outthink.core.plugins import install_hint, load, missing
from outthink.economics.capacity.server import CapacitySettings
from outthink.engines.embedded import find_model, read_gguf
from outthink.http.errors import masked_url
from outthink.serving.chat.backends import Policies
from outthink.serving.config.config import Config
from outthink.serving.config.sections import BackendConfig
from outthink.serving.guard import Guard
from outthink.serving.ledger import LedgerAddress, open_ledger
from outthink.serving.ledger.sqlite import SqliteDatabase
from outthink.serving.pool import BackendPool
from outthink.serving.pool.transport import AiohttpTransport
from outthink.serving.protocols import LedgerDown
from outthink.serving.verifier import ServedVerifier


@dataclass(frozen=True, slots=True)
class ConfigFinding:
    """What was looked at and how it is; `ok` is False where the proxy would not work."""

    what: str
    ok: bool
    message: str

    def __str__(self) -> str:
        return f"{self.what}: {self.message}"


async def check(config: Config) -> AsyncIterator[ConfigFinding]:
    """Findings, one after the other."""
    async for finding in _backends(config):
        yield finding
    yield _found("policy", lambda: _policy(config.policy.file))
    if config.policy.shadow is not None:
        yield _found("shadow policy", lambda: _policy(config.policy.shadow))
    if config.router.file is not None:
        yield _found("router", lambda: _router(config))
    if config.verifier.source is not None:
        yield await _verifier(config)
    if config.capacity != CapacitySettings():
        yield _found("capacity", lambda: f"planned with {config.capacity_server()}")
    yield await _ledger(config)
    for finding in (*_watching(config), *_plugins()):
        yield finding


def _found(what: str, look: Callable[[], str]) -> ConfigFinding:
    """What a look at something says of it, or why it cannot be used."""
    try:
        return ConfigFinding(what, True, look())
    except OutthinkError as error:
        return ConfigFinding(what, False, str(error))


async def _backends(config: Config) -> AsyncIterator[ConfigFinding]:
    settings = []
    for configured in config.backends:
        what = f"backend {masked_url(configured.url)}"
        if configured.local:
            yield _found(what, partial(_local, configured))
            continue
        try:
            settings.append(configured.settings(configured.secret(config.variables)))
        except OutthinkError as error:
            yield ConfigFinding(what, False, str(error))
    wire = AiohttpTransport()
    pool = BackendPool(wire, settings, config.pool)
    try:
        await pool.start()
        for backend in pool.backends:
            healthy = backend.health == "up"
            message = f"serves {', '.join(backend.models)}" if healthy else str(backend.trouble)
            yield ConfigFinding(f"backend {backend.url}", healthy, message)
    finally:
        await pool.stop()
        await wire.aclose()


def _local(backend: BackendConfig) -> str:
    """A model that would run in a child process of ours, or an engine that a plugin would make; neither is started."""
    if backend.plugin is not None:
        load("engines", backend.plugin)
        return "a plugin's engine would run here"
    if missing("local"):
        raise Unsupported(f"needs llama.cpp; {install_hint('local')}")
    if backend.url == "embedded":
        return "would run here" if find_model() else "is fetched by the first start"
    read_gguf(backend.url)
    return "would run here"


def _policy(file: Path | None) -> str:
    if file is None:
        return "none; outthink/auto goes by rules that need no calibration"
    return f"{Policy.load(file).id} ({file})"


def _router(config: Config) -> str:
    files = [file for file in (config.policy.file, config.policy.shadow) if file is not None]
    names = pairs_of("router.map", config.router.map)
    policies = [Policy.load(file) for file in files]
    chooser = read_router(config.router.file, names, config.router.operating_point, policies=policies)
    assert chooser is not None
    return f"{chooser.predictor.id[:12]} among {', '.join(chooser.names.values())}"


async def _verifier(config: Config) -> ConfigFinding:
    """It is opened as a start would, and closed again."""
    source = str(config.verifier.source)
    what = f"verifier {source}"
    try:
        policies = Policies(config.policy.file, config.policy.shadow)
        served = ServedVerifier(source, policies.check_verifier)
        try:
            await served.start()
            problem = served.problem
        finally:
            await served.stop()
    except OutthinkError as error:
        return ConfigFinding(what, False, str(error).removeprefix("verifier: "))
    return ConfigFinding(what, problem is None, problem or f"{served.verifier.id} judges")


def _watching(config: Config) -> Iterator[ConfigFinding]:
    """The log's file and the traces, where they are wanted."""
    if (file := config.logs.file) is not None:
        writable = os.access(file if file.exists() else file.parent, os.W_OK)
        yield ConfigFinding(
            f"log {file}", writable, "can be written" if writable else "cannot be written; give another file"
        )
    if (endpoint := config.telemetry.endpoint) is not None:
        installed = not missing("telemetry")
        message = "would be told" if installed else f"needs OpenTelemetry; {install_hint('telemetry')}"
        yield ConfigFinding(f"telemetry {masked_url(endpoint)}", installed, message)


def _plugins() -> Iterator[ConfigFinding]:
    """What is installed beside; a plugin that is refused keeps nothing else from working."""
    for plugin, problem in load_plugins():
        message = f"is refused, and the rest works without it: {problem}" if problem else f"of {plugin.distribution}"
        yield ConfigFinding(f"{plugin.field} {plugin.name}", True, message)


async def _ledger(config: Config) -> ConfigFinding:
    """What a start would make of it. Keys are looked at as well: they decide who may reach the proxy."""
    try:
        url = config.ledger_url
        marker = config.marker()
        guard = Guard(config.listen.keys, marker)
        guard.check_ledger(url)
        address = LedgerAddress.parse(url)
        absent = marker.absent(config.ledger.named, new=config.new_ledger)
        what, guarded = f"ledger {masked_url(url)}", False
        if made := not absent and _is_new(address):
            _try_folder(Path(address.url))
        else:
            ledger = open_ledger(url, config.ledger.rules(config.content), absent=absent)
            await ledger.open()
            guarded = ledger.guarded
            await ledger.close()
        guard.check_host(config.listen.host, guarded)
    except OutthinkError as error:
        return ConfigFinding("ledger", False, str(error).removeprefix("ledger: "))
    held = "has API keys" if guarded else "has no API keys"
    if guarded != guard.needs_key(guarded):
        asked = "but nobody needs one" if guarded else "but every request needs one: outthink keys add NAME --admin"
    else:
        asked = "and every request needs one" if guarded else "and nobody needs one"
    return ConfigFinding(what, True, f"{'is made by the first start; ' if made else ''}{held}, {asked}")


def _is_new(address: LedgerAddress) -> bool:
    return address.kind == "sqlite" and not Path(address.url).exists()


def _try_folder(file: Path) -> None:
    """Make a file of the ledger's kind where it would lie, and take it away again. Raises LedgerDown."""
    folder = next(folder for folder in file.parents if folder.exists())
    try:
        with TemporaryDirectory(prefix=".outthink-check-", dir=folder) as within:
            SqliteDatabase(Path(within) / file.name).close()
    except OSError as error:
        why = f"{folder} cannot be written ({error.strerror})"
        raise LedgerDown(f"sqlite:///{file} cannot be made: {why}; give another file") from None
