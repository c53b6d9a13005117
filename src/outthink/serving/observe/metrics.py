"""Prometheus metrics at /metrics: what was asked, what it cost, how long it took, and how the parts are.

Knows: finished requests, and what is read off the parts when somebody looks. Labels come from us and from the backends,
never from a client's text, so there are only so many series. What is not known of a request is counted as unknown and
adds nothing to a sum.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from outthink.core.request import CURRENCIES
from outthink.serving.accounting import PASS
from outthink.serving.app import METRICS, App
from outthink.serving.chat.backends import Policies
from outthink.serving.failure import check_admin
from outthink.serving.protocols import AdmittedRequest, Key, RequestRecord
from outthink.serving.watch import Watcher
from outthink.strategies import strategies

if TYPE_CHECKING:
    from prometheus_client.core import Metric

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
SAMPLES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_TOKENS = ("prompt", "completion", "cancelled")
_COSTS = {"usd": "dollars", "joules": "joules", "flops": "floating-point operations"}
_AMOUNTS = (*_TOKENS, *_COSTS)
_amounts = attrgetter("prompt_tokens", "completion_tokens", "cancelled_tokens", *_COSTS)
_STOPPED = frozenset({"finished", "consensus", "first-m", "gave-up", "interrupted", "error"})
_OTHER = "other"

Counts = tuple[str, str, tuple[str, ...], Iterable[tuple[tuple[str, ...], float]]]
"""A counter's name and meaning, its labels, and what was counted by their values."""


class Labels(NamedTuple):
    """By what requests are told apart."""

    model: str
    strategy: str


