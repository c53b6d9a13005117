"""What watchers, metrics, logs and traces tell of real requests: everything that was spent, and no secret."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families

from outthink.core.errors import BadInput
from outthink.http.errors import scrub
from outthink.serving.chat.backends import Policies
from outthink.serving.observe import logs, metrics, telemetry
from outthink.serving.protocols import RequestRecord
from outthink.serving.watch import Watcher
from support.chat_server import ChatServer, Hang, chat, refusal, stream, whole
from support.proxy_server import CHAT, ProxyServer

ROOT = Path(__file__).parents[2]


class RecordingWatcher(Watcher):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def began(self, running: Any) -> None:
        self.told.append(("began", running.id, running.strategy))

    def sampled(self, id: str, index: int, state: str, answer: str | None, tokens: int | None, backend: str) -> None:
        self.told.append((state, id, index, answer))

    def voted(self, id: str, votes: Any, leader: str | None) -> None:
        self.told.append(("voted", id, dict(votes), leader))

    def finished(self, record: Any) -> None:
        self.told.append(("end", record.id, record.stopped))


def figures(proxy: ProxyServer) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample at /metrics by its name and the values of its labels, in the order of their names."""
    got = proxy.get("/metrics")
    assert got.status == 200
    families = text_string_to_metric_families(got.content.decode())
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_strategy_is_told_sample_by_sample(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = lambda seen: stream(Hang()) if seen.body["seed"] == 2 else chat(["The answer is 4."])
    messages = RecordingWatcher()
    proxy.app.watchers.add(messages)
    got = proxy.chat("outthink/self-consistency@3", seed=0)
    receipt = got.headers["x-outthink-receipt"]
    assert messages.told[0] == ("began", receipt, "self-consistency:n=3")
    assert messages.told[-1] == ("end", receipt, "consensus")
    states = [received[0] for received in messages.told]
    assert states.count("started") == 3
    assert (states.count("finished"), states.count("cancelled")) == (2, 1)
    assert ("voted", receipt, {"4": 2}, "4") in messages.told


def test_a_request_that_fails_ends_for_its_watchers(backend: ChatServer, proxy: ProxyServer) -> None:
    messages = RecordingWatcher()
    proxy.app.watchers.add(messages)
    backend.routes[CHAT] = refusal(500, "broken")
    for model in ("tiny", "outthink/single"):
        proxy.chat(model)
    began = [received[1] for received in messages.told if received[0] == "began"]
    assert len(began) == 2
    assert [received[1] for received in messages.told if received[0] == "end"] == began


def test_a_watcher_that_fails_is_dropped_and_the_request_served(proxy: ProxyServer) -> None:
    class Broken(Watcher):
        def began(self, running: Any) -> None:
            raise RuntimeError("no")

    received = RecordingWatcher()
    proxy.app.watchers.add(Broken())
    proxy.app.watchers.add(received)
    assert proxy.chat("tiny").status == 200
    assert proxy.app.watchers._all == (received,)
    assert received.told[-1][0] == "end"


def test_metrics_count_what_was_spent_and_what_nobody_knows(backend: ChatServer, proxy: ProxyServer) -> None:
    metrics.attach(proxy.app, Policies())
    backend.routes[CHAT] = whole({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    proxy.chat("tiny")
    proxy.chat("tiny")
    backend.routes[CHAT] = whole({"choices": []})
    proxy.chat("tiny")
    result = figures(proxy)
    labels = ("tiny", "pass-through")
    assert result["outthink_requests_total", (CHAT, "tiny", "200", "pass-through")] == 3
    assert result["outthink_tokens_total", ("prompt", *labels)] == 6
    assert result["outthink_tokens_total", ("completion", *labels)] == 8
    assert result["outthink_unknown_total", ("prompt tokens", *labels)] == 1
    assert result["outthink_unknown_total", ("usd", *labels)] == 3
    assert ("outthink_usd_total", labels) not in result
    assert result["outthink_request_seconds_count", labels] == 3
    assert result["outthink_running_requests", ()] == 0
    assert result["outthink_backend_up", (proxy.pool.backends[0].url,)] == 1


NAMED = {
    "outthink_requests_total": {"endpoint", "model", "status", "strategy"},
    "outthink_errors_total": {"status", "code"},
    "outthink_stopped_total": {"strategy", "reason"},
    "outthink_tokens_total": {"model", "strategy", "kind"},
    "outthink_unknown_total": {"model", "strategy", "amount"},
    **{f"outthink_{name}_total": {"model", "strategy"} for name in ("usd", "joules", "flops")},
    "outthink_shadow_choices_total": {"same"},
    "outthink_shadow_predicted_tokens_total": {"policy"},
    "outthink_backend_up": {"url"},
}
HISTOGRAMS = ("outthink_request_seconds", "outthink_first_token_seconds", "outthink_request_samples")
NOW = ("running_requests", "admitted_requests", "waiting_requests", "ready", "ledger_ok", "policy_ok")
"""What dashboards and rules of those who watch the proxy name."""


def test_names_and_labels_are_those_that_dashboards_know(proxy: ProxyServer) -> None:
    counting = metrics.attach(proxy.app, Policies())
    proxy.chat("tiny")
    proxy.get("/no/such/path")
    record = RequestRecord("rcpt-1", "key-1", CHAT, "tiny", "tiny", "single", "finished", 0.0, 1.0, 200)
    counting.finished(
        replace(record, prompt_tokens=3, completion_tokens=4, usd=0.1, joules=5.0, flops=1e9, first_seconds=0.2)
    )
    expected = {name: frozenset(labels) for name, labels in NAMED.items()}
    for name in HISTOGRAMS:
        expected |= dict.fromkeys((f"{name}_sum", f"{name}_count"), frozenset({"model", "strategy"}))
        expected[f"{name}_bucket"] = frozenset({"model", "strategy", "le"})
    expected |= dict.fromkeys((f"outthink_{name}" for name in NOW), frozenset())
    text = proxy.get("/metrics").content.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert {(sample.name, frozenset(sample.labels)) for sample in samples} == set(expected.items())
    bounds = {sample.labels["le"] for sample in samples if sample.name == "outthink_request_seconds_bucket"}
    assert {"0.005", "0.5", "1", "10", "300", "+Inf"} < bounds
    documented = (ROOT / "docs" / "serve-observability.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in documented for name in (*NAMED, *HISTOGRAMS, *(f"outthink_{name}" for name in NOW)))


def test_clients_cannot_make_new_series(backend: ChatServer, proxy: ProxyServer) -> None:
    metrics.attach(proxy.app, Policies())
    for name in ("tiny-1", "outthink/nonsense@3", "outthink/single:style=odd"):
        proxy.chat(name)
    proxy.chat("outthink/self-consistency@2", seed=0)
    proxy.chat("outthink/self-consistency@3", seed=0)
    result = figures(proxy)
    strategies = {labels[3] for name, labels in result if name == "outthink_requests_total"}
    assert strategies == {"self-consistency"}
    stopped = {labels: count for (name, labels), count in result.items() if name == "outthink_stopped_total"}
    assert {strategy for _, strategy in stopped} == {"self-consistency"}
    assert sum(stopped.values()) == 2


def test_refusals_are_counted_by_their_code_alone(proxy: ProxyServer) -> None:
    metrics.attach(proxy.app, Policies())
    proxy.chat("no-such-model")
    proxy.get("/no/such/path")
    proxy.get("/no/other/path")
    result = figures(proxy)
    refused = {labels: count for (name, labels), count in result.items() if name == "outthink_errors_total"}
    assert refused[("not_found", "404")] == 2
    assert len(refused) == 2
    assert sum(refused.values()) == 3


def test_the_first_token_of_a_stream_is_timed(proxy: ProxyServer) -> None:
    metrics.attach(proxy.app, Policies())
    proxy.chat("tiny", stream=True)
    proxy.chat("outthink/single", stream=True)
    result = figures(proxy)
    for strategy in ("pass-through", "single"):
        assert result["outthink_first_token_seconds_count", ("tiny", strategy)] == 1


def test_a_line_of_json_for_every_request_and_no_secret(
    backend: ChatServer, proxy: ProxyServer, tmp_path: Path
) -> None:
    path = tmp_path / "log.jsonl"
    written = proxy.app.watchers.add(logs.Logs("info", path))
    proxy.chat("tiny", "my prompt is private", headers={"Authorization": "Bearer sk-verysecret123"})
    backend.routes[CHAT] = refusal(500, "key sk-anothersecret is wrong")
    proxy.chat("outthink/single", "my prompt is private")
    written.close()
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    requests = [line for line in lines if line["message"] == "request"]
    assert [line["strategy"] for line in requests] == ["pass-through", "single"]
    assert requests[0]["tokens"] > 0
    assert requests[0]["usd"] is None
    assert requests[1]["level"] == "warning"
    assert "secret" not in text
    assert "private" not in text


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ("key sk-abc12345 and ot_abcdefghi", "abc"),
        ("postgresql://me:hunter22@db/x", "hunter22"),
        ('{"api_key": "abcdefgh"}', "abcdefgh"),
    ],
)
def test_secrets_are_masked(text: str, gone: str) -> None:
    assert gone not in scrub(text, labelled=True)
    assert "***" in scrub(text, labelled=True)


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        logs.Logs("info", tmp_path / "none" / "log")


def test_spans_follow_the_clients_trace_and_reach_the_backend(backend: ChatServer, proxy: ProxyServer) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from outthink.serving.observe import telemetry

    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    proxy.app.watchers.add(telemetry.Telemetry(provider))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    proxy.chat("outthink/self-consistency@2", headers={"traceparent": parent}, seed=0)
    proxy.chat("tiny", headers={"traceparent": parent})
    spans = kept.get_finished_spans()
    requests = [span for span in spans if span.parent is not None and span.parent.span_id == 0xB7AD6B7169203331]
    assert [dict(span.attributes or {})["outthink.strategy"] for span in requests] == [
        "self-consistency:n=2",
        "pass-through",
    ]
    voted = requests[0]
    samples = [span for span in spans if span.parent is not None and span.parent.span_id == voted.context.span_id]
    assert len(samples) == 2
    assert all(dict(span.attributes or {})["outthink.sample.state"] == "finished" for span in samples)
    received = dict(voted.attributes or {})
    assert received["gen_ai.operation.name"] == "chat"
    assert received["gen_ai.usage.input_tokens"] > 0
    sent = {seen.headers["traceparent"] for seen in backend.calls}
    assert sent == {f"00-0af7651916cd43dd8448eb211c80319c-{span.context.span_id:016x}-01" for span in requests}


def test_nothing_waits_for_a_slow_log(proxy: ProxyServer, tmp_path: Path) -> None:
    path = tmp_path / "log"
    written = proxy.app.watchers.add(logs.Logs("info", path))
    path.unlink()
    os.mkfifo(path)  # whoever opens it waits for a reader
    for _ in range(20):
        assert proxy.chat("tiny").status == 200
    closing = threading.Thread(target=written.close)
    closing.start()
    told: list[str] = []
    while told.count("request") < 20:  # a backend may have a line, too
        told += [json.loads(line)["message"] for line in path.read_text().splitlines()]
    closing.join()
    assert told.count("request") == 20


def test_what_an_exporter_says_is_a_line_without_secrets(tmp_path: Path) -> None:
    log = logs.Logs("info", tmp_path / "log")
    exporter = logging.getLogger("opentelemetry.exporter.otlp")
    try:
        exporter.error("failed with url: %s", "http://me:hunter2-and-more@collector/v1/traces?token=hunter3-and-more")
    finally:
        log.close()
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert "failed with url" in json.loads(line)["message"]
    assert "hunter" not in line
    assert logging.getLogger("opentelemetry").propagate


@pytest.mark.parametrize("ending", ["", "/", "/v1/traces", "?token=a", "/v1/traces/?token=a"])
def test_spans_reach_a_collector_and_say_nothing_of_what_was_said(ending: str, backend: ChatServer) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with ChatServer(routes={"/v1/traces": whole({})}) as collector, ProxyServer(backend.url) as proxy:
        spans = telemetry.Telemetry(telemetry.provider_for(collector.url.removesuffix("/v1") + ending, "ours"))
        proxy.app.watchers.add(spans)
        proxy.chat("outthink/self-consistency@2", "needle")
        proxy.chat("outthink/budget-forcing:max_think=5,cue=needle", "needle")
        spans.close()
        assert {seen.path.partition("?")[0] for seen in collector.seen} == {"/v1/traces"}
        content = b"".join(seen.content for seen in collector.seen)
        assert content.count(b"gen_ai.usage.input_tokens") == 2
        assert b"needle" not in content
        assert b"The answer" not in content


def test_an_endpoint_that_nothing_can_export_to_is_named_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    with pytest.raises(BadInput) as refused:
        telemetry.provider_for("http://me:hunter2@collector/?token=hunter3", "ours")
    assert "hunter" not in str(refused.value)
    assert "http://me:***@collector/?***" in str(refused.value)
