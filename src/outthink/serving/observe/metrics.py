"""Prometheus metrics at /metrics: what was asked, what it cost, how long it took, and how the parts are.

Knows: finished requests, and what is read off the parts when somebody looks. Prometheus' client counts and writes.
Labels come from us and from the backends, never from a client's text, so there are only so many series. What is not
known of a request is counted as unknown and adds nothing to a sum.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from operator import attrgetter

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from outthink.core.request import CURRENCIES
from outthink.serving.accounting import PASS
from outthink.serving.app import METRICS, App
from outthink.serving.chat.backends import Policies
from outthink.serving.dashboard import HourlyHeadroom
from outthink.serving.failure import check_admin
from outthink.serving.protocols import AdmittedRequest, Key, RequestRecord
from outthink.serving.verifier import ServedVerifier
from outthink.serving.watch import Watcher
from outthink.strategies import strategies

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
SAMPLES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_TOKENS = ("prompt", "completion", "cancelled")
_COSTS = {"usd": "dollars", "joules": "joules", "flops": "floating-point operations"}
_amounts = attrgetter("prompt_tokens", "completion_tokens", "cancelled_tokens", *_COSTS)
_STOPPED = frozenset({"finished", "consensus", "first-m", "gave-up", "interrupted", "error"})
_OTHER = "other"
_WHOLE_BOUND = re.compile(rb'{le="(\d+)\.0"')

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics(Watcher):
    """A watcher that counts, and a Prometheus collector of what the parts tell when somebody looks."""

    def __init__(
        self,
        app: App,
        policies: Policies,
        verifier: ServedVerifier | None = None,
        headroom: HourlyHeadroom | None = None,
    ) -> None:
        self._app, self._policies, self._verifier, self._headroom = app, policies, verifier, headroom
        self._running = 0
        self.registry = CollectorRegistry()
        counter = partial(Counter, namespace="outthink", registry=self.registry)
        histogram = partial(Histogram, namespace="outthink", registry=self.registry)
        pair = ("model", "strategy")  # by what requests are told apart
        # A series is looked up by its labels once a request, several times: in a cache that takes no lock.
        self._requests = cache(counter("requests", "Requests answered.", ("endpoint", *pair, "status")).labels)
        self._stopped = cache(counter("stopped", "Why requests ended.", ("strategy", "reason")).labels)
        about = "Tokens read, written, and written for samples that were cancelled."
        tokens = counter("tokens", about, ("kind", *pair))
        about = "Requests of which an amount is not known; sums lack it."
        self._unknown = cache(counter("unknown", about, (*pair, "amount")).labels)
        costs = {name: counter(name, f"Spent in {unit}, where it is known.", pair) for name, unit in _COSTS.items()}
        self._spent = [(f"{kind} tokens", cache(partial(tokens.labels, kind))) for kind in _TOKENS]
        self._spent += [(name, cache(cost.labels)) for name, cost in costs.items()]
        about = "Seconds to the end of a reply."
        self._seconds = cache(histogram("request_seconds", about, pair, buckets=SECONDS).labels)
        about = "Seconds to the first token of a stream."
        self._first = cache(histogram("first_token_seconds", about, pair, buckets=SECONDS).labels)
        about = "Samples drawn for a request."
        self._samples = cache(histogram("request_samples", about, pair, buckets=SAMPLES).labels)
        self.registry.register(self)

    def began(self, request: AdmittedRequest) -> None:
        """One more is being answered."""
        self._running += 1

    def finished(self, record: RequestRecord) -> None:
        """Count a request."""
        self._running = max(0, self._running - 1)  # requests that were refused end without having begun
        model = record.backend_model
        model = model if model in self._app.pool.names() else _OTHER
        strategy = strategy_of(record.strategy)
        self._requests(record.endpoint, model, strategy, record.status).inc()
        self._stopped(strategy, stopped_of(record.stopped)).inc()
        self._seconds(model, strategy).observe(record.seconds)
        self._samples(model, strategy).observe(record.samples)
        if record.first_seconds is not None:
            self._first(model, strategy).observe(record.first_seconds)
        for (name, spent), amount in zip(self._spent, _amounts(record), strict=True):
            if amount is None:
                self._unknown(model, strategy, name).inc()
            elif amount:
                spent(model, strategy).inc(amount)

    def collect(self) -> Iterator[Metric]:
        """What other parts have counted, and how they are now."""
        app, shadow = self._app, self._policies.compared
        about = "Error objects that clients have got, those of requests that were refused at the door included."
        errors = CounterMetricFamily("outthink_errors", about, labels=("status", "code"))
        for (status, code), count in app.failed.items():
            errors.add_metric((str(status), code), count)
        yield errors
        # What a policy that is tried in the shadow would have done.
        choices = CounterMetricFamily("outthink_shadow_choices", "Choices of the shadow policy.", labels=("same",))
        for same, count in (("yes", shadow.agreed), ("no", shadow.differed), ("refused", shadow.refused)):
            choices.add_metric((same,), count)
        yield choices
        about = "Tokens predicted for the requests that both policies have decided."
        predicted = CounterMetricFamily("outthink_shadow_predicted_tokens", about, labels=("policy",))
        for policy, tokens in (("active", shadow.active_tokens), ("shadow", shadow.shadow_tokens)):
            predicted.add_metric((policy,), tokens)
        yield predicted
        ready = app.pool.ready and not app.stopping
        for name, about, value in (
            ("running_requests", "Requests that are being answered.", self._running),
            ("admitted_requests", "Requests that have a place.", app.admission.active),
            ("waiting_requests", "Requests that stand in line for a place.", app.admission.waiting),
            ("ready", "1 where some backend is healthy and the proxy is not stopping.", ready),
            ("policy_ok", "0 while a changed policy file cannot be used.", self._policies.problem is None),
            ("ledger_ok", "0 while records cannot reach the database.", app.ledger.problem is None),
        ):
            yield GaugeMetricFamily(f"outthink_{name}", about, value=value)
        if (verifier := self._verifier) is not None:
            about = "Whether the verifier is at hand."
            yield GaugeMetricFamily("outthink_verifier_up", about, value=verifier.at_hand is not None)
            about = "Requests that would have been judged, and went without the verifier."
            yield CounterMetricFamily("outthink_without_verifier", about, value=verifier.without)
        capacity = None if self._headroom is None else self._headroom.now()
        if capacity is not None and capacity["used"] is not None:
            about = "Share that the last hour's requests take of what the configured GPUs can serve."
            yield GaugeMetricFamily("outthink_capacity_used_share", about, value=capacity["used"])
        health = GaugeMetricFamily("outthink_backend_up", "Whether a backend is healthy.", labels=("url",))
        for url, healthy in app.pool.health():
            health.add_metric((url,), healthy)
        yield health

    async def handle(self, request: web.BaseRequest, key: Key) -> web.StreamResponse:
        """GET /metrics, for keys made for it and for admins."""
        if not key.metrics:
            check_admin(key)
        # Rules of those who watch name the buckets as we have always written them: le="10", not le="10.0".
        body = _WHOLE_BOUND.sub(rb'{le="\1"', generate_latest(self.registry))
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE_LATEST})


def attach(
    app: App, policies: Policies, verifier: ServedVerifier | None = None, headroom: HourlyHeadroom | None = None
) -> Metrics:
    """Count from now on, and answer /metrics."""
    metrics = Metrics(app, policies, verifier, headroom)
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
