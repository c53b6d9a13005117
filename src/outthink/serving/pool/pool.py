"""The pool of backends: who serves which model, who is healthy, which one is asked now, and what its tokens cost.

Knows: health checks, why nobody can be asked, and that choosing must take microseconds. How a backend is seen is in
`backend`, who comes first in `choice`. Does not know requests or keys.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from urllib.parse import urlsplit

from outthink.core.errors import BadInput, OutthinkError
from outthink.economics.price import Pricing
from outthink.economics.tariff import Energy, Tariff
from outthink.http.events import BOM, LONG
from outthink.http.fields import decode
from outthink.http.transport import Timeouts, TransportFault, read_to_end
from outthink.http.usage import told_parameters
from outthink.serving.pool.backend import (
    ENDLESS,
    Backend,
    BackendLease,
    BackendSettings,
    PoolSettings,
    least_busy,
    preferred,
)
from outthink.serving.pool.rules import LENGTHS_BY_OWNER, FieldRules
from outthink.serving.pool.transport import AiohttpTransport

_log = logging.getLogger("outthink.serving")
_SOON = 1.0  # seconds until the next check while the verdict is about to change
_LONGEST_LIST = 4 << 20
_MOST_MODELS = 10_000
_LAG = 0.01  # seconds; a timer may be early, since the event loop notes the time once a round
_random = random.Random()  # of its own: nobody's seed is touched, and none makes replicas ask in step

OnHealthChange = Callable[[str, bool], None]
"""Called with a backend's URL and whether it is healthy, whenever that changes."""