class Histogram:
    """Counts by bucket, the last one without end, and the sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """One observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds with the observations up to them."""
        bounds = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return [(bound, float(count)) for bound, count in zip(bounds, accumulate(self.counts), strict=True)]


class Series:
    """Sums over the requests that share everything by which they are told apart, and how often each amount is unknown.

    Amounts are in the order of `_TOKENS` and `_COSTS`.
    """

    __slots__ = ("requests", "samples", "seconds", "sums", "unknown")

    def __init__(self, seconds: Histogram, samples: Histogram) -> None:
        self.seconds, self.samples, self.requests = seconds, samples, 0
        self.sums: list[float] = [0] * len(_AMOUNTS)
        self.unknown = [0] * len(_AMOUNTS)


class Metrics(Watcher):
    """A watcher that counts, and a Prometheus collector."""

    def __init__(self, app: App, policies: Policies) -> None:
        self._app, self._policies = app, policies
        self._series: dict[tuple[str, str, str, int, str], Series] = {}
        """By model, strategy, endpoint, status and why they ended."""
        self._seconds: defaultdict[Labels, Histogram] = defaultdict(lambda: Histogram(SECONDS))
        self._first: defaultdict[Labels, Histogram] = defaultdict(lambda: Histogram(SECONDS))
        self._samples: defaultdict[Labels, Histogram] = defaultdict(lambda: Histogram(SAMPLES))
        self._running = 0

    def began(self, request: AdmittedRequest) -> None:
        """One more is being answered."""
        self._running += 1

    def finished(self, record: RequestRecord) -> None:
        """Count a request."""
        self._running = max(0, self._running - 1)  # requests that were refused end without having begun
        model = record.backend_model
        model = model if model in self._app.pool.names() else _OTHER
        strategy = strategy_of(record.strategy)
        place = model, strategy, record.endpoint, record.status, stopped_of(record.stopped)
        if (series := self._series.get(place)) is None:
            labels = Labels(model, strategy)
            series = self._series[place] = Series(self._seconds[labels], self._samples[labels])
        series.requests += 1
        series.seconds.add(record.seconds)
        series.samples.add(record.samples)
        if record.first_seconds is not None:
            self._first[Labels(model, strategy)].add(record.first_seconds)
        sums, unknown = series.sums, series.unknown
        for at, amount in enumerate(_amounts(record)):
            if amount is None:
                unknown[at] += 1
            else:
                sums[at] += amount

    def collect(self) -> Iterator[Metric]:
        """Everything, as Prometheus' client wants it."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, about, names, counted in self._counters():
            counter = CounterMetricFamily(f"outthink_{name}", about, labels=names)
            for values, count in counted:
                counter.add_metric(values, count)
            yield counter
        spreads = [
            ("request_seconds", "Seconds to the end of a reply.", self._seconds),
            ("first_token_seconds", "Seconds to the first token of a stream.", self._first),
            ("request_samples", "Samples drawn for a request.", self._samples),
        ]
        for name, about, spread in spreads:
            histogram = HistogramMetricFamily(f"outthink_{name}", about, labels=Labels._fields)
            for labels, observed in spread.items():
                histogram.add_metric(labels, observed.buckets(), observed.sum)
            yield histogram
        for name, about, value in self._now():
            yield GaugeMetricFamily(f"outthink_{name}", about, value=value)
        health = GaugeMetricFamily("outthink_backend_up", "Whether a backend is healthy.", labels=("url",))
        for url, healthy in self._app.pool.health():
            health.add_metric((url,), healthy)
        yield health

    def _counters(self) -> Iterator[Counts]:
        """What was counted since the start."""
        pair = Labels._fields
        requests, stopped = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
        sums, unknown = defaultdict[tuple[str, str, str], float](float), Counter[tuple[str, ...]]()
        for (model, strategy, endpoint, status, reason), series in self._series.items():
            requests[endpoint, model, strategy, str(status)] += series.requests
            stopped[strategy, reason] += series.requests
            for amount, total, missing in zip(_AMOUNTS, series.sums, series.unknown, strict=True):
                if total:
                    sums[model, strategy, amount] += total
                if missing:
                    unknown[model, strategy, f"{amount} tokens" if amount in _TOKENS else amount] += missing
        yield "requests", "Requests answered.", ("endpoint", *pair, "status"), requests.items()
        yield "stopped", "Why requests ended.", ("strategy", "reason"), stopped.items()
        about = "Tokens read, written, and written for samples that were cancelled."
        yield "tokens", about, (*pair, "kind"), [each for each in sums.items() if each[0][2] in _TOKENS]
        about = "Requests of which an amount is not known; sums lack it."
        yield "unknown", about, (*pair, "amount"), unknown.items()
        for currency, unit in _COSTS.items():
            costs = {place[:2]: cost for place, cost in sums.items() if place[2] == currency}
            yield currency, f"Spent in {unit}, where it is known.", pair, costs.items()
        about = "Error objects that clients have got, those of requests that were refused at the door included."
        failed = {(str(status), code): count for (status, code), count in self._app.failed.items()}
        yield "errors", about, ("status", "code"), failed.items()
        # What a policy that is tried in the shadow would have done.
        shadow = self._policies.compared
        choices = {("yes",): shadow.agreed, ("no",): shadow.differed, ("refused",): shadow.refused}
        yield "shadow_choices", "Choices of the shadow policy.", ("same",), choices.items()
        about = "Tokens predicted for the requests that both policies have decided."
        tokens = {("active",): shadow.active_tokens, ("shadow",): shadow.shadow_tokens}
        yield "shadow_predicted_tokens", about, ("policy",), tokens.items()

    def _now(self) -> Iterator[tuple[str, str, float]]:
        app = self._app
        yield "running_requests", "Requests that are being answered.", self._running
        yield "admitted_requests", "Requests that have a place.", app.admission.active
        yield "waiting_requests", "Requests that stand in line for a place.", app.admission.waiting
        ready = app.pool.ready and not app.stopping
        yield "ready", "1 where some backend is healthy and the proxy is not stopping.", ready
        yield "policy_ok", "0 while a changed policy file cannot be used.", self._policies.problem is None
        yield "ledger_ok", "0 while records cannot reach the database.", app.ledger.problem is None

    async def handle(self, request: web.BaseRequest, key: Key) -> web.StreamResponse:
        """GET /metrics, for keys made for it and for admins."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        if not key.metrics:
            check_admin(key)
        registry = CollectorRegistry()
        registry.register(self)
        return web.Response(body=generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})


def attach(app: App, policies: Policies) -> Metrics:
    """Count from now on, and answer /metrics."""
    metrics = Metrics(app, policies)
    app.watchers.add(metrics)
    app.route("GET", METRICS, metrics.handle)
    return metrics


@lru_cache(4096)
def strategy_of(name: str) -> str:
    """The strategy's bare name; one that is not ours is `other`."""
    bare = name.partition(":")[0].partition("@")[0].partition(" ")[0]
    return bare if bare in (PASS, "auto") or bare in strategies() else _OTHER


@lru_cache(256)
def stopped_of(reason: str) -> str:
    """Why it ended, in few words: budgets by their currency, everything rare as `other`."""
    return reason if reason in _STOPPED or reason.partition("budget:")[2] in CURRENCIES else _OTHER
