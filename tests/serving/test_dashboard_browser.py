"""The dashboard in a real browser: what it shows, by keyboard, against hostile text, and for every eye."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.dashboard import attach
from outthink.serving.ledger.memory import MemoryLedger
from outthink.serving.protocols import Key
from support.browser import AMISS, CONTRAST, Visit, chromium, visit
from support.chat_server import ChatServer, Hang, chat, chunk, models, stream
from support.policies import policy
from support.proxy_server import CHAT, ProxyServer

VIEWS = ("live", "requests", "spend", "policy")
HOSTILE = '<script>alert("x")</script><img src=x onerror=alert("y")>'


class Whole(MemoryLedger):
    """Keeps receipts with their answers, as --log-content does."""

    logs_content = True


class Guarded(MemoryLedger):
    """Two keys; only one of them is an admin's."""

    guarded = True

    async def authorise(self, bearer: str | None) -> Key | None:
        return {"ot-good": Key("k0", "operator", admin=True), "ot-plain": Key("k1", "tenant")}.get(bearer or "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer(routes={"/v1/models": models("tiny")}) as server:
        server.routes[CHAT] = lambda seen: chat([f"\\boxed{{{4 + seen.body.get('seed', 0) % 4 // 3}}}"])
        yield server


@pytest.fixture
def proxy(backend: ChatServer) -> Iterator[ProxyServer]:
    with ProxyServer(backend.url, ledger=Whole()) as running:
        attach(running.app, policy)
        yield running


@pytest.fixture
def here(browser: Any, proxy: ProxyServer) -> Iterator[Visit]:
    with visit(browser, proxy.port) as one:
        yield one
        assert one.foreign == []
        assert one.said == []
        assert one.dialogs == []


def vote(proxy: ProxyServer, model: str = "outthink/self-consistency@4", **more: Any) -> str:
    """Carry a vote out; its receipt's id."""
    got = proxy.chat(model, seed=0, **more)
    assert got.status == 200, got.content
    return got.headers["x-outthink-receipt"]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_says_what_to_do_before_the_first_request(here: Visit, view: str) -> None:
    here.go(f"#/{view}")
    here.page.wait_for_selector(f"#{view} h1")
    if view == "live":
        assert "curl http://127.0.0.1" in here.page.inner_text("#live-example")
    elif view != "policy":
        assert "Live view" in here.page.inner_text(f"#{view}-rows .empty" if view == "spend" else "#search-rows")
    assert here.page.locator("nav a[aria-current=page]").inner_text().lower() == view


def test_samples_and_votes_appear_while_a_request_runs(backend: ChatServer, proxy: ProxyServer, here: Visit) -> None:
    slow = stream(chunk("\\boxed{"), Hang())
    backend.routes[CHAT] = lambda seen: chat(["\\boxed{42}"]) if seen.body["seed"] < 3 else slow
    here.go("")
    here.page.wait_for_selector("#live-idle", state="visible")
    client = http.client.HTTPConnection("127.0.0.1", proxy.port)
    body = {"model": "outthink/self-consistency@8", "seed": 0, "messages": [{"role": "user", "content": "6 x 7?"}]}
    client.request("POST", CHAT, json.dumps(body), {"content-type": "application/json"})
    card = here.page.locator(".card")
    card.locator(".sample.finished").nth(2).wait_for()
    assert card.locator(".sample").count() == 8
    assert card.locator(".sample.started").count() == 5
    assert card.locator(".ballot .leads .answer").inner_text() == "42"
    assert card.locator(".ballot .number").inner_text() == "3"
    assert "3 finished, 5 running" in (card.locator(".strip").get_attribute("aria-label") or "")
    card.locator("a").click()
    here.page.get_by_text("It is running.").wait_for()
    client.close()
    here.page.get_by_text("The client left before the answer.").wait_for()
    assert here.page.locator("#story .status.cancelled").count() == 5


def test_a_story_opens_by_keyboard_alone(proxy: ProxyServer, here: Visit) -> None:
    number = vote(proxy)
    here.go("")
    here.page.wait_for_selector("#live-ended table")
    press = here.page.keyboard.press
    focused = "document.activeElement.textContent.trim()"
    press("Tab")
    assert here.page.evaluate(focused) == "Skip to content"
    assert here.page.locator("#skip").bounding_box()["y"] >= 0
    press("Enter")
    assert here.page.evaluate("document.activeElement.id") == "main"
    for _ in range(12):
        press("Tab")
        if here.page.evaluate(focused).startswith("self-consistency"):
            break
    outline = here.page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "2px"
    press("Enter")
    here.page.wait_for_selector("#story-body table")
    assert here.page.url.endswith(f"#/requests/{number}")
    assert here.page.evaluate("document.activeElement.id") == "story-title"
    assert here.page.inner_text("#story-title") == "self-consistency:n=4"
    assert here.page.inner_text("#story .said") == "4"
    assert here.page.locator("#story .group tbody tr").count() == 4
    assert here.page.inner_text("#story .why").startswith(proxy.get(f"/v1/receipts/{number}").json["stopped"])
    here.page.go_back()
    here.page.wait_for_selector("#live-ended table")


def test_a_story_can_be_linked_to(proxy: ProxyServer, here: Visit) -> None:
    number = vote(proxy)
    here.go(f"#/requests/{number}")
    here.page.wait_for_selector("#story .ballot")
    assert number in here.page.inner_text("#story")
    here.go("#/requests/rcpt-000000000000000000000000")
    here.page.get_by_text("No request has the id").wait_for()
    here.said.clear()  # the browser reports the 404 itself


def test_search(proxy: ProxyServer, here: Visit) -> None:
    numbers = [vote(proxy) for _ in range(3)]
    vote(proxy, "outthink/single")
    here.go("#/requests")
    rows = here.page.locator("#search-rows tbody tr")
    rows.nth(3).wait_for()
    here.page.get_by_role("searchbox", name="Text").fill(numbers[1][-9:])
    here.page.keyboard.press("Enter")
    here.page.wait_for_url(re.compile(r"text="))
    here.page.get_by_text("1 request", exact=True).wait_for()
    assert rows.locator("a").get_attribute("href") == f"#/requests/{numbers[1]}"
    here.page.reload()
    here.page.get_by_text("1 request", exact=True).wait_for()
    here.page.get_by_role("button", name="Clear").click()
    rows.nth(3).wait_for()
    here.page.get_by_label("Stopped").select_option("budget:usd")
    here.page.get_by_role("button", name="Search").click()
    here.page.get_by_text("Nothing fits.").wait_for()


def test_older_pages(proxy: ProxyServer, here: Visit) -> None:
    numbers = [vote(proxy, "outthink/single") for _ in range(53)]
    here.go("#/requests")
    here.page.get_by_role("button", name="Older").click()
    here.page.get_by_text("3 requests", exact=True).wait_for()
    assert here.page.locator("#search-rows tbody a").last.get_attribute("href") == f"#/requests/{numbers[0]}"
    here.page.get_by_role("button", name="Newest").click()
    here.page.get_by_text("50 requests, and older ones").wait_for()


def test_hostile_text_stays_text(backend: ChatServer, proxy: ProxyServer, here: Visit) -> None:
    backend.routes[CHAT] = chat([HOSTILE])
    number = vote(proxy, "outthink/self-consistency@2:ties=random", outthink={"answer": "text"})
    here.go(f"#/requests/{number}")
    here.page.wait_for_selector("#story .said")
    assert "<script>" in here.page.inner_text("#story .said").lower()
    assert "<script>" in here.page.inner_text("#story .ballot .answer").lower()
    here.page.locator(".raw summary").click()
    assert here.page.locator("#story img, #story script").count() == 0
    here.go(f"#/requests?text={HOSTILE}")
    here.page.get_by_text("Nothing fits.").wait_for()
    assert here.page.get_by_role("searchbox", name="Text").input_value() == HOSTILE


def test_spend_in_every_currency(backend: ChatServer, proxy: ProxyServer, here: Visit) -> None:
    vote(proxy, "outthink/self-consistency@2:ties=random")
    backend.routes[CHAT] = chat(["\\boxed{1}"], counts=None)
    vote(proxy, "outthink/single")
    here.go("#/spend")
    here.page.get_by_role("radio", name="strategy").check()
    here.page.get_by_text("2 strategies").wait_for()
    cells = here.page.locator("#spend-rows tbody tr").first.locator("th, td").all_inner_texts()
    assert cells == ["self-consistency:n=2,ties=random", "1", "14", "", "unknown", "unknown", "0"]
    cells = here.page.locator("#spend-rows tbody tr").nth(1).locator("th, td").all_inner_texts()
    assert cells[:3] == ["single", "1", "unknown"]
    total = here.page.locator("#spend-rows tfoot").inner_text()
    assert "at least 14" in total
    assert "1 of 2 unknown" in total
    here.page.get_by_label("Period").select_option("today")
    here.page.get_by_text("2 strategies").wait_for()


def test_the_frontier(here: Visit) -> None:
    here.go("#/policy")
    here.page.wait_for_selector(".chart svg .mark")
    assert here.page.locator(".chart .mark").count() == 4
    assert here.page.locator(".chart .ring").count() == 1
    assert (
        here.page.locator("#policy tbody tr")
        .nth(2)
        .inner_text()
        .startswith("fixed@4 (chosen)\t60.0 %\t55.0 to 65.0\t400")
    )
    here.page.get_by_role("radio", name="seconds").check()
    here.page.get_by_text("seconds per problem (logarithmic)").wait_for()


def test_a_guarded_proxy_asks_for_an_admins_key(browser: Any, backend: ChatServer) -> None:
    with ProxyServer(backend.url, ledger=Guarded()) as proxy, visit(browser, proxy.port) as here:
        attach(proxy.app)
        proxy.chat("outthink/single", headers={"authorization": "Bearer ot-plain"})
        here.go("#/requests")
        field = here.page.get_by_role("textbox", name="Admin key")
        field.wait_for()
        assert here.page.locator("table").count() == 0
        for given, said in (
            ("ot-wrong", "is not known"),
            ("ot-plain", "is not an admin's"),
            ("кey", "letters, digits"),
        ):
            field.fill(given)
            here.page.keyboard.press("Enter")
            here.page.locator("#gate-error", has_text=said).wait_for()
            assert here.page.locator("table").count() == 0
        field.fill("ot-good")
        here.page.get_by_role("button", name="Open").click()
        here.page.wait_for_selector("#search-rows table")
        assert not any("ot-good" in url for url in here.asked)
        assert here.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        here.page.reload()
        here.page.wait_for_selector("#search-rows table")
        here.page.get_by_role("button", name="Forget key").click()
        field.wait_for()
        assert here.page.evaluate("sessionStorage.length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_every_view_is_accessible(browser: Any, proxy: ProxyServer, scheme: str, width: int) -> None:
    number = vote(proxy)
    proxy.chat("outthink/single", outthink={"budget": "tokens=-1"})
    size = {"width": width, "height": 800}
    with visit(browser, proxy.port, color_scheme=scheme, viewport=size, reduced_motion="reduce") as here:
        for view in (*VIEWS, f"requests/{number}"):
            here.go(f"#/{view}")
            name = "story" if "/" in view else view
            here.page.wait_for_selector(f"#{name} table")
            assert here.page.evaluate(AMISS) == [], view
            assert here.page.evaluate(CONTRAST) == [], view
            assert here.page.evaluate("document.documentElement.scrollWidth") == width, view
            assert here.page.evaluate("document.getAnimations().length") == 0
        assert here.said == []


def test_a_proxy_that_has_gone_is_said_to_have_gone(browser: Any, backend: ChatServer) -> None:
    with ProxyServer(backend.url) as proxy, visit(browser, proxy.port) as here:
        attach(proxy.app)
        here.go("")
        here.page.wait_for_selector("#live-idle", state="visible")
        proxy.do(proxy.app.stop())
        here.page.get_by_role("alert").get_by_text("does not answer").wait_for()