class NoBackend(OutthinkError):
    """No backend for the model is healthy now; `retry_after` in seconds, None if nobody knows."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Resting(NoBackend):
    """The backends for the model are well, but have asked for a pause or have all the calls they take."""


class Full(Resting):
    """The backends for the model are well, but have all the calls they take: wait for `BackendPool.room`."""


class BackendPool:
    """Backends by the models they serve.

    Args:
        on_health_change: called with every change of a backend's health.
    """

    def __init__(
        self,
        wire: AiohttpTransport,
        backends: Sequence[BackendSettings],
        settings: PoolSettings | None = None,
        on_health_change: OnHealthChange | None = None,
    ) -> None:
        self._settings, self._on_health_change = settings or PoolSettings(), on_health_change
        self.backends = [Backend(given, self._settings) for given in backends]
        wire.known = tuple(credentials for backend in self.backends for credentials in backend.credentials)
        self._limited = any(backend.limit < ENDLESS for backend in self.backends)
        urls = [backend.url for backend in self.backends]
        if twice := next((url for at, url in enumerate(urls) if url in urls[:at]), None):
            raise BadInput("backends", twice, "is named twice", "name it once, with a larger weight")
        self._checks = [_HealthChecks(backend, wire, self._settings, self._changed) for backend in self.backends]
        self._tasks: list[asyncio.Task[None]] = []
        self._by_model: dict[str, list[Backend]] = {}
        self._stated = {
            backend.url: (given.price, given.energy, given.parameters)
            for backend, given in zip(self.backends, backends, strict=True)
        }
        self._fields = {backend.url: given.fields for backend, given in zip(self.backends, backends, strict=True)}
        self._rules: dict[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], FieldRules] = {}
        self._urls: dict[str, tuple[str, ...]] = {}
        self._names: tuple[str, ...] = ()
        self._healthy: dict[str, bool] = {}
        self.more: Callable[[], None] = lambda: None
        """Called where backends may take more calls than before, though none has ended."""

    async def start(self) -> None:
        """Ask every backend for its models and begin the health checks. Those that do not answer may come later."""
        self._sort()
        if self._limited:  # elsewhere nobody waits
            later = asyncio.get_running_loop().call_later
            for backend in self.backends:
                backend.rested = lambda seconds: later(seconds + _LAG, self._look_again)
        await asyncio.gather(*(checks.check() for checks in self._checks))
        self._tasks = [asyncio.create_task(checks.forever()) for checks in self._checks]

    async def stop(self) -> None:
        """End the health checks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def names(self) -> Sequence[str]:
        """Models in the order of the backends; those of a backend that is down stay, as far as they are known."""
        return self._names

    @property
    def ready(self) -> bool:
        """Whether any backend is well."""
        return any(backend.health == "up" for backend in self.backends)

    def health(self) -> Sequence[tuple[str, bool]]:
        """Base URLs and whether they are well."""
        return [(backend.url, backend.health == "up") for backend in self.backends]

    def urls(self, model: str) -> tuple[str, ...]:
        """Base URLs of a model's backends, well or not."""
        urls = self._urls.get(model)
        if urls is None and model in self._by_model:
            urls = self._urls[model] = tuple(backend.url for backend in self._by_model[model])
        return urls or ()

    def rules(self, model: str) -> FieldRules:
        """What limited keys may send to a model, whichever backend is asked."""
        urls, owned = self.urls(model), {each.url: each.length_name for each in self._by_model.get(model, ())}
        told = ((url, self._fields[url].length_name or owned.get(url)) for url in urls)
        known = urls, tuple((url, name) for url, name in told if name is not None)
        rules = self._rules.get(known)
        if rules is None:
            rules = FieldRules.strictest([self._fields[url] for url in urls])
            rules = self._rules[known] = rules.named(dict(known[1]), len(urls)) if known[1] else rules
        return rules

    def stated(self, url: str) -> tuple[Pricing | None, Energy | None, int | None]:
        """What a backend's operator has said that its tokens cost, and of its weights."""
        return self._stated.get(url, (None, None, None))

    def called(self, model: str) -> tuple[str, ...]:
        """What a model is called here: its own name, and the aliases of backends that serve nothing else."""
        return (model, *(each.alias for each in self._by_model.get(model, ()) if each.alias and len(each.models) == 1))

    def told(self, model: str, url: str) -> int | None:
        """Weights that a backend tells of a model, None where it does not."""
        return next((backend.told.get(model) for backend in self.backends if backend.url == url), None)

    def places(self, model: str) -> int | None:
        """Calls that the backends of a model take at once now, None for as many as come."""
        if not self._limited:
            return None
        now = monotonic()
        limits = [backend.limit for backend in self._by_model.get(model, ()) if backend.usable(now, model)]
        return None if ENDLESS in limits or not limits else sum(limits)

    def choose(
        self, model: str, prefix: int | None = None, avoid: Sequence[str] = (), *, brief: bool = False, key: str = ""
    ) -> BackendLease:
        """A place on the backend to use now; it is not taken before it is entered.

        Args:
            model: one of `names`.
            prefix: hash of the prompt's beginning; equal ones prefer one backend.
            avoid: base URLs that have just failed this request.
            brief: the call generates nothing, so it may go to a backend that has all the calls it takes.
            key: id of the client's API key.

        Raises NoBackend, Resting where a moment's patience is all it takes, Full where a place is.
        """
        serving = self._by_model.get(model)
        if serving is None:
            raise NoBackend(f"no backend serves {model}")
        now = monotonic()
        free = Backend.usable if brief else Backend.available
        candidates = [backend for backend in serving if free(backend, now, model, key) and backend.url not in avoid]
        if not candidates:
            raise self._none_available(model, serving, avoid, now, key)
        if prefix is None or not self._settings.affinity or len(candidates) == 1:
            return BackendLease(least_busy(candidates), model, key)
        chosen = preferred(candidates, prefix, self._settings.overload, self._settings.slack)
        return BackendLease(chosen, model, key)

    @staticmethod
    def _none_available(
        model: str, serving: Sequence[Backend], avoid: Sequence[str], now: float, key: str
    ) -> NoBackend:
        """Why there is none, and when there may be."""
        others = [backend for backend in serving if backend.url not in avoid and backend.health == "up"]
        if not others:
            return NoBackend(f"no backend for {model} is healthy now")
        closed = [backend for backend in others if backend.breaker.opened_until is None]
        if not closed:
            waits = [(backend.breaker.opened_until or now) - now for backend in others]
            return NoBackend(f"calls of every backend for {model} fail", retry_after=max(1.0, min(waits)))
        rests = [until - now for backend in closed if (until := backend.rests(model, key)) > now]
        if len(rests) == len(closed):
            return Resting(f"every backend for {model} has asked to be left alone for a while", retry_after=min(rests))
        return Full(f"every backend for {model} has all the calls that it takes", retry_after=1.0)

    async def room(self, model: str) -> None:
        """Wait until a place has been given back on a backend of a model, or one may have come to it."""
        serving = self._by_model.get(model, [])
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for backend in serving:
            backend.waiting.append(given)
        try:
            await given
        finally:
            for backend in serving:
                if given in backend.waiting:
                    backend.waiting.remove(given)

    def _changed(self, backend: Backend) -> None:
        self._sort()
        healthy = backend.health == "up"
        if healthy and self._healthy.get(backend.url) is not True:  # who comes back must not get every call at first
            peers = [peer.passed for peer in self.backends if peer is not backend and peer.health == "up"]
            backend.passed = max(backend.passed, min(peers, default=0.0))
        if self._healthy.get(backend.url) is not healthy:
            self._healthy[backend.url] = healthy
            if self._on_health_change is not None:
                self._on_health_change(backend.url, healthy)
        self._look_again()

    def _look_again(self) -> None:
        """Let everybody look again who waits for a place on any backend."""
        for backend in self.backends:
            backend.wake()
        self.more()

    def _sort(self) -> None:
        table: dict[str, list[Backend]] = {}
        for backend in self.backends:
            for name in backend.models:
                table.setdefault(name, []).append(backend)
        self._by_model, self._names = table, tuple(table)
        self._urls.clear()


