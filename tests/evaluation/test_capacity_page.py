"""The page of a capacity plan: its figures, what is unknown, hostile names, strategies."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from outthink.economics.capacity.plan import Objective
from outthink.evaluation.report.capacity import render
from support.capacity_plans import compared, plan, simulated

EVIL = '</script><script>alert(1)</script><b onclick="x">@@DATA@@ &amp;'


class Page(HTMLParser):
    """Elements in balance, their text by element, and every attribute."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.source = render(values)
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.found.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] not in ("style", "script"):
            self.texts.append((self.open[-1], data.strip()))

    def said(self, *tags: str) -> list[str]:
        """Texts directly in such elements."""
        return [text for tag, text in self.texts if tag in tags]

    def fact(self, name: str) -> str:
        """What stands in large letters below a name."""
        return self.texts[self.texts.index(("dt", name)) + 1][1]

    def line(self, head: str) -> list[str]:
        """Cells of a table's line."""
        start = self.texts.index(("th", head)) + 1
        end = next((at for at in range(start, len(self.texts)) if self.texts[at][0] != "td"), None)
        return [text for _, text in self.texts[start:end]]

    def bar(self, name: str) -> tuple[str, float]:
        """What is written behind a bar, and its length in percent."""
        told = self.texts[self.texts.index(("span", name)) + 1][1]
        width = re.search(rf"<span>{name}</span><span [^>]*><i [^>]*width:([\d.]+)%", self.source)
        assert width is not None
        return told, float(width[1])


def test_the_first_look_says_what_is_needed() -> None:
    page = Page(plan(gpu_hour=2.0, watts=700.0))
    assert page.said("h1") == ["Capacity for 100 requests a second"]
    facts = ("GPUs needed", "requests a second", "GPUs by reservation", "stable", "binding", "dollars an hour", "power")
    assert [page.fact(name) for name in facts] == ["3", "100", "4", "no", "memory", "$6.00", "1,459 W"]
    assert "33.3 on each of 3 replicas" in page.said("small")


def test_rates_of_a_replica_stand_beside_the_planned_one() -> None:
    page = Page(plan() | {"simulated": simulated()})
    bars = {name: page.bar(name) for name in ("ceiling", "effective", "reservation", "simulated", "planned")}
    assert [told for told, _ in bars.values()] == ["48.45/s", "47.98/s", "40.37/s", "45.00/s", "33.33/s"]
    assert bars["ceiling"][1] == 100
    assert bars["planned"][1] == pytest.approx(100 * 33.33 / 48.45, abs=0.1)
    assert page.source.count(f'<u style="left:{bars["planned"][1]:.1f}%">') == 5


def test_prices_over_utilisation() -> None:
    values = plan(gpu_hour=2.0)
    page, full = Page(values), values["by_utilisation"][-1]
    assert page.line("100 %") == ["47.98", f"{full['usd_per_million_tokens']:.3g}", "0.0000116", "20 ms"]
    assert len(page.line("80 % (planned)")) == 4
    assert "--gpu-hour" not in page.source


def test_what_is_unknown_is_said() -> None:
    page = Page(plan())
    assert any("--gpu-hour USD" in hint for hint in page.said("p"))
    assert page.line("100 %") == ["47.98", "20 ms"]
    assert not {"power", "dollars an hour"} & set(page.said("dt"))
    unknown = Page(plan() | {"gpus_reservation": None, "reservation_requests_per_second": None})
    assert unknown.fact("GPUs by reservation") == "unknown"
    assert "reservation" not in unknown.said("span")


def test_formula_and_simulation_stand_side_by_side() -> None:
    without = Page(plan())
    assert without.line("TPOT, a token, mean") == ["20 ms"]
    page = Page(plan() | {"simulated": simulated(replicas=1)})
    assert page.line("TPOT, a token, mean") == ["20 ms", "1.50 s"]
    assert page.line("E2E, to the end, 95 %")[1] == "3.50 s"
    told = " ".join(page.said("p"))
    assert "20,000 requests on one replica, 99.50/s" in told
    assert "7 preemptions, 1,234 tokens wasted" in told


def test_sensitivity_has_losses_and_gains_on_either_side_of_zero() -> None:
    page = Page(plan())
    assert page.bar("the step")[0] == "-16.7 %"
    assert page.bar("memory")[0].startswith("+2")
    lengths = [page.bar(name)[1] for name in ("outputs", "the step", "prompts", "memory")]
    assert max(lengths[:3]) + lengths[3] == pytest.approx(100, abs=0.2)


def test_an_objective_is_shown() -> None:
    page = Page(plan(objective=Objective(tpot=0.03)))
    assert page.fact("GPUs for the SLO") == "3"
    assert any("TPOT 0.03 s" in about for about in page.said("small"))
    never = {"ttft": 0.1, "tpot": None, "goodput_requests_per_second": 0.0, "gpus": None}
    assert Page(plan() | {"slo": never}).fact("GPUs for the SLO") == "none would do"


@pytest.mark.parametrize("strategies", [False, True])
def test_text_cannot_leave_its_place(strategies: bool) -> None:
    values = plan(notes=[EVIL]) | {"binding": EVIL}
    if strategies:
        pytest.importorskip("matplotlib")
        values["strategies"] = compared("self-consistency", EVIL)
    page = Page(values)
    assert EVIL in page.said("li")
    assert page.fact("binding") == EVIL
    assert [tag for tag, _ in page.found].count("script") == 2 * strategies
    assert not [tag for tag, given in page.found if any(name.startswith("on") for name in given)]


def test_nothing_comes_from_outside() -> None:
    page = Page(plan())
    security = next(given["content"] for _, given in page.found if given.get("http-equiv"))
    assert security is not None
    assert security.startswith("default-src 'none'; ")
    assert not re.findall(r"https?://", page.source)
    assert not [given for _, given in page.found if {"src", "href"} & set(given)]


def test_strategies_are_one_chart_with_three_axes_and_a_table() -> None:
    pytest.importorskip("matplotlib")
    page = Page(plan() | {"strategies": compared("self-consistency", "adaptive-consistency")})
    charts = [given for _, given in page.found if given.get("class") == "chart"]
    assert [chart["data-metric"] for chart in charts if chart["data-scale"] == "log"] == [
        "gpus_exact",
        "usd_per_answer",
        "watts",
    ]
    assert len([chart for chart in charts if "hidden" not in chart]) == 1
    assert page.said("button")[:3] == ["GPUs", "Dollars", "Watts"]
    assert sum(given.get("class") == "point" for _, given in page.found) == 6 * len(charts)
    labels = [given["aria-label"] for _, given in page.found if given.get("class") == "point"]
    assert "adaptive-consistency, n = 2: 60.0 % [55.0, 65.0], 1.49 GPUs" in labels
    rows = [given for tag, given in page.found if tag == "tr" and "data-row" in given]
    assert len(rows) == 6
    data = re.search(r'id="data">(.*?)</script>', page.source, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])[1]["usd_per_answer"] == 4e-5


def test_what_no_strategy_knows_is_no_axis_and_no_column() -> None:
    pytest.importorskip("matplotlib")
    rows = compared("adaptive-consistency", priced=False)
    page = Page(plan() | {"strategies": [{key: row[key] for key in row if key != "gpus_exact"} for row in rows]})
    assert page.said("button")[:2] == ["GPUs", "Watts"]
    assert "$ an answer" not in page.said("button")
    assert "Upper scale" not in page.source, "there is no self-consistency"
