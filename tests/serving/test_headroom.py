"""The headroom of the configured GPUs: on the dashboard, in the metrics, and what the configuration may say of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import pytest

pytest.importorskip("aiohttp")

from outthink.cli.main import main
from outthink.core.errors import BadInput
from outthink.economics.capacity.server import CapacitySettings
from outthink.engines.shapes import read_shape
from outthink.serving.chat.backends import Policies
from outthink.serving.config import read_config
from outthink.serving.dashboard import HourlyHeadroom, attach, headroom
from outthink.serving.ledger import open_durable
from outthink.serving.ledger.memory import MemoryLedger
from outthink.serving.observe import metrics
from outthink.serving.protocols import LedgerDown, RequestRecord, Reservation, SearchTerms
from support.browser import AMISS, CONTRAST, Visit, chromium, visit
from support.chat_server import ChatServer
from support.ledgers import NOON, Clock, record
from support.proxy_server import ProxyServer
from support.waiting import until

ROOT = Path(__file__).parents[2]
HOUR = 3600.0
LIVE = "/dashboard/api/live"
SIZES: dict[str, Any] = {"kv_tokens": 10_000.0, "step_seconds": 0.1, "gpus": 4, "tensor_parallel": 2}


class WatchedLedger(MemoryLedger):
    """Counts searches, and may hold or refuse them."""

    def __init__(self) -> None:
        super().__init__()
        self.searches = 0
        self.error: Exception | None = None
        self.held: asyncio.Event | None = None

    async def search(self, **terms: Unpack[SearchTerms]) -> Sequence[RequestRecord]:
        self.searches += 1
        if self.held is not None:
            await self.held.wait()
        if self.error is not None:
            raise self.error
        return await super().search(**terms)


def planned(proxy: ProxyServer, clock: Callable[[], float] = lambda: NOON, **changes: Any) -> HourlyHeadroom:
    """The dashboard and the metrics with these GPUs behind the proxy, whose time stands still at noon."""

    async def attached() -> HourlyHeadroom:
        server = CapacitySettings(**{**SIZES, **changes}).read(read_shape)
        watched = HourlyHeadroom(proxy.app, server, clock)
        attach(proxy.app, headroom=watched)
        metrics.attach(proxy.app, Policies(), headroom=watched)
        return watched

    return proxy.do(attached())


def served(proxy: ProxyServer, *ages: float, prompt: int = 100, output: int = 50) -> None:
    """Requests that began so many seconds before noon."""
    for at, age in enumerate(ages):
        tokens = {"prompt_tokens": prompt, "completion_tokens": output, "tokens": prompt + output}
        told = record(f"rcpt-{at:024x}", "a", started=NOON - age, cancelled_tokens=0, **tokens)
        proxy.do(proxy.ledger.settle(Reservation(told.id, told.key_id), told))


def told(proxy: ProxyServer) -> dict[str, Any]:
    """The figures, once they are there."""
    return dict(until(lambda: proxy.get(LIVE).json["capacity"]))


def gauge(proxy: ProxyServer) -> list[str]:
    text = proxy.get("/metrics").content.decode()
    return [line for line in text.splitlines() if line.startswith("outthink_capacity_used_share")]


@pytest.fixture
def watched(backend: ChatServer) -> Iterator[ProxyServer]:
    with ProxyServer(backend.url, ledger=WatchedLedger()) as running:
        yield running


def test_the_last_hour_is_compared_with_what_the_gpus_can_take(watched: ProxyServer) -> None:
    served(watched, 2 * HOUR, 1.5 * HOUR, *(60.0 * at + 1 for at in range(36)))
    planned(watched)
    figures = told(watched)
    assert (figures["requests"], figures["seconds"], figures["rate"]) == (36, HOUR, 0.01)
    # One replica: a step reads all of a prompt, and a request holds 100, 101, ... 150 tokens from step to step.
    held = 100 + sum(100 + at for at in range(1, 51))
    limit = 2 * (10_000 - 150) / held / 0.1
    assert figures["limit"] == pytest.approx(limit)
    assert figures["used"] == pytest.approx(0.01 / limit)
    assert (figures["gpus"], figures["needed"], figures["binding"], figures["problem"]) == (4, 2, "memory", None)
    assert gauge(watched) == [f"outthink_capacity_used_share {figures['used']}"]
    documented = (ROOT / "docs" / "serve-observability.md").read_text(encoding="utf-8")
    assert "`outthink_capacity_used_share`" in documented
    described = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in described.partition("## Headroom")[2] for name in figures)


def test_more_gpus_are_needed_where_the_load_exceeds_them(watched: ProxyServer) -> None:
    served(watched, 2 * HOUR, *(at % 3000 + 1.0 for at in range(4000)))
    planned(watched, gpus=1, tensor_parallel=1, kv_tokens=300.0)
    figures = told(watched)
    assert figures["used"] > 1
    assert figures["needed"] == -(-figures["used"] // 0.8)


def test_a_young_ledger_has_no_whole_hour(watched: ProxyServer) -> None:
    served(watched, 120.0, 30.0, 10.0)
    planned(watched)
    assert told(watched)["rate"] == 3 / 120


def test_real_requests_are_counted(proxy: ProxyServer) -> None:
    proxy.chat("outthink/single")
    proxy.chat("tiny")
    planned(proxy, time.time)
    figures = told(proxy)
    assert (figures["requests"], figures["unknown"]) == (2, 0)
    assert 60 <= figures["seconds"] < HOUR


def test_a_durable_ledger_is_read_beside_its_requests(backend: ChatServer, ledger_url: str) -> None:
    with ProxyServer(backend.url, ledger=open_durable(ledger_url)) as proxy:
        proxy.chat("tiny")
        planned(proxy, time.time)
        assert told(proxy)["requests"] == 1


def test_an_hour_without_requests_says_so(watched: ProxyServer) -> None:
    served(watched, 2 * HOUR)
    planned(watched)
    figures = told(watched)
    assert (figures["requests"], figures["used"], figures["rate"], figures["problem"]) == (0, 0.0, None, None)
    assert gauge(watched) == ["outthink_capacity_used_share 0.0"]


def test_without_the_section_nothing_is_told(watched: ProxyServer) -> None:
    attach(watched.app)
    metrics.attach(watched.app, Policies())
    assert watched.get(LIVE).json["capacity"] is None
    assert gauge(watched) == []


def test_figures_are_kept_for_a_minute(watched: ProxyServer) -> None:
    clock, ledger = Clock(), watched.ledger
    assert isinstance(ledger, WatchedLedger)
    served(watched, 2 * HOUR, 10.0)
    planned(watched, clock)
    first = told(watched)
    searches = ledger.searches
    clock.now += 59.0
    assert told(watched) == first
    assert ledger.searches == searches
    clock.now += 1.0
    assert until(lambda: (now := told(watched))["at"] > first["at"] and now)["requests"] == 1
    assert ledger.searches == 2 * searches


def test_nobody_waits_for_a_ledger_that_hangs(watched: ProxyServer) -> None:
    ledger = watched.ledger
    assert isinstance(ledger, WatchedLedger)
    ledger.held = asyncio.Event()
    served(watched, 10.0)
    planned(watched)
    assert watched.get(LIVE).json["capacity"] is None
    assert watched.chat("tiny").status == 200
    assert gauge(watched) == []
    watched.do(_set(ledger.held))
    assert told(watched)["requests"] == 1


async def _set(event: asyncio.Event) -> None:
    event.set()


def test_what_keeps_figures_from_being_computed_is_told(watched: ProxyServer) -> None:
    clock, ledger = Clock(), watched.ledger
    assert isinstance(ledger, WatchedLedger)
    ledger.error = LedgerDown("the ledger's database cannot be used now", "secret words")
    planned(watched, clock, kv_tokens=400.0)
    figures = told(watched)
    assert (figures["problem"], figures["used"]) == ("the ledger's database cannot be used now", None)
    assert gauge(watched) == []
    ledger.error = None
    served(watched, 10.0, output=500)
    clock.now += 60.0
    figures = until(lambda: (now := told(watched))["at"] > figures["at"] and now)
    assert figures["problem"].startswith("kv_tokens: '400' holds less than the longest request of 600 tokens")
    assert (figures["requests"], figures["used"]) == (1, None)


def test_beyond_many_requests_the_newest_stand_for_all(watched: ProxyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "PAGE", 5)
    monkeypatch.setattr(headroom, "PAGES", 4)
    served(watched, *(30.0 * at + 1 for at in range(60)))
    planned(watched)
    figures = told(watched)
    assert figures["requests"] == 20
    assert figures["rate"] == 20 / (19 * 30 + 1)


BACKEND = '[[serve.backends]]\nurl = "http://192.0.2.1:8000/v1"\n[serve.capacity]\n'


def test_paths_of_the_section_are_the_files_neighbours(tmp_path: Path) -> None:
    gpu = '{"name": "mine", "memory": 8e10, "bandwidth": 1e12, "flops": 1e14, "power": 300, "interconnect": 1e10,'
    (tmp_path / "gpu.json").write_text(gpu + '"source": "a test"}')
    (tmp_path / "profile.json").write_text('{"schema": "outthink.step-profile/1", "base": [[0, 0.5]]}')
    file = tmp_path / "serve.toml"
    file.write_text(BACKEND + "gpu = 'gpu.json'\nspeed = 'profile.json'\nkv_tokens = 5000\ngpus = 2\n")
    config = read_config(file, environ={})
    server = config.capacity_server()
    assert server is not None
    assert str(server) == "2 mine"
    assert server.measured is not None
    assert server.measured.base == ((0.0, 0.5),)
    config = read_config(file, environ={"OUTTHINK_SERVE_CAPACITY_GPUS": "3"}, settings=["capacity.gpu=h200"])
    assert str(config.capacity_server()) == "3 H200"


def test_without_the_section_there_is_no_server(tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text(BACKEND)
    assert read_config(tmp_path / "serve.toml", environ={}).capacity_server() is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gpuss = 1", "serve.capacity: 'gpuss' is no key; did you mean gpus?"),
        ("gpus = 'two'", "serve.capacity.gpus: 'two' is not a whole number"),
        ("gpus = 0", "serve.capacity.gpus: 0 is below 1"),
        ("gpu_hour = 2.5", "capacity.step_seconds: None is missing"),
        ("gpu = 'h9'", "serve.capacity.gpu: 'h9' is not known; use one of"),
        ("model = 'gone.gguf'", "gone.gguf' does not exist"),
        ("speed = 'gone.json'", "gone.json' cannot be read"),
        ("step_seconds = nan", "serve.capacity.step_seconds: nan is not a number"),
        ("step_seconds = 1", "capacity.kv_tokens: None is unknown"),
        ("utilisation = 0", "serve.capacity.utilisation: 0.0 is not above 0 and up to 1"),
    ],
)
def test_a_section_that_cannot_be_used_is_refused_before_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(BACKEND + text + "\n")
    assert main(["serve", "--config", str(file), "--port", "0", "--ledger", "memory:"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    with pytest.raises(BadInput):
        read_config(file, environ={}).capacity_server()


def test_check_looks_at_the_section(tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: ChatServer) -> None:
    file = tmp_path / "serve.toml"
    text = BACKEND.replace("http://192.0.2.1:8000/v1", backend.url)
    for settings, code, said in (
        ("max_sequences = 8\nstep_seconds = 0.1\n", 0, "capacity: planned with 1 GPU"),
        ("max_sequences = 8\n", 1, "outthink serve: capacity: capacity.step_seconds: None is missing"),
    ):
        file.write_text(text + settings)
        assert main(["serve", "--check", "--config", str(file), "--ledger", "memory:"]) == code
        captured = capsys.readouterr()
        assert said in (captured.err if code else captured.out)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


def shown(here: Visit) -> str:
    here.go("")
    here.page.wait_for_selector("#live-capacity h2")
    return str(here.page.inner_text("#live-capacity"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_shows_the_share_used(browser: Any, watched: ProxyServer, scheme: str, width: int) -> None:
    served(watched, 2 * HOUR, *(60.0 * at + 1 for at in range(36)))
    planned(watched, kv_tokens=200.0)
    size = {"width": width, "height": 800}
    with visit(browser, watched.port, color_scheme=scheme, viewport=size, reduced_motion="reduce") as here:
        text = shown(here)
        assert "Capacity of 4 GPUs" in text
        assert "% used" in " ".join(text.split())
        assert "memory of the cache" in text
        assert "36 requests in the last hour" in text
        assert here.page.evaluate(AMISS) == []
        assert here.page.evaluate(CONTRAST) == []
        assert here.page.evaluate("document.documentElement.scrollWidth") == width
        assert (here.said, here.foreign) == ([], [])


def test_the_page_says_when_nothing_was_asked_for_and_nothing_without_the_section(
    browser: Any, backend: ChatServer, watched: ProxyServer
) -> None:
    planned(watched)
    with visit(browser, watched.port) as here:
        assert "No request in the last hour." in shown(here)
    with ProxyServer(backend.url) as plain, visit(browser, plain.port) as here:
        attach(plain.app)
        here.go("")
        here.page.wait_for_selector("#live-idle", state="visible")
        assert here.page.locator("#live-capacity").is_hidden()