class _CheckFailed(OutthinkError):
    """Says in a few words why a backend is not well."""


class _HealthChecks:
    """Watches one backend.

    Args:
        changed: called when its health or its models have changed.
    """

    def __init__(
        self, backend: Backend, wire: AiohttpTransport, settings: PoolSettings, changed: Callable[[Backend], None]
    ) -> None:
        self._backend, self._wire, self._settings, self._changed = backend, wire, settings, changed
        self._timeouts = Timeouts(settings.timeout, settings.timeout)
        self._wanted = asyncio.Event()
        self._checked = 0.0  # when the last check ended
        backend.wants_check = self._wanted.set
        self._row = 0  # checks in a row that speak against the present verdict
        self._been_up = False  # one that is still starting is used as soon as it answers

    async def forever(self) -> None:
        """Check after every pause, or soon where a key complains, until cancelled."""
        while True:
            await self._pause()
            try:
                await self.check()
            except Exception:  # noqa: BLE001 - the checks must go on
                _log.exception("a check of %s failed in an unforeseen way; it is repeated", self._backend.url)

    async def _pause(self) -> None:
        settings, due = self._settings, self._backend.breaker.opened_until
        # At random, or else the replicas of a proxy would ask every backend in the same moment.
        pause = (min(settings.interval, _SOON) if self._row else settings.interval) * _random.uniform(0.8, 1.2)
        if due is not None:
            pause = min(pause, max(0.0, due - monotonic()))
        try:
            async with asyncio.timeout(pause):
                await self._wanted.wait()
                await asyncio.sleep(self._checked + _SOON - monotonic())  # however many complain
        except TimeoutError:
            pass  # the pause is over
        self._wanted.clear()

    async def check(self) -> None:
        """Ask once, and draw the conclusion."""
        try:
            async with asyncio.timeout(self._settings.timeout):  # of the whole check, however slowly its bytes come
                names = await self._ask()
        except (TransportFault, TimeoutError, _CheckFailed) as error:
            why = error.detail or error.kind if isinstance(error, TransportFault) else str(error)
            why = " ".join(why.split())[:200] or f"nothing came within {self._settings.timeout:g} s"
            self._conclude(None, why)
        else:
            self._conclude(names, None)

    async def _ask(self) -> tuple[str, ...]:
        """Models that the backend serves. Raises TransportFault or _CheckFailed."""
        backend = self._backend
        status, content = await self._get(backend.address.url("/models"))
        if status in (404, 405, 501) and backend.named:  # lists no models, but may tell that it is well
            status, _ = await self._get(backend.address.url("/health", root=True))
            if status < 400:
                return backend.named
        if status >= 400:
            raise _CheckFailed(f"GET /models was answered with status {status}" + _hint(status))
        read = asyncio.to_thread(_models_in, content) if len(content) > LONG else None
        listed, backend.length_name = _models_in(content) if read is None else await read
        backend.told = {name: count for name, count in listed.items() if count}
        missing = [name for name in backend.named if name not in listed]
        if missing and listed:
            raise _CheckFailed(f"it does not serve {', '.join(missing)} but {', '.join(listed)}"[:200])
        if not listed and not backend.named:
            raise _CheckFailed("it lists no models")
        if len(listed) > _MOST_MODELS and not backend.named:
            raise _CheckFailed(f"it lists {len(listed)} models; name those that are to be served (models)")
        return backend.named or tuple(listed)

    async def _get(self, url: str) -> tuple[int, bytes]:
        """Status and body of a reply. Raises TransportFault, or _CheckFailed for one that is too long."""
        reply = await self._wire.open("GET", url, self._backend.headers, None, self._timeouts)
        content, broken = await read_to_end(reply, _LONGEST_LIST)
        if broken is not None and reply.status < 400:
            raise broken
        if len(content) > _LONGEST_LIST:
            raise _CheckFailed(f"{urlsplit(url).path} is longer than {_LONGEST_LIST >> 20} MiB")
        return reply.status, content

    def _conclude(self, names: tuple[str, ...] | None, trouble: str | None) -> None:
        backend, settings, before = self._backend, self._settings, self._backend.health
        healthy = names is not None
        self._checked = monotonic()
        opened = backend.breaker.opened_until is not None
        backend.breaker.checked(self._checked, well=healthy)
        if before == "unknown":
            backend.health = "up" if healthy else "down"
        elif healthy == (before == "up"):
            self._row = 0
        else:
            self._row += 1
            needed = settings.down_after if not healthy else settings.up_after if self._been_up else 1
            if self._row >= needed:
                backend.health = "up" if healthy else "down"
        if backend.health != before:
            self._row = 0
            if healthy:
                self._been_up = True
        backend.trouble = trouble
        moved = names is not None and names != tuple(backend.models)
        if names is not None:
            backend.models = names
        if moved or backend.health != before or (opened and backend.breaker.opened_until is None):
            self._changed(backend)


