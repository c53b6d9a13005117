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

from outthink.evaluation.report.html import render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
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


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on this machine")
def test_a_reader_can_use_the_report(report_rows: list[dict[str, Any]], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(report_rows, {"title": "Test"}).replace("</body>", f"{READER}</body>"), encoding="utf-8")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    result = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    assert result is not None, done.stderr[-2000:]
    seen = json.loads(unescape(result[1]))
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
