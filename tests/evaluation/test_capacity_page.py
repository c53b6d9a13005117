"""The page of a capacity plan: its figures, what is unknown, hostile names, strategies."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from outthink.economics.capacity.plan import Capacity, Deployment, Objective
from outthink.economics.capacity.report import CapacityPlan
from outthink.economics.step_profile import StepProfile
from outthink.economics.workload import Workload
from outthink.evaluation.report.capacity import render


def plan(**more: Any) -> dict[str, Any]:
    profile = StepProfile(base=((0.0, 0.02),), chunk=256)
    deployment = Deployment(profile=profile, memory=40_000, **more)
    capacity = Capacity(Workload.of_calls([256], [128]), deployment)
    return CapacityPlan(capacity=capacity, rate=100.0, notes=("<script>alert(1)</script>",)).as_json()


class Page(HTMLParser):
    """Tags in balance, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        if tag not in {"meta", "br", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def test_the_page_shows_the_plan() -> None:
    page = Page(render(plan(gpu_hour=2.0, watts=700.0)))
    assert page.open == []
    for part in ("Capacity for 100 requests a second", "48.45/s", "47.98/s", "40.37/s", "$6.00", "memory", "TTFT"):
        assert part in page.text
    assert "<script>alert(1)</script>" in page.text  # as text


def test_what_is_unknown_is_said() -> None:
    page = Page(render(plan()))
    assert "--gpu-hour" in page.text
    assert "power" not in page.text
    values = plan() | {"slo": {"ttft": 0.1, "tpot": None, "goodput_requests_per_second": 0.0, "gpus": None}}
    assert "none would do" in Page(render(values)).text


def test_a_simulation_stands_beside_the_formula() -> None:
    spread = {"mean": 1.5, "p50": 1.25, "p95": 3.5}
    simulated = {"saturation_requests_per_second": 90.0, "replicas": 2, "ttft": spread, "tpot": spread, "e2e": spread}
    page = Page(render(plan() | {"simulated": simulated}))
    assert "45.00/s" in page.text
    assert page.text.count("3.50 s") == 3


def test_strategies_are_drawn_and_listed() -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {
            "strategy": name,
            "n": n,
            "accuracy": 0.5 + 0.05 * n,
            "accuracy_low": 0.4,
            "accuracy_high": 0.9,
            "tokens": 100.0 * n,
            "gpus": n,
            "gpus_exact": 0.75 * n,
            "usd_per_answer": None,
            "watts": 500.0 * n,
        }
        for name in ("self-consistency", "<b>mine</b>")
        for n in (1, 2, 4)
    ]
    page = render(plan() | {"strategies": rows})
    assert page.count("<svg") == 2  # dollars are unknown
    assert "<b>mine" not in page
    assert "&lt;b&gt;mine" in page


def test_an_objective_is_shown() -> None:
    profile = StepProfile(base=((0.0, 0.01), (100.0, 0.05)), chunk=256)
    capacity = Capacity(Workload.of_calls([256], [128]), Deployment(profile=profile, memory=40_000))
    values = CapacityPlan(capacity=capacity, rate=3.0, objective=Objective(tpot=0.03)).as_json()
    assert "GPUs for the SLO" in Page(render(values)).text