def _models_in(content: bytes) -> tuple[dict[str, int | None], str | None]:
    """A list's models with their weights, and what caps a chat there, each where that is told. Raises _CheckFailed."""
    try:
        rows = decode(content.removeprefix(BOM))["data"]
        listed = {str(row["id"]): told_parameters(row) for row in rows}
        owners = [str(row["owned_by"]) for row in rows if "owned_by" in row]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise _CheckFailed("GET /models was answered with something else than a list of models") from None
    return listed, next((LENGTHS_BY_OWNER[owner] for owner in owners if owner in LENGTHS_BY_OWNER), None)


def _hint(status: int) -> str:
    return "; give its key (key_env or --api-key-env)" if status in (401, 403) else ""


# What the models cost: as the backends' operator has stated it, else as published. Backends of one model may differ.


@dataclass(frozen=True, slots=True)
class DearestPrice:
    """Several prices as one that none of them exceeds; for calls whose backend is not chosen yet."""

    prices: tuple[Pricing, ...]

    def cost(self, prompt: int, cached: int, completion: int) -> float:
        """Dollars of a call at the dearest."""
        return max(price.cost(prompt, cached, completion) for price in self.prices)

    def bound(self, prompt: int, completion: int) -> float:
        """Dollars that no call can exceed; linear in the completion, as reservations need it."""
        fixed = [price.bound(prompt, 0) for price in self.prices]
        more = (price.bound(prompt, completion) - least for price, least in zip(self.prices, fixed, strict=True))
        return max(fixed) + max(more)


class Tariffs:
    """What the models cost; looked up once each."""

    def __init__(self, pool: BackendPool) -> None:
        self._pool = pool
        self._known: dict[tuple[str, str], Tariff] = {}
        self._bounds: dict[tuple[str, tuple[str, ...]], Tariff] = {}

    def of(self, model: str, url: str) -> Tariff:
        """The tariff of a model on a backend."""
        tariff = self._known.get((model, url))
        if tariff is None:
            price, energy, parameters = self._pool.stated(url)
            tariff = Tariff.of(model, url=url, price=price, energy=energy)
            told = self._pool.told(model, url)
            if parameters is not None:
                tariff = replace(tariff, parameters=parameters, source="given")
            elif tariff.parameters is None and told is not None:
                tariff = replace(tariff, parameters=told, source="server")
            self._known[model, url] = tariff
        return tariff

    def bound(self, model: str) -> Tariff:
        """The tariff that holds whichever backend is chosen; unknown where that of one of them is."""
        urls = self._pool.urls(model)
        if len(urls) == 1:
            return self.of(model, urls[0])
        tariff = self._bounds.get((model, urls))
        if tariff is None:
            tariff = self._bounds[model, urls] = self._dearest(model, [self.of(model, url) for url in urls])
        return tariff

    @staticmethod
    def _dearest(model: str, tariffs: Sequence[Tariff]) -> Tariff:
        if not tariffs:
            return Tariff.of(model)
        prices = [tariff.price for tariff in tariffs if tariff.price is not None]
        energies = [tariff.energy for tariff in tariffs if tariff.energy is not None]
        price: Pricing | None = None
        energy: Energy | None = None
        if len(prices) == len(tariffs):
            price = prices[0] if len(set(prices)) == 1 else DearestPrice(tuple(prices))
        if len(energies) == len(tariffs):
            energy = Energy(max(each.prompt for each in energies), max(each.completion for each in energies))
        return Tariff(model, price, energy, tariffs[0].parameters)
