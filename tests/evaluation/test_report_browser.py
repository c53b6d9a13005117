"""The HTML report in a real browser: switches, legend, tooltips and sorting, without a network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from outthink.evaluation.report import capacity
from outthink.evaluation.report.html import render
from support.capacity_plans import compared, plan

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome here")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=2000",
]
# Appended to the report, acts as a reader would and leaves what it saw in the page.
READER = """
<script>
(() => {
  const seen = { errors: [] };
  addEventListener("error", (event) => seen.errors.push(event.message));
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (selector) => all(selector).filter((item) => item.getClientRects().length);
  const press = (element, key) =>
    element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const chart = () => shown(".chart").map((item) => `${item.dataset.metric} ${item.dataset.scale}`).join();
  seen.first = chart();
  one('#metrics [data-metric="seconds"]').click();
  one('#scales [data-scale="linear"]').click();
  seen.second = chart();
  seen.pressed = all(".bar [aria-pressed=true]").map((item) => item.textContent);
  const visible = () => shown('tr[data-strategy="oracle"]').length;
  const key = one('.chart:not([hidden]) .key[data-key="oracle"]');
  seen.before = visible();
  press(key, "Enter");
  seen.hidden = visible();
  seen.keys = all('.key[data-key="oracle"]').every((item) => item.getAttribute("aria-pressed") === "false");
  key.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  seen.after = visible();
  const mark = one('.chart:not([hidden]) .point[data-strategy="adaptive-consistency"]');
  mark.focus();
  seen.focused = document.activeElement === mark;
  seen.tip = one("#tip").hidden ? null : one("#tip").innerText;
  seen.label = mark.getAttribute("aria-label");
  seen.lit = all("tr.lit").length;
  press(document.body, "Escape");
  seen.closed = one("#tip").hidden;
  const head = all("th button").find((item) => item.textContent.startsWith("tokens"));
  const column = () => all("tbody tr").map((line) => Number(line.cells[Number(head.dataset.column)].dataset.value));
  head.click();
  seen.descending = column();
  head.click();
  seen.ascending = column();
  seen.sort = head.parentElement.getAttribute("aria-sort");
  const last = all("th button").at(-1);
  last.click();
  seen.unknownLast = all("tbody tr").at(-1).cells[Number(last.dataset.column)].dataset.value === "";
  seen.loaded = performance.getEntriesByType("resource").length;
  const result = document.createElement("pre");
  result.id = "seen";
  result.textContent = JSON.stringify(seen);
  document.body.append(result);
})();
</script>
"""


# The same for a capacity plan, whose table of strategies is one of several.
PLANNER = """
<script>
(() => {
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const seen = {};
  one('#metrics [data-metric="usd_per_answer"]').click();
  seen.chart = all(".chart").filter((item) => item.getClientRects().length).map((item) => item.dataset.metric);
  const still = () => all(".plain tbody th").map((item) => item.textContent).join();
  const before = still();
  const head = all("th button").find((item) => item.textContent === "$ an answer");
  head.click();
  seen.sorted = all("tr[data-row]").map((line) => Number(line.cells[Number(head.dataset.column)].dataset.value));
  seen.others = still() === before;
  one(".chart:not([hidden]) .point").focus();
  seen.tip = one("#tip").innerText;
  seen.lit = all("tr[data-row].lit").length;
  seen.planned = all(".plain tr.lit").length;
  seen.wide = document.documentElement.scrollWidth - innerWidth;
  const result = document.createElement("pre");
  result.id = "seen";
  result.textContent = JSON.stringify(seen);
  document.body.append(result);
})();
</script>
"""


def _seen(page: str, reader: str, folder: Path) -> dict[str, Any]:
    """What a reader notes of a page on a phone."""
    file = folder / "report.html"
    file.write_text(page.replace("</body>", f"{reader}</body>"), encoding="utf-8")
    command = [
        str(CHROMIUM),
        *FLAGS,
        "--window-size=380,900",
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    result = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    assert result is not None, done.stderr[-2000:]
    return dict(json.loads(unescape(result[1])))


@NEEDS_BROWSER
def test_a_reader_can_use_a_capacity_plan(tmp_path: Path) -> None:
    values = plan(gpu_hour=2.0) | {"strategies": compared("self-consistency", "adaptive-consistency")}
    seen = _seen(capacity.render(values), PLANNER, tmp_path)
    assert seen["chart"] == ["usd_per_answer"]
    assert seen["sorted"] == sorted(seen["sorted"], reverse=True)
    assert seen["others"], "other tables stay as they are"
    assert "self-consistency, n = 1" in seen["tip"]
    assert "0.0000200" in seen["tip"]
    assert "tokens" in seen["tip"]
    assert "seconds" not in seen["tip"], "nothing of what a plan does not have"
    assert (seen["lit"], seen["planned"]) == (1, 1)
    assert seen["wide"] <= 0


@NEEDS_BROWSER
def test_a_reader_can_use_the_report(report_rows: list[dict[str, Any]], tmp_path: Path) -> None:
    seen = _seen(render(report_rows, {"title": "Test"}), READER, tmp_path)
    assert seen["errors"] == []
    assert (seen["first"], seen["second"]) == ("tokens log", "seconds linear")
    assert seen["pressed"] == ["Seconds", "Linear"]
    assert (seen["before"], seen["hidden"], seen["after"]) == (12, 0, 12)
    assert seen["keys"]
    assert seen["focused"]
    assert "adaptive-consistency, n = 1" in seen["tip"]
    assert "1.2 [0.4, 2.0]" in seen["tip"]
    assert seen["label"].startswith("adaptive-consistency, n = 1: 20.0 %")
    assert seen["lit"] == 1
    assert seen["closed"]
    assert seen["ascending"] == sorted(seen["ascending"])
    assert seen["descending"] == sorted(seen["descending"], reverse=True)
    assert seen["sort"] == "ascending"
    assert seen["unknownLast"]
    assert seen["loaded"] == 0
